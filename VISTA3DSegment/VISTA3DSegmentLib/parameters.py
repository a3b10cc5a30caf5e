# SPDX-License-Identifier: Apache-2.0
"""What the panel keeps in the scene, so that a saved scene opens with the same choices."""

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper

#: Parts of the volume that can be segmented, as ``region`` names them.
WHOLE_VOLUME, ROI_NODE, SLICE_VIEW = "volume", "roi", "view"


@parameterNodeWrapper
class PanelParameters:
    """The choices of one scene. What belongs to the user (model, device, favorites) is kept in the settings instead.

    volume: the image to segment.
    segmentation: where the result goes; none: a new one is made.
    structures: indices of the chosen structures in the catalogue of the model's label set.
    region: see the constants above.
    roi: the box, for ``ROI_NODE``.
    view: the name of the slice view, for ``SLICE_VIEW``.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    structures: list[int]
    region: str = WHOLE_VOLUME
    roi: vtkMRMLMarkupsROINode
    view: str = "Red"
