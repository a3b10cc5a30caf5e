"""Images in and out: volumes, geometry, readers, writers, resampling."""
