"""The automatic branch: from windows to a feature map, labels, and back to the input grid."""
