"""Labelmaps as arrays, on lattices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from mrml_scene import AFFINES, OTHER_GRID, Application, rotation

from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DSegmentLib.mrml.boxes import NO_BOX
from VISTA3DSegmentLib.mrml.labelmaps import (
    array_of,
    box_of_image,
    lattice_of,
    move_to,
    moved,
    oriented_image,
    reference_lattice,
    resampled,
    shift_between,
)

label_arrays = npst.arrays(
    st.sampled_from([np.bool_, np.uint8, np.uint16]), npst.array_shapes(min_dims=3, max_dims=3, max_side=6)
)
starts = st.tuples(*3 * [st.integers(-20, 20)])
lattices = st.sampled_from(list(AFFINES.values()))


@given(label_arrays, lattices, starts)
def test_an_array_comes_back_from_a_labelmap(array: np.ndarray, lattice: np.ndarray, start: tuple) -> None:
    image = oriented_image(array, lattice, start)
    found, first = array_of(image)
    assert np.array_equal(found, array)
    assert first == start
    assert np.allclose(lattice_of(image), lattice, atol=1e-12)
    assert box_of_image(image) == tuple((one, one + size) for one, size in zip(start, array.shape, strict=True))


@given(lattices, starts)
def test_slicer_finds_voxels_where_the_lattice_says(lattice: np.ndarray, start: tuple) -> None:
    image = oriented_image(np.ones((1, 1, 1), bool), lattice, start)
    bounds = [0.0] * 6
    image.ComputeBounds()
    image.GetBounds(bounds)
    assert np.allclose(np.reshape(bounds, (3, 2)).mean(axis=1), apply_affine(lattice, start))


def test_the_memory_layout_of_an_array_does_not_matter() -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for one in (array, np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2], array[::-1][::-1]):
        assert np.array_equal(array_of(oriented_image(one, np.eye(4)))[0], array)


def test_a_labelmap_is_a_copy_and_its_array_a_view() -> None:
    array = np.ones((2, 3, 4), np.uint8)
    image = oriented_image(array, np.eye(4))
    array[...] = 2
    assert array_of(image)[0].max() == 1
    array_of(image)[0][1, 2, 3] = 7
    assert image.GetScalarComponentAsDouble(1, 2, 3, 0) == 7


def test_an_empty_labelmap_has_no_voxels() -> None:
    image = slicer.vtkOrientedImageData()
    assert array_of(image)[0].size == 0
    assert box_of_image(image) == NO_BOX
    assert resampled(image, np.eye(4)).IsEmpty()


# Lattices


@given(lattices, starts, starts)
def test_a_lattice_moved_by_voxels_is_found_again(lattice: np.ndarray, shift: tuple, first: tuple) -> None:
    other = lattice.copy()
    other[:3, 3] = apply_affine(lattice, -np.array(shift))
    box = tuple((one, one + 300) for one in first)
    assert shift_between(lattice, other, box) == shift
    assert moved(box, shift)[0] == (first[0] + shift[0], first[0] + shift[0] + 300)


@given(lattices, st.integers(0, 2), st.floats(0.02, 0.98))
def test_lattices_whose_voxels_do_not_coincide_have_no_shift(lattice: np.ndarray, axis: int, part: float) -> None:
    other, turned = lattice.copy(), lattice.copy()
    other[:3, 3] += part * lattice[:3, axis]
    turned[:3, :3] = rotation(0.05, 0, 0) @ turned[:3, :3]
    box = ((0, 100), (0, 100), (0, 100))
    assert shift_between(lattice, other, box) is None
    assert shift_between(lattice, turned, box) is None
    assert shift_between(lattice, lattice * [1.0001, 1, 1, 1], ((0, 512), (0, 9), (0, 9))) is None


def test_rounding_of_headers_is_no_shift(ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    lattice = AFFINES["oblique"]
    rounded = np.array([[float(f"{value:.6g}") for value in row] for row in lattice])
    assert shift_between(lattice, rounded, ((0, 512), (0, 512), (0, 700))) == (0, 0, 0)


def test_a_labelmap_moves_in_place() -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    image = oriented_image(array, np.eye(4), (5, 6, 7))
    move_to(image, AFFINES["oblique"], (-5, 1, 2))
    assert box_of_image(image) == ((0, 2), (7, 10), (9, 13))
    assert np.array_equal(array_of(image)[0], array)
    assert np.allclose(lattice_of(image), AFFINES["oblique"])


def test_the_reference_geometry_of_a_segmentation(app: Application, any_ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert reference_lattice(node) is None
    node.SetReferenceImageGeometryParameterFromVolumeNode(any_ct)
    matrix = lattice_of(oriented_image(np.ones((1, 1, 1), bool), np.eye(4)))
    assert matrix.shape == (4, 4)
    found, box = reference_lattice(node), ((0, 512), (0, 512), (0, 700))
    expected = next(one for one in AFFINES.values() if np.allclose(one, found, atol=1e-3))
    assert shift_between(expected, found, box) == (0, 0, 0)


# Resampling


@pytest.mark.parametrize("lattice", AFFINES.values(), ids=AFFINES)
def test_resampling_takes_the_nearest_voxel(lattice: np.ndarray) -> None:
    array = np.random.default_rng(1).integers(0, 5, (20, 18, 16)).astype(np.uint8)
    source = oriented_image(array, OTHER_GRID, (10, 9, 8))
    found, start = array_of(resampled(source, lattice))
    indices = np.moveaxis(np.indices(found.shape), 0, -1) + start
    places = apply_affine(np.linalg.inv(OTHER_GRID) @ lattice, indices) - (10, 9, 8)
    nearest = np.rint(places).astype(int)
    inside = np.all((nearest >= 0) & (nearest < array.shape), axis=-1)
    clear = np.all(np.abs(places - np.floor(places) - 0.5) > 1e-3, axis=-1)
    expected = np.where(inside, array[tuple(np.moveaxis(np.where(inside[..., None], nearest, 0), -1, 0))], 0)
    assert np.array_equal(found[clear], expected[clear])
    assert inside.any()


def test_only_the_part_that_is_wanted_is_resampled() -> None:
    source = oriented_image(np.ones((20, 20, 20), bool), OTHER_GRID)
    lattice = AFFINES["oblique"]
    whole, start = array_of(resampled(source, lattice))
    wanted = tuple((one + 3, one + 9) for one in start)
    part = resampled(source, lattice, wanted)
    assert box_of_image(part) == wanted
    assert np.array_equal(array_of(part)[0], whole[3:9, 3:9, 3:9])
    assert resampled(source, lattice, ((900, 910), (0, 5), (0, 5))).IsEmpty()


def test_nothing_is_lost_at_the_sides() -> None:
    """On a finer lattice, the outermost voxels are there to their far sides."""
    fine = np.diag([0.25, 0.25, 0.25, 1.0])
    found = resampled(oriented_image(np.ones((2, 2, 2), bool), np.eye(4)), fine)
    array, start = array_of(found)
    hits = np.argwhere(array) + start
    for axis, corner in itertools.product(range(3), (min, max)):
        side = corner(hits[:, axis]) * 0.25
        assert abs(side - (-0.5 if corner is min else 1.5)) <= 0.25
