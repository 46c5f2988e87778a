"""Its presence makes `supervisor` and `threads` importable from the tests of this folder."""
