"""Surfaces: what is where, what hides what, and that a body keeps its size."""

from __future__ import annotations

import numpy as np
import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.cli.surface import ANTERIOR, LEFT, POSTERIOR, View, render
from VISTA3DCore.imaging.segmentation import Segmentation

LIVER, SPLEEN = catalogue()["liver"], catalogue()["spleen"]
SHAPE = (40, 50, 60)  # R, A, S


def _box(*sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def _segmentation(liver: np.ndarray, spleen: np.ndarray, overlapping: bool = False) -> Segmentation:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    labels = (liver * LIVER.index + (spleen & ~liver) * SPLEEN.index * (not overlapping)).astype(np.uint16)
    masks = {SPLEEN.index: spleen} if overlapping else {}
    return Segmentation(labels, masks, (LIVER, SPLEEN), affine)


def _seen(segmentation: Segmentation, view: View) -> dict[str, np.ndarray]:
    """Return the pixels of liver and spleen, told by their hue, on a black background."""
    picture = render(segmentation, "#000000", [view], height=180)[view]
    lit = picture.max(axis=2) > 0.02
    hues = [np.array(one.color) / max(one.color) for one in (LIVER, SPLEEN)]
    shown = picture / np.maximum(picture.max(axis=2, keepdims=True), 1e-6)
    distance = np.stack([np.abs(shown - hue).sum(axis=2) for hue in hues])
    return {one.name: lit & (distance.argmin(axis=0) == n) for n, one in enumerate((LIVER, SPLEEN))}


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """Return the mean (row, column), as shares of the picture."""
    return tuple(np.argwhere(mask).mean(axis=0) / mask.shape)


def test_sides_are_where_a_viewer_expects_them() -> None:
    right_high_front = _box((28, 36), (35, 45), (45, 55))
    left_low_back = _box((4, 12), (5, 15), (5, 15))
    segmentation = _segmentation(right_high_front, left_low_back)
    for view, left_in_picture in ((ANTERIOR, "liver"), (POSTERIOR, "spleen"), (LEFT, "liver")):
        seen = _seen(segmentation, view)
        places = {name: _middle(mask) for name, mask in seen.items()}
        right_in_picture = "spleen" if left_in_picture == "liver" else "liver"
        assert places["liver"][0] < 0.3
        assert places["spleen"][0] > 0.7
        assert places[left_in_picture][1] < 0.4
        assert places[right_in_picture][1] > 0.6


@pytest.mark.parametrize("overlapping", [False, True])
def test_the_nearer_body_hides_the_other(overlapping: bool) -> None:
    front, back = _box((10, 30), (30, 40), (20, 40)), _box((10, 30), (5, 15), (20, 40))
    segmentation = _segmentation(front, back, overlapping)
    before, behind = _seen(segmentation, ANTERIOR), _seen(segmentation, POSTERIOR)
    assert before["liver"].sum() > 20 * before["spleen"].sum()
    assert behind["spleen"].sum() > 20 * behind["liver"].sum()


@pytest.mark.parametrize("thickness", [1, 2, 12])
def test_thin_bodies_keep_their_size(thickness: int) -> None:
    bar = _box((10, 10 + thickness), (20, 20 + thickness), (5, 55))
    seen = _seen(_segmentation(bar, np.zeros(SHAPE, bool)), ANTERIOR)["liver"]
    width = seen[90].sum() / seen.shape[1] * SHAPE[0]
    assert width == pytest.approx(thickness, abs=0.3 * thickness + 0.3)


def test_stored_orientation_does_not_matter() -> None:
    segmentation = _segmentation(_box((28, 36), (35, 45), (45, 55)), _box((4, 12), (5, 15), (5, 15)))
    turned = segmentation.labels[::-1].transpose(2, 0, 1)
    affine = np.array([[0.0, -3.0, 0.0, 117.0], [0.0, 0.0, 3.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    stored = Segmentation(turned, {}, segmentation.structures, affine)
    for view, picture in render(segmentation, "#0d1015", height=90).items():
        np.testing.assert_array_equal(render(stored, "#0d1015", [view], height=90)[view], picture)


def test_nothing_segmented_is_background() -> None:
    nothing = np.zeros(SHAPE, bool)
    (picture,) = render(_segmentation(nothing, nothing), "#ff0000", [ANTERIOR], height=30).values()
    np.testing.assert_allclose(picture, np.broadcast_to([1.0, 0.0, 0.0], picture.shape))
