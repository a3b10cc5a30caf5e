"""Boxes, fingerprints and the masks from before clicks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DSegmentLib.logic.bases import Bases, Grid
from VISTA3DSegmentLib.mrml.boxes import box_of, intersection, shape_of, slices, union
from VISTA3DSegmentLib.mrml.fingerprints import Fingerprint

masks = npst.arrays(bool, npst.array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.booleans())
GRID = Grid((9, 8, 7), np.eye(4))


@given(masks)
def test_the_box_of_a_mask_is_the_smallest(mask: np.ndarray) -> None:
    box = box_of(mask)
    if box is None:
        assert not mask.any()
        return
    inner = mask[slices(box)]
    assert inner.sum() == mask.sum()
    assert inner.shape == shape_of(box)
    for axis in range(3):
        sides = np.moveaxis(inner, axis, 0)
        assert sides[0].any()
        assert sides[-1].any()


def test_boxes_combine() -> None:
    one, other = ((0, 4), (2, 6), (1, 3)), ((2, 9), (0, 3), (2, 4))
    assert union(one, None, other) == ((0, 9), (0, 6), (1, 4))
    assert union(None) is None
    assert intersection(one, other) == ((2, 4), (2, 3), (2, 3))
    assert intersection(one, ((4, 5), (2, 6), (1, 3))) is None
    assert box_of(np.ones((1, 2, 1), bool), (5, 6, 7)) == ((5, 6), (6, 8), (7, 8))


@given(masks, st.data())
def test_a_fingerprint_carried_on_from_a_box_is_that_of_the_whole(mask: np.ndarray, data: st.DataObject) -> None:
    changed = data.draw(npst.arrays(bool, mask.shape, elements=st.booleans()))
    box = box_of(changed != mask)
    carried = Fingerprint.of(mask)
    if box is not None:
        carried = carried.after(mask[slices(box)], changed[slices(box)], box)
    assert carried == Fingerprint.of(np.asfortranarray(changed))
    assert (carried == Fingerprint.of(mask)) == np.array_equal(mask, changed)


def test_fingerprints_tell_masks_of_the_same_size_apart() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[5:9, 5:9, 5:9] = True
    assert Fingerprint.of(mask) != Fingerprint.of(np.roll(mask, 1, 0))
    assert len({str(Fingerprint.of(np.roll(mask, shift, axis))) for shift in range(20) for axis in range(3)}) == 58


@given(npst.arrays(bool, GRID.shape, elements=st.booleans()), st.data())
def test_a_kept_mask_comes_back_whole_and_in_parts(mask: np.ndarray, data: st.DataObject) -> None:
    bases = Bases()
    bases.keep("one", mask, GRID)
    box = tuple(tuple(sorted(data.draw(st.tuples(*2 * [st.integers(0, size)])))) for size in GRID.shape)
    assert np.array_equal(bases.patch("one", box), mask[slices(box)])
    assert np.array_equal(bases.whole("one"), mask)
    assert bases.whole("one").flags.f_contiguous  # written as it is


def test_one_file_at_a_time_is_there_and_goes() -> None:
    bases, mask = Bases(), np.ones(GRID.shape, bool)
    with SharedDirectory() as shared, SharedDirectory() as other:
        for name in ("one", "two"):
            bases.keep(name, mask, GRID)
            assert bases.file_of(name, shared) is None
            bases.keep_file(name, shared.put(mask), shared)
            assert [path.name for path in shared.path.iterdir()] == [bases.file_of(name, shared).file]
        assert bases.file_of("one", shared) is None
        assert bases.file_of("two", other) is None  # the engine got another folder
        bases.release()
        assert not list(shared.path.iterdir())
        assert bases.holds("two", GRID)
        bases.keep_file("two", shared.put(mask), shared)
        bases.clear()
        assert not list(shared.path.iterdir())
        assert not bases.holds("two", GRID)


def test_a_mask_of_another_grid_is_not_the_base() -> None:
    bases, mask = Bases(), np.ones(GRID.shape, bool)
    bases.keep("one", mask, GRID)
    assert not bases.holds("one", Grid(GRID.shape, np.diag([2.0, 1.0, 1.0, 1.0])))
    assert not bases.holds("one", Grid((9, 8, 6), np.eye(4)))
    assert bases.holds("one", Grid(GRID.shape, np.eye(4) + 1e-9))


def test_the_oldest_masks_go_when_there_are_many() -> None:
    bases = Bases()
    for number in range(100):
        bases.keep(str(number), np.ones(GRID.shape, bool), GRID)
    assert bases.holds("99", GRID)
    assert not bases.holds("0", GRID)
