"""Masks as bits: the same masks in an eighth of the memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.seg_nrrd import _Layers
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.imaging.segmentation import Segmentation

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=5)
MASKS = SHAPES.flatmap(lambda shape: st.lists(arrays(bool, shape), min_size=1, max_size=19))


@given(MASKS)
def test_what_is_put_in_comes_out(masks: list[np.ndarray]) -> None:
    packed = BitMasks.of({3 * number: mask for number, mask in enumerate(masks)}, masks[0].shape)

    assert list(packed) == [3 * number for number in range(len(masks))]
    assert sum(one.nbytes for one in packed.bytes) == masks[0].size * -(-len(masks) // 8)
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(packed[3 * number], mask)
        assert packed[3 * number].dtype == bool
        assert packed.count(3 * number) == mask.sum()
        np.testing.assert_array_equal(packed.plane(3 * number, 0), mask[:, :, 0])


@given(MASKS, st.data())
def test_changing_one_mask_changes_no_other(masks: list[np.ndarray], data: st.DataObject) -> None:
    packed = BitMasks.of(dict(enumerate(masks)), masks[0].shape)
    changed = data.draw(st.integers(0, len(masks) - 1))
    if data.draw(st.booleans()):
        packed.clear(changed)
        expected = np.zeros_like(masks[0])
    else:
        expected = data.draw(arrays(bool, masks[0].shape))
        packed[changed] = expected
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(packed[number], expected if number == changed else mask)


@given(MASKS)
def test_layers_of_a_file_hold_every_voxel_of_every_mask(masks: list[np.ndarray]) -> None:
    """Also of many masks that overlap each other and the label map."""
    structures = [structure for structure in catalogue() if structure.supported][: len(masks) + 1]
    labels = np.where(masks[0], structures[0].index, 0).astype(np.uint16)
    named = {one.index: mask for one, mask in zip(structures[1:], masks, strict=True)}
    layers = _Layers(labels, BitMasks.of(named, labels.shape), structures, np.dtype(np.uint8))
    for index, mask in named.items():
        image = layers.images[layers.place[index]]
        found = np.stack([image.at(k) for k in range(labels.shape[2])], axis=2)
        np.testing.assert_array_equal(found == index, mask)
    assert layers.place[structures[0].index] == 0


def test_files_are_written_without_a_whole_copy_of_a_mask(tmp_path: Path) -> None:
    shape, structures = (200, 160, 400), catalogue().resolve(("hepatic tumor", "hepatic vessel"))
    masks = BitMasks([one.index for one in structures], shape)
    for one in structures:
        masks.set_part(one.index, (slice(50, 90), slice(50, 90), slice(10, 20)), np.ones((40, 40, 10), bool))
    segmentation = Segmentation(np.zeros(shape, np.uint16), masks, structures, np.eye(4))
    for name in ("out.nii", "out.seg.nrrd"):
        tracemalloc.start()
        assert 26 in masks
        segmentation.write(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8e6, name  # of 12.8 million voxels; pieces wait for their compression


def test_masks_of_another_shape_are_refused() -> None:
    labels = np.zeros((2, 3, 4), np.uint16)
    for masks in ({26: np.zeros((2, 3, 5), bool)}, BitMasks([26], (2, 3, 5))):
        with pytest.raises(InputError, match="of one shape"):
            Segmentation(labels, masks, (catalogue()[26],), np.eye(4))
