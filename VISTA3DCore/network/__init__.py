"""The VISTA3D network in plain PyTorch; it defines what is correct."""
