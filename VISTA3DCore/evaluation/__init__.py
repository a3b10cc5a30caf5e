"""Measuring: volume statistics of structures and agreement with reference labels."""
