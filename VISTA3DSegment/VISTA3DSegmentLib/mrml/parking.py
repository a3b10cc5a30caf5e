# SPDX-License-Identifier: Apache-2.0
"""A node for an editor that is not shown, so that it neither edits nor complains."""

from __future__ import annotations

import slicer

_SINGLETON = "VISTA3DParked"


def parked(editor_node: slicer.vtkMRMLSegmentEditorNode) -> slicer.vtkMRMLSegmentEditorNode:
    """Return a node with the segmentation and the volume of an editor's node, and with nothing chosen beside them.

    An editor's widget that lets its node go still follows the segmentation, and logs an error whenever one of its
    segments changes. With this node it follows it quietly, its undo history stays, and no effect is active in it. There
    is one such node in a scene; it is not shown in lists and not saved.
    """
    scene = editor_node.GetScene()
    node = scene.GetSingletonNode(_SINGLETON, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_SINGLETON)
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node = scene.AddNode(node)
    node.SetAndObserveSegmentationNode(editor_node.GetSegmentationNode())
    node.SetAndObserveSourceVolumeNode(editor_node.GetSourceVolumeNode())
    node.SetSelectedSegmentID("")
    node.SetActiveEffectName("")
    return node
