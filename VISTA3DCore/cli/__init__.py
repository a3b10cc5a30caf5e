"""The command line, vista3d."""
