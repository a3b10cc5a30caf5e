"""The picture: orientation, proportions, colours."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.cli.planes import planes_of
from VISTA3DCore.cli.preview import preview_encoder
from VISTA3DCore.errors import OutputError
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume


def _segmentation(labels: np.ndarray, affine: np.ndarray, masks: dict | None = None) -> SimpleNamespace:
    indices = sorted({int(i) for i in np.unique(labels) if i} | set(masks or {}))
    structures = tuple(catalogue()[index] for index in indices)
    return SimpleNamespace(labels=labels, masks=masks or {}, structures=structures, affine=affine)


def _stored(array: np.ndarray, affine: np.ndarray, order: tuple, flips: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Store the same image with other axis directions, as scanners do."""
    affine = affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    columns = affine.copy()
    columns[:3, :3] = affine[:3, list(order)]
    return array.transpose(order), columns


@settings(max_examples=20, deadline=None)
@given(order=st.permutations((0, 1, 2)), flips=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_every_storage_order_gives_the_same_radiological_planes(order: list[int], flips: tuple) -> None:
    volume, labels = paint_phantom((24, 20, 16))
    expected = planes_of(volume, _segmentation(labels, volume.affine))
    image, affine = _stored(volume.array, volume.affine, tuple(order), flips)
    stored, _ = _stored(labels, volume.affine, tuple(order), flips)
    for plane, truth in zip(planes_of(Volume(image, affine), _segmentation(stored, affine)), expected, strict=True):
        np.testing.assert_array_equal(plane.image, truth.image)
        assert plane.masks.keys() == truth.masks.keys()
        assert (plane.name, plane.letters) == (truth.name, truth.letters)
        assert plane.size == pytest.approx(truth.size)


def test_right_is_left_and_posterior_is_below() -> None:
    volume, labels = paint_phantom((40, 32, 36))
    kidneys = np.where(np.isin(labels, (5, 14)), labels, 0).astype(np.uint16)
    axial, coronal, sagittal = planes_of(volume, _segmentation(kidneys, volume.affine))
    for plane in (axial, coronal):
        right, left = (np.argwhere(plane.masks[index]).mean(axis=0) for index in (5, 14))
        assert right[1] < plane.image.shape[1] / 2 < left[1]
    assert right[0] == pytest.approx(left[0], abs=1)
    assert np.argwhere(axial.masks[5]).mean(axis=0)[0] > axial.image.shape[0] / 2
    assert (axial.letters, coronal.letters, sagittal.letters) == (tuple("RLAP"), tuple("RLSI"), tuple("APSI"))


def test_picture_shows_the_structures_colours_and_overlapping_masks(tmp_path: Path) -> None:
    volume, labels = paint_phantom((40, 32, 36))
    tumor = np.zeros(labels.shape, bool)
    centre = tuple(n // 2 for n in labels.shape)
    tumor[tuple(slice(c - 3, c + 4) for c in centre)] = True
    segmentation = _segmentation(labels, volume.affine, {26: tumor})
    write_files({tmp_path / "a.png": preview_encoder(volume, segmentation, "Phantom")})
    picture = imread(tmp_path / "a.png")[..., :3]
    assert picture.shape[1] > picture.shape[0] > 600
    for index in (26, 1):  # legend swatches have the pure colour
        color = np.array(catalogue()[index].color) / 255
        assert (np.abs(picture - color).max(axis=2) < 0.01).sum() > 100
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("shape", [(40, 40, 2), (6, 5, 90), (1, 1, 1)])
def test_thin_long_and_empty_volumes_are_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    volume = Volume(np.zeros(shape, np.int16), np.diag([1.0, 1.0, 5.0, 1.0]))
    colored = []
    for labels in (np.zeros(shape, np.uint16), np.ones(shape, np.uint16)):
        write_files({tmp_path / "a.png": preview_encoder(volume, _segmentation(labels, volume.affine), surfaces=True)})
        picture = imread(tmp_path / "a.png")[..., :3]
        colored.append(int((np.ptp(picture, axis=2) > 0.15).sum()))
    assert colored[0] == 0
    assert colored[1] > 10_000


def test_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    volume, labels = paint_phantom((8, 8, 8))
    with pytest.raises(OutputError, match="does not exist"):
        write_files({tmp_path / "missing" / "a.png": preview_encoder(volume, _segmentation(labels, volume.affine))})
