"""Kernels for GPUs, each with a twin in plain PyTorch that defines what it computes."""
