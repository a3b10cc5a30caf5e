"""Scenes, volumes and listeners for the tests of the logic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import vtk
from engine_processes import coarse_phantom
from mrml_scene import add_image

from VISTA3DCore.imaging.volume import Volume
from VISTA3DSegmentLib.logic.signals import Signal
from VISTA3DSegmentLib.mrml.matrices import to_matrix

#: Four windows of the tiny model (12 mm, 32 voxels): about half a second of work.
SHAPE = (40, 40, 32)


class MemoryStore:
    """Settings that live as long as the test."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values = dict(values or {})

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value


class Heard:
    """What signals said, in order: (name, arguments)."""

    def __init__(self, source: Any) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []
        for name, signal in vars(source).items():
            if isinstance(signal, Signal):
                signal.connect(self._listener(name))

    def _listener(self, name: str) -> Any:
        return lambda *arguments: self.events.append((name, arguments))

    def all(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of each call of a signal."""
        return [arguments for one, arguments in self.events if one == name]

    def any(self, *names: str) -> bool:
        """Whether one of the signals was heard."""
        return any(one in names for one, _ in self.events)

    def sentence(self, name: str) -> str:
        """Return the one sentence that a signal said."""
        ((sentence,),) = self.all(name)
        assert_sentence(sentence)
        return sentence


class Answers:
    """Callbacks of one request, and what they got."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: list[Exception] = []
        self.progress: list[Any] = []

    @property
    def callbacks(self) -> tuple[Any, Any, Any]:
        return self.results.append, self.errors.append, self.progress.append

    @property
    def count(self) -> int:
        return len(self.results) + len(self.errors)


def assert_sentence(text: str) -> None:
    """Check that a text is fit for people: one or two sentences on one line."""
    assert text[0].isupper() or text.startswith(("'", "torch ")), text
    assert text.endswith("."), text
    assert "\n" not in text, text
    assert "Traceback" not in text, text


def new_scene() -> slicer.vtkMRMLScene:
    """Return an empty scene with a subject hierarchy."""
    scene = slicer.vtkMRMLScene()
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    return scene


def add_volume(
    scene: slicer.vtkMRMLScene, volume: Volume | None = None, name: str = "CT"
) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a volume, by default the phantom that suits the tiny model."""
    volume = volume or coarse_phantom(SHAPE)
    return add_image(scene, volume.array, volume.affine, name)


def add_transform(node: Any, array: np.ndarray) -> slicer.vtkMRMLLinearTransformNode:
    """Put a node under a new linear transform."""
    transform = node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(to_matrix(array))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def rotated(angles: tuple[float, float, float], shift: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Return a rotation about R, A, S by degrees, then a shift in mm, 4x4."""
    transform = vtk.vtkTransform()
    transform.Translate(*shift)
    transform.RotateX(angles[0])
    transform.RotateY(angles[1])
    transform.RotateZ(angles[2])
    return np.array(transform.GetMatrix().GetData()).reshape(4, 4)
