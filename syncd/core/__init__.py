"""What is decided: pure functions and values. No await, no clock, no chance, no I/O."""
