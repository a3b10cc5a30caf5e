"""Time and memory beside the reference pipeline: the same weights, the same volumes, interleaved, checked first."""
