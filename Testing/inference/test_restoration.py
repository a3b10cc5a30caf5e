"""Back on the input grid: smooth restoration against brute force; nearest is tested with the whole chain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from geometries import GEOMETRIES
from reference_chain import ct_phantom
from reference_pipeline import SMALL
from scipy import ndimage

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic.feature_map import Block
from VISTA3DCore.inference.automatic.labels import ClassScores, classify_voxels
from VISTA3DCore.inference.automatic.resample_to_input import Grids, NearestRestorer, SmoothRestorer
from VISTA3DCore.inference.preprocessing import preprocess
from VISTA3DCore.progress import Progress

CHANNELS = 6
STRUCTURES = catalogue().resolve(["liver", "hepatic tumor", "spleen", "aorta", "airway", "heart"])


@dataclass
class MatrixBackend:
    """Only the class vectors of a model."""

    matrix: torch.Tensor

    def class_matrix(self, indices):
        return self.matrix[: len(indices)]


@pytest.fixture(scope="module")
def scores() -> ClassScores:
    matrix = np.random.default_rng(0).standard_normal((len(STRUCTURES), CHANNELS)).astype(np.float32)
    return ClassScores(MatrixBackend(torch.from_numpy(matrix)), STRUCTURES)


def case(name: str) -> Grids:
    """Return a model grid of 4 mm that covers a part of the input only, as a foreground crop does."""
    shape, affine = GEOMETRIES[name]
    grid = preprocess(Volume(ct_phantom(shape, affine), affine), replace(SMALL, spacing=(4.0, 4.0, 4.0)))
    grid = grid.crop((slice(3, None), slice(2, -4), slice(0, -3)))
    return Grids(grid.affine, grid.image.shape, affine, shape)


def covered(grids: Grids) -> np.ndarray:
    """Return the input voxels that the model grid covers, by nearest neighbour."""
    everywhere = torch.ones((1, *grids.model_shape))
    return restore(NearestRestorer(one_class(), grids), everywhere, 1, [])[0] > 0


def one_class() -> ClassScores:
    """The score is the first feature."""
    return ClassScores(MatrixBackend(torch.ones(1, 1)), catalogue().resolve("liver"))


def smooth_fields(shape) -> torch.Tensor:
    """Return features that vary over a dozen voxels, as those of a trained network do: labels form regions."""
    noise = np.random.default_rng(1).standard_normal((CHANNELS, *shape))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 4, 4, 4)).astype(np.float32) * 100)


def brute_force(scores: ClassScores, features: torch.Tensor, grids: Grids) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate every feature at every voxel of the input grid, in world coordinates."""
    index = np.stack(np.meshgrid(*map(np.arange, grids.target_shape), indexing="ij"), axis=-1).reshape(-1, 3)
    mapping = np.linalg.solve(grids.model_affine, grids.target_affine)
    points = (index @ mapping[:3, :3].T + mapping[:3, 3]).T
    fields = [
        ndimage.map_coordinates(field.astype(float), points, order=1, mode="nearest") for field in features.numpy()
    ]
    labels, masks = classify_voxels(scores, torch.from_numpy(np.stack(fields).astype(np.float32)))
    return labels.reshape(grids.target_shape), masks.reshape(-1, *grids.target_shape)


def restore(restorer, features: torch.Tensor, axis: int, cuts: list[int]):
    edges = [0, *cuts, features.shape[1 + axis]]
    for start, stop in pairwise(edges):
        restorer.take(Block(axis, start, stop, features.narrow(1 + axis, start, stop - start)))
    return restorer.result(Progress())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_smooth_equals_interpolating_every_score(scores, name):
    grids = case(name)
    features = smooth_fields(grids.model_shape)
    labels, masks = restore(SmoothRestorer(scores, grids), features, 2, [10])
    expected, expected_masks = brute_force(scores, features, grids)
    inside = covered(grids)
    assert np.mean(labels == expected * inside) >= 0.9999
    for mask, expected_mask in zip(masks.values(), expected_masks, strict=True):
        assert np.mean(mask == (expected_mask & inside)) >= 0.9999
    assert len(np.unique(labels)) == 5
    assert list(masks) == [26, 132]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_smooth_does_not_depend_on_how_the_map_is_cut(scores, axis):
    """Streaming and retained blocks, along whichever axis, give the same result."""
    grids = case("oblique")
    features = smooth_fields(grids.model_shape)
    whole, whole_masks = restore(SmoothRestorer(scores, grids), features, axis, [])
    cut, cut_masks = restore(SmoothRestorer(scores, grids), features, axis, [1, 7, 20])
    np.testing.assert_array_equal(whole, cut)
    for index, mask in whole_masks.items():
        np.testing.assert_array_equal(mask, cut_masks[index])


def test_smooth_and_nearest_cover_the_same_part_of_the_input():
    grids = case("LPS")
    smooth, _ = restore(SmoothRestorer(one_class(), grids), torch.ones((1, *grids.model_shape)), 1, [])
    np.testing.assert_array_equal(smooth > 0, covered(grids))
    assert 0 < np.count_nonzero(smooth) < smooth.size


def test_smooth_is_smoother_than_nearest():
    """A ball at 4 mm: on the 2 mm grid its interpolated surface is nearer to the true one."""
    grids = case("RAS")

    def distances(affine, shape):
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        return 31.0 - np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - [3.0, 4.0, -11.0], axis=-1)

    features = torch.from_numpy(distances(grids.model_affine, grids.model_shape).astype(np.float32))[None]
    truth = distances(grids.target_affine, grids.target_shape) > 0
    smooth, _ = restore(SmoothRestorer(one_class(), grids), features, 2, [9])
    nearest, _ = restore(NearestRestorer(one_class(), grids), features, 2, [9])
    assert np.count_nonzero((smooth > 0) != truth) * 3 < np.count_nonzero((nearest > 0) != truth)
