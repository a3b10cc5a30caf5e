"""Supervoxels: pieces of a CT that follow the borders of organs without knowing any, for training on unseen objects."""
