"""The VISTA3D network, its checkpoints and its runtimes."""
