"""Boundary recall, its level by chance, and the Dice that unions of supervoxels can reach."""

from __future__ import annotations

import numpy as np
import pytest

from VISTA3DCore.supervoxels.quality import measure_quality


def _halves(shift: int) -> np.ndarray:
    labels = np.ones((20, 10, 10), np.int32)
    labels[10 + shift :] = 2
    return labels


def test_the_same_borders_are_all_recalled():
    quality = measure_quality(_halves(0), _halves(0), (1.0, 1.0, 1.0), 0.0)

    assert quality.boundary_recall == 1.0
    assert quality.achievable_dice == 1.0
    assert quality.chance == pytest.approx(2 / 20)
    assert quality.count == 2


@pytest.mark.parametrize(("tolerance", "recall"), [(0.0, 0.0), (2.9, 0.0), (3.0, 0.5), (6.0, 1.0)])
def test_the_tolerance_is_in_millimetres(tolerance, recall):
    """Two voxels apart, 3 mm long: of two border planes one is 3 mm and the other 6 mm from the nearest one."""
    quality = measure_quality(_halves(2), _halves(0), (3.0, 1.0, 1.0), tolerance)

    assert quality.boundary_recall == recall


def test_the_best_union_may_contain_halves():
    supervoxels = np.repeat([1, 2, 3, 4], 10).reshape(40, 1, 1)
    reference = np.zeros((40, 1, 1), np.int32)
    reference[:16] = 7  # all of 1 and 60 % of 2

    assert measure_quality(supervoxels, reference, (1, 1, 1), 0.0).achievable_dice == pytest.approx(2 * 16 / (20 + 16))
