"""From a volume to a segmentation: preprocessing, windows, feature maps, labels, restoration."""
