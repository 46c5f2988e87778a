"""What every folder of tests shares. Its presence makes `processes` importable from all of them."""
