"""Specks go, what is real stays: size decides, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from reference_chain import ct_phantom
from reference_pipeline import TINY, seeded_network
from scipy import ndimage

from VISTA3DCore import Progress, Segmenter, Volume
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.imaging.components import bounding_box, bounding_boxes
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.inference.automatic.cleanup import Cleanup, find_specks, remove_specks
from VISTA3DCore.models.registry import REGISTRY

CT = catalogue()
LIVER, SPLEEN, TUMOR, VESSEL, CYST = (
    CT[name] for name in ("liver", "spleen", "hepatic tumor", "hepatic vessel", "left kidney cyst")
)
NEIGHBORS = np.ones((3, 3, 3))
MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=9))
CLEANUPS = st.builds(Cleanup, st.floats(0, 1), st.floats(0, 0.02))
VOXEL_ML = 0.001  # 1 mm


def cleaned(mask: np.ndarray, cleanup: Cleanup, voxel_ml: float = VOXEL_ML) -> np.ndarray:
    specks = find_specks(mask, voxel_ml, cleanup)
    return mask if specks is None else mask & ~specks


@settings(max_examples=200)
@given(MASKS, CLEANUPS)
def test_what_stays_is_what_the_words_say(mask: np.ndarray, cleanup: Cleanup) -> None:
    pieces, count = ndimage.label(mask, NEIGHBORS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(sizes >= cleanup.share * sizes.max(initial=0)) + 1
    expected = np.isin(pieces, large)
    if expected.sum() * VOXEL_ML < cleanup.minimum_ml:
        expected[:] = False

    np.testing.assert_array_equal(cleaned(mask, cleanup), expected)


@given(MASKS, CLEANUPS)
def test_a_second_cleanup_changes_nothing(mask: np.ndarray, cleanup: Cleanup) -> None:
    once = cleaned(mask, cleanup)

    np.testing.assert_array_equal(cleaned(once, cleanup), once)


@given(MASKS, CLEANUPS, st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_sides_and_axes_do_not_matter(
    mask: np.ndarray, cleanup: Cleanup, order: list[int], steps: tuple[int, int, int]
) -> None:
    def turned(array: np.ndarray) -> np.ndarray:
        return array[tuple(slice(None, None, step) for step in steps)].transpose(order)

    np.testing.assert_array_equal(cleaned(turned(mask), cleanup), turned(cleaned(mask, cleanup)))
    contiguous = np.ascontiguousarray(turned(mask))
    np.testing.assert_array_equal(cleaned(contiguous, cleanup), turned(cleaned(mask, cleanup)))


@given(arrays(np.uint16, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(0, 3)), CLEANUPS)
def test_structures_of_a_label_map_are_judged_alone(labels: np.ndarray, cleanup: Cleanup) -> None:
    structures, found = (LIVER, SPLEEN), labels.copy()
    remove_specks(found, {}, structures, np.eye(4), cleanup)

    for structure in structures:
        expected = cleaned(labels == structure.index, cleanup)
        np.testing.assert_array_equal(found == structure.index, expected)
    untouched = ~np.isin(labels, [structure.index for structure in structures])
    np.testing.assert_array_equal(found[untouched], labels[untouched])
    assert ((found == labels) | (found == 0)).all()  # what is removed becomes background


@given(arrays(np.uint16, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(0, 4)))
def test_boxes_of_labels_are_those_of_their_masks(labels: np.ndarray) -> None:
    boxes = bounding_boxes(labels)

    assert set(boxes) == set(np.unique(labels)) - {0}
    assert all(boxes[label] == bounding_box(labels == label) for label in boxes)


def test_millimeters_count_not_voxels() -> None:
    """The same piece of 0.125 ml, in one voxel of 5 mm or in 125 of 1 mm."""
    coarse, fine = np.zeros((3, 3, 3), np.uint16), np.zeros((15, 15, 15), np.uint16, order="F")
    coarse[1, 1, 1] = fine[5:10, 5:10, 5:10] = LIVER.index
    for minimum_ml, stays in ((0.12, True), (0.13, False)):
        for labels, spacing in ((coarse, 5.0), (fine, 1.0)):
            found = labels.copy(order="K")
            remove_specks(found, {}, [LIVER], np.diag([-spacing, spacing, spacing, 1]), Cleanup(0.0, minimum_ml))
            assert found.any() == stays


def test_a_second_half_stays_a_speck_goes() -> None:
    labels = np.zeros((60, 20, 20), np.uint16)
    labels[2:20, 2:18, 2:18] = labels[40:58, 2:18, 2:18] = LIVER.index
    labels[30, 10, 10] = LIVER.index
    remove_specks(labels, {}, [LIVER], np.eye(4), Cleanup())

    assert labels[10, 10, 10] == labels[50, 10, 10] == LIVER.index
    assert labels[30, 10, 10] == 0


def test_lesions_stay_as_they_are_and_trees_keep_their_pieces() -> None:
    labels, expected = np.zeros((20, 20, 20), np.uint16), {TUMOR.index: np.zeros((20, 20, 20), bool)}
    expected[VESSEL.index] = np.zeros((20, 20, 20), bool)
    labels[3, 3, 3] = CYST.index
    expected[TUMOR.index][5, 5, 5] = True
    expected[VESSEL.index][1:19, 5:8, 5:8] = expected[VESSEL.index][10, 15, 15] = True
    found, masks = labels.copy(), BitMasks.of(expected, labels.shape)
    structures = [TUMOR, VESSEL, CYST]
    remove_specks(found, masks, structures, np.eye(4), Cleanup(0.5, 0.1))

    np.testing.assert_array_equal(found, labels)
    for index, mask in expected.items():
        np.testing.assert_array_equal(masks[index], mask)
    remove_specks(found, masks, structures, np.eye(4), Cleanup(0.5, 1.0))
    assert not masks[VESSEL.index].any()
    assert masks[TUMOR.index].any()


def test_only_the_mask_of_a_structure_with_its_own_changes() -> None:
    """A mask of 27 voxels over a liver that stays."""
    labels, mask = np.full((20, 20, 20), LIVER.index, np.uint16), np.zeros((20, 20, 20), bool)
    mask[5:8, 5:8, 5:8] = True
    masks = BitMasks.of({VESSEL.index: mask}, mask.shape)
    remove_specks(labels, masks, [LIVER, VESSEL], np.eye(4), Cleanup())

    assert not masks[VESSEL.index].any()
    assert (labels == LIVER.index).all()


def test_cancelling_is_noticed() -> None:
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        remove_specks(np.ones((3, 3, 3), np.uint16), {}, [LIVER], np.eye(4), Cleanup(), progress)


@pytest.mark.parametrize("values", [(-0.1, 1), (1.1, 1), (float("nan"), 1), (0.1, -1), (0.1, float("inf"))])
def test_values_that_make_no_sense_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="choose"):
        Cleanup(*values)


# In a session

AFFINE = np.array([[2.0, 0, 0, -80], [0, 2.0, 0, -60], [0, 0, 3.0, -90], [0, 0, 0, 1]])
VOLUME = Volume(ct_phantom((80, 62, 60), AFFINE), AFFINE)


def session_of(name: str):
    config = replace(TINY, spacing=(10.0, 10.0, 10.0), name=name, classes=(1, 3, 6, 26))
    return Segmenter.from_network(seeded_network(config), config).open(VOLUME)


def test_the_small_model_cleans_up_by_default_and_no_other() -> None:
    assert [name for name, entry in REGISTRY.items() if entry.cleanup] == ["mini"]
    small, other = session_of("mini"), session_of("test")
    assert small.segment("everything").provenance["cleanup"] == str(Cleanup())
    assert small.segment("everything", cleanup=False).provenance["cleanup"] == "no"
    assert other.segment("everything").provenance["cleanup"] == "no"
    assert other.segment("everything", cleanup=True).provenance["cleanup"] == "share 0.02, minimum 0.1 ml"
    assert other.segment("liver", cleanup=Cleanup(0.5, 3)).provenance["cleanup"] == "share 0.5, minimum 3 ml"
    with pytest.raises(InputError, match="choose True, False, None or a Cleanup"):
        other.segment("liver", cleanup="yes")


@pytest.mark.parametrize("restoration", ["nearest", "smooth"])
def test_a_result_is_the_ordinary_one_without_its_specks(restoration: str) -> None:
    session, structures = session_of("test"), ("liver", "spleen", "aorta", "hepatic tumor")
    plain = session.segment(structures, restoration=restoration)
    found = session.segment(structures, restoration=restoration, cleanup=Cleanup(0.2, 0.5))

    for name in structures[:3]:
        expected = cleaned(plain[name], Cleanup(0.2, 0.5), 0.012)
        np.testing.assert_array_equal(found[name], expected)
    np.testing.assert_array_equal(found["hepatic tumor"], plain["hepatic tumor"])
    assert (found.labels > 0).sum() < (plain.labels > 0).sum()  # labels of random weights are noise


def test_partial_results_are_not_cleaned_and_say_so() -> None:
    parts = []
    found = session_of("mini").segment("liver", on_partial=lambda part: parts.append(part.segmentation()))

    assert {part.provenance["cleanup"] for part in parts} == {"no"}
    assert found.provenance["cleanup"] == str(Cleanup())
