"""Resampling to the model grid and back, against MONAI's Spacing and Invertd."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from VISTA3DCore.errors import Cancelled
from VISTA3DCore.imaging.geometry import apply_affine, to_ras
from VISTA3DCore.imaging.resampling import resample_to_spacing, restoration_coordinates, restore_nearest
from VISTA3DCore.progress import Progress

MODEL = (1.5, 1.5, 1.5)
# 0.75, 1.25 and 3.75 mm put voxels exactly half-way between those of a 1.5 mm grid; 1.4995 counts as 1.5.
SPACINGS = [0.5, 0.7, 0.75, 0.9766, 1.0, 1.25, 1.4995, 1.5, 2.5, 3.0, 3.75, 5.0]


def _affine(random: np.random.Generator, oblique: bool, single: bool, spacings: list[float]) -> np.ndarray:
    turn = Rotation.from_euler("xyz", random.uniform(-30, 30, 3), degrees=True).as_matrix() if oblique else np.eye(3)
    axes = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag(random.choice(spacings, 3))
    affine[:3, 3] = np.round(random.uniform(-200, 200, 3), 1)
    return affine.astype(np.float32).astype(np.float64) if single else affine


def _monai_spacing(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    image = MetaTensor(torch.as_tensor(np.ascontiguousarray(array)[None]), affine=torch.as_tensor(affine))
    result = Spacing(MODEL, mode="bilinear", padding_mode="border", align_corners=False, dtype=np.float64)(image)
    return result[0].numpy(), result.affine.numpy()


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32 header"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_monai_spacing(oblique: bool, single: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    affine = _affine(random, oblique, single, SPACINGS)
    array = random.integers(-1024, 3072, random.integers(5, 40, 3)).astype(np.int16)
    array = np.asarray(array, order="CF"[seed % 2])
    expected, expected_affine = _monai_spacing(array, affine)
    result, result_affine = resample_to_spacing(array, affine, MODEL)
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    np.testing.assert_allclose(result_affine, expected_affine, atol=1e-9)
    assert np.max(np.abs(result - expected)) <= 1e-6 * 4096


@pytest.mark.parametrize("shear", [1e-5, 0.02])
def test_equals_monai_spacing_on_sheared_grids(shear: float) -> None:
    random = np.random.default_rng(5)
    affine = _affine(random, True, False, SPACINGS)
    affine[0, 1] += shear
    array = random.integers(-1024, 3072, (31, 22, 27)).astype(np.int16)
    expected, expected_affine = _monai_spacing(array, affine)
    result, result_affine = resample_to_spacing(array, affine, MODEL)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result_affine, expected_affine, atol=1e-9)
    assert np.max(np.abs(result - expected)) <= 1e-6 * 4096


@pytest.mark.parametrize("shape", [(1, 9, 8), (2, 1, 30), (40, 3, 1)])
def test_equals_monai_spacing_on_thin_volumes(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(1).normal(0, 500, shape).astype(np.float32)
    affine = np.diag([0.7, 2.0, 3.1, 1.0])
    expected, _ = _monai_spacing(array, affine)
    result, _ = resample_to_spacing(array, affine, MODEL)
    assert np.max(np.abs(result - expected)) <= 1e-6 * 4096


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from VISTA3DCore.imaging import resampling

    array = np.random.default_rng(2).integers(-1000, 1000, (33, 21, 45)).astype(np.int16)
    affine = np.diag([0.8, 0.8, 2.2, 1.0])
    whole, _ = resample_to_spacing(array, affine, MODEL)
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", 1)
    sliced, _ = resample_to_spacing(array, affine, MODEL)
    np.testing.assert_array_equal(sliced, whole)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0)])
def test_the_layout_in_memory_does_not_show(spacing: tuple[float, float, float]) -> None:
    array = np.random.default_rng(2).normal(0, 500, (24, 24, 24)).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    expected, _ = resample_to_spacing(array, affine, MODEL)
    layouts = [np.asfortranarray(array), array.transpose(1, 0, 2).copy().transpose(1, 0, 2), array.astype(">i2")]
    for layout in layouts:
        np.testing.assert_array_equal(resample_to_spacing(layout, affine, MODEL)[0], expected)


def test_nothing_to_do_changes_nothing() -> None:
    array = np.random.default_rng(3).normal(size=(6, 7, 8)).astype(np.float32)
    affine = np.diag([1.5, -1.5, 1.4995, 1.0])
    result, result_affine = resample_to_spacing(array, affine, MODEL)
    assert result is array
    np.testing.assert_array_equal(result_affine, affine)


def test_temporary_memory_does_not_grow_with_the_volume() -> None:
    def temporary(slices: int) -> int:
        array = np.zeros((256, 256, slices), np.int16, order="F")
        tracemalloc.start()
        result, _ = resample_to_spacing(array, np.diag([1.0, 1.0, 1.0, 1.0]), MODEL)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    small, large = temporary(100), temporary(300)
    assert large < 1.1 * small
    assert large < 64 * 2**20


@pytest.mark.parametrize("shear", [0.0, 1e-3])
def test_cancelling_stops_between_slabs(shear: float) -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[0, 1] = shear
    seen = []

    def stop(update: object) -> None:
        seen.append(update.fraction)
        progress.cancel()

    progress = Progress(stop)
    with pytest.raises(Cancelled):
        resample_to_spacing(np.zeros((256, 256, 60), np.int16, order="F"), affine, MODEL, progress)
    assert len(seen) == 1
    assert seen[0] < 0.9


def _monai_inverse(shape: tuple[int, ...], affine: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Run the reference's preprocessing and undo it: labels on the model grid, its affine, restored labels."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd, Spacingd

    image = -np.ones(shape, np.float32)
    image[4:-3, 5:-4, 3:-5] = 100.0
    chain = Compose(
        [
            Spacingd("image", pixdim=MODEL, mode="bilinear"),
            CropForegroundd("image", source_key="image", select_fn=lambda x: x > 0, margin=2),
            Orientationd("image", axcodes="RAS"),
        ]
    )
    data = chain({"image": MetaTensor(torch.as_tensor(image[None]), affine=torch.as_tensor(affine))})
    model = data["image"]
    labels = random.integers(1, 1000, model.shape[1:]).astype(np.uint16)
    data["label"] = MetaTensor(
        torch.as_tensor(labels[None].astype(np.float32)), meta=model.meta, applied_operations=model.applied_operations
    )
    restored = Invertd("label", transform=chain, orig_keys="image", nearest_interp=True)(data)["label"]
    return labels, model.affine.numpy(), restored[0].numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32 header"])
def test_restoring_equals_monai_invert_even_half_way_between_voxels(single: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(int(side) for side in random.integers(15, 40, 3))
    affine = _affine(random, False, single, SPACINGS)
    labels, model_affine, expected = _monai_inverse(shape, affine, random)
    result = restore_nearest(labels, model_affine, affine, shape)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32 header"])
def test_restoring_equals_monai_invert_on_oblique_grids(single: bool, seed: int) -> None:
    """Half-way voxels are left out here: the rounding of MONAI's products of full matrices decides about them."""
    random = np.random.default_rng(100 + seed)
    shape = tuple(int(side) for side in random.integers(15, 40, 3))
    affine = _affine(random, True, single, [0.7, 0.7031, 0.8, 0.9766, 1.4995, 1.7, 3.2, 4.9])
    labels, model_affine, expected = _monai_inverse(shape, affine, random)
    result = restore_nearest(labels, model_affine, affine, shape)
    assert np.mean(result == expected) >= 0.9999


def test_restoration_coordinates_point_at_the_same_place() -> None:
    random = np.random.default_rng(7)
    affine = _affine(random, True, False, [0.8, 2.0, 3.1])
    shape = (31, 28, 19)
    model, model_affine = resample_to_spacing(np.zeros(shape, np.float32), affine, MODEL)
    cropped = model_affine.copy()
    cropped[:3, 3] = apply_affine(model_affine, (2, 3, 4))
    view, view_affine = to_ras(model[2:-1, 3:, 4:-2], cropped)
    lines, offset = restoration_coordinates(view_affine, view.shape, affine, shape)
    assert offset == (2, 3, 4)
    voxel = (11, 7, 9)
    there = [line[index] for line, index in zip(lines, voxel, strict=True)]
    np.testing.assert_allclose(apply_affine(model_affine, there), apply_affine(affine, voxel), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.8, 4.0)] * 3),
    flips=st.tuples(*[st.booleans()] * 3),
    radii=st.tuples(*[st.floats(12.0, 25.0)] * 3),
)
def test_an_ellipsoid_comes_back_in_place(
    angles: tuple[float, ...], spacing: tuple[float, ...], flips: tuple[bool, ...], radii: tuple[float, ...]
) -> None:
    """An ellipsoid known in RAS mm, drawn on any grid, resampled and restored: wrong by at most one voxel."""
    affine = np.eye(4)
    signs = np.where(flips, -1.0, 1.0)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(np.array(spacing) * signs)
    shape = tuple(int(70 / step) for step in spacing)
    centre = np.array([12.0, -34.0, 56.0])
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) / 2.0 - 0.3)
    drawn = _ellipsoid(affine, shape, centre, radii)

    image, image_affine = resample_to_spacing(drawn * np.float32(100), affine, MODEL)
    model, model_affine = to_ras(image > 50, image_affine)
    in_space = _ellipsoid(model_affine, model.shape, centre, radii)
    wrong = model != in_space
    assert _distance_to_surface(in_space, MODEL)[wrong].max(initial=0) <= np.linalg.norm(np.maximum(spacing, 1.5))

    restored = restore_nearest(model.astype(np.uint16), model_affine, affine, shape)
    wrong = restored.astype(bool) != drawn
    assert _distance_to_surface(drawn, spacing)[wrong].max(initial=0) <= np.linalg.norm(np.maximum(spacing, 1.5))
    before, after = (apply_affine(affine, np.argwhere(mask).mean(axis=0)) for mask in (drawn, restored))
    assert np.linalg.norm(before - after) < 0.5 * max(*spacing, 1.5)


def _ellipsoid(affine: np.ndarray, shape: tuple[int, ...], centre: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.sum(((apply_affine(affine, indices) - centre) / radii) ** 2, axis=-1) <= 1.0


def _distance_to_surface(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance in mm of each voxel to the nearest voxel on the other side of the surface."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner, outer = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (mask, ~mask))
    return np.where(mask, inner, outer)
