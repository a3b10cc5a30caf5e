"""The same anatomy, stored in other orders and directions: only the grid of the reference depends on them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from reference_chain import ct_phantom
from reference_pipeline import TINY, seeded_network

from VISTA3DCore import Segmenter, Volume
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import to_ras

# With these spacings no voxel lies in the middle between two of the model grid.
SHAPE, AFFINE = (41, 37, 33), np.diag([1.87, 2.31, 2.63, 1.0])
CONFIG = replace(TINY, spacing=(4.0, 4.0, 4.0), name="test", classes=(1, 3, 6, 14, 26, 132))
NAMES = ("liver", "spleen", "hepatic tumor")
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_network(seeded_network(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume(ct_phantom(SHAPE, AFFINE), AFFINE)


def stored(volume: Volume, order: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """Return the same voxels in the same places, in another order and direction of the axes."""
    array, affine = volume.array.transpose(order), volume.affine[:, [*order, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(array), affine)


def labels_in_ras(segmenter: Segmenter, volume: Volume, grid: str) -> np.ndarray:
    """Return the labels of the structures, in one order of the axes for all."""
    with segmenter.open(volume, grid=grid) as session:
        found = session.segment(NAMES)
    masks = [to_ras(np.asarray(found[name]), found.affine)[0] for name in NAMES]
    return np.stack(masks)


def test_the_patients_grid_gives_the_same_labels_however_the_image_is_stored(segmenter, volume):
    expected = labels_in_ras(segmenter, volume, "patient")
    assert expected.any()
    for order, signs in ORIENTATIONS[::5]:
        found = labels_in_ras(segmenter, stored(volume, order, signs), "patient")
        np.testing.assert_array_equal(found, expected, str((order, signs)))


def test_the_grid_on_which_the_network_works_is_the_same_in_all_48(segmenter, volume):
    image, affine = segmenter.open(volume, grid="patient").model_grid
    for order, signs in ORIENTATIONS:
        found, place = segmenter.open(stored(volume, order, signs), grid="patient").model_grid
        np.testing.assert_array_equal(found, image)
        np.testing.assert_allclose(place, affine, atol=1e-9)


def test_the_reference_depends_on_the_direction_as_the_documentation_says(segmenter, volume):
    flipped = stored(volume, (0, 1, 2), (-1, 1, 1))
    one, other = (labels_in_ras(segmenter, each, "stored") for each in (volume, flipped))
    assert np.count_nonzero(one != other) > 1e-2 * one.size


def test_an_image_in_ras_is_the_same_both_ways_and_the_result_says_which(segmenter, volume):
    np.testing.assert_array_equal(*(labels_in_ras(segmenter, volume, grid) for grid in ("stored", "patient")))
    provenances = [segmenter.open(volume, grid=grid).segment(NAMES).provenance for grid in ("stored", "patient")]
    assert [one.get("grid") for one in provenances] == [None, "patient"]


def test_clicks_follow_the_patient_too(segmenter, volume):
    """With and without a mask to begin from; the box of the answer lies in the image as it is stored."""
    places = [tuple((volume.affine @ [*voxel, 1])[:3]) for voxel in ((20, 18, 16), (9, 25, 11), (30, 9, 21))]
    clicks = [Click(places[0]), Click(places[1]), Click(places[2], positive=False)]
    block = np.zeros(SHAPE, dtype=bool)
    block[5:35, 6:30, 8:25] = True
    results = []
    for image in (volume, stored(volume, (2, 0, 1), (-1, 1, -1))):
        turned = block if image is volume else np.ascontiguousarray(block.transpose(2, 0, 1)[::-1, :, ::-1])
        for base in (None, turned):
            with segmenter.open(image, grid="patient", click_dtype="float32") as session:
                found = session.click("spleen", clicks, base)
                suggested = session.suggest("spleen", clicks, base)
            before = np.zeros(image.shape, bool) if base is None else base
            changed = np.zeros(image.shape, bool)
            changed[found.box] = True
            np.testing.assert_array_equal(found.mask[~changed], before[~changed])
            np.testing.assert_array_equal(found.mask[found.box], found.patch)
            results.append((to_ras(found.mask, image.affine)[0], found.touched, suggested))
    assert any(results[0][1])
    for one, other in zip(results[:2], results[2:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


def test_an_unknown_grid_names_the_known_ones(segmenter, volume):
    with pytest.raises(InputError, match="stored, patient"):
        segmenter.open(volume, grid="mine")
