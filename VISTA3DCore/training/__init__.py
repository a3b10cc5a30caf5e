"""Training of VISTA3D networks."""
