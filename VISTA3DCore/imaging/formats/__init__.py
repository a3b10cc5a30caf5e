"""File formats: NIfTI, DICOM, what ITK reads, segmentations of Slicer, markups."""
