"""Runtimes of the network; the torch one defines correctness."""
