"""The network on NVIDIA GPUs: fused kernels and CUDA graphs."""
