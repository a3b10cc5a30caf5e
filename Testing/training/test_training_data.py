"""Labelled CTs become patches: classes, unions, padding, augmentation, prompts."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.training.augmentation import RandAirBesided, RandContrastPhased, RandTissueContrastd
from VISTA3DCore.training.cases import case_of
from VISTA3DCore.training.click_sampling import first_clicks, next_clicks
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, load_case, shown_classes, trained_classes
from VISTA3DCore.training.prompts import stack_clicks


def test_labels_become_classes_and_unions_on_the_ras_grid(tiny_model, labelled_case):
    loaded = load_case(labelled_case, tiny_model, 16)

    liver, lung = loaded.label[0] == 1, loaded.label[0] == FIRST_UNION
    assert liver.sum() == 8 * 10 * 14
    assert lung.sum() == 8 * 15 * 16
    assert loaded.members(1) == (1,)
    assert loaded.members(FIRST_UNION) == (28, 29)
    # The file is stored right to left; in RAS order the liver, at its first columns, comes last.
    assert np.argwhere(liver)[:, 0].mean() > np.argwhere(lung)[:, 0].mean()
    assert loaded.image[0][liver].mean() > 0.5 > loaded.image[0][lung].mean()


def test_padding_repeats_the_image_and_is_unknown_in_the_label(tiny_model, labelled_case):
    loaded = load_case(labelled_case, tiny_model, 32)

    assert loaded.image.shape == (1, 32, 32, 32)
    assert (loaded.label == IGNORE).sum() == 32**3 - 24 * 26 * 28
    assert loaded.image.min() >= 0
    assert loaded.image[0, 0, 0, 0] == pytest.approx(loaded.image[0, 4, 3, 2], abs=1e-6)


def test_image_and_label_of_different_grids_are_refused(tiny_model, labelled_case):
    short = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.diag([3.0, 3, 3, 1]))
    nibabel.save(short, labelled_case.label)

    with pytest.raises(InputError, match="different grids"):
        load_case(labelled_case, tiny_model, 4)


def test_only_complete_cases_decide_which_classes_are_trained(tiny_model, labelled_case):
    complete = load_case(labelled_case, tiny_model, 16)
    partial = load_case(replace(labelled_case, complete=False, classes={7: (29,)}), tiny_model, 16)

    assert trained_classes([complete, partial], minimum_voxels=20) == (1,)


def test_a_structure_that_is_named_but_not_shown_is_not_learned(tiny_model, labelled_case):
    case = load_case(replace(labelled_case, classes={**labelled_case.classes, 9: (118,)}), tiny_model, 16)

    assert shown_classes([case]) == {1, 28, 29}


@given(seed=st.integers(0, 2**16), side=st.integers(1, 9))
def test_first_clicks_are_true(seed, side):
    target = _cube(side)

    points, positive = first_clicks(target, np.random.default_rng(seed))

    assert positive.any()
    assert np.array_equal(target[tuple(points.T)], positive)


@given(seed=st.integers(0, 2**16), side=st.integers(1, 9), shift=st.integers(0, 4))
def test_next_clicks_lie_on_errors_and_the_earlier_ones_stay(seed, side, shift):
    rng, target = np.random.default_rng(seed), _cube(side)
    answer = np.roll(target, shift, axis=0)
    first = first_clicks(target, rng)

    points, positive = next_clicks(first, target, answer, rng)

    old = len(first[1])
    assert np.array_equal(points[:old], first[0])
    assert np.array_equal(positive[:old], first[1])
    assert positive[old:].tolist() == ([True, False] if shift else [])
    assert all((target != answer)[tuple(point)] for point in points[old:])
    assert np.array_equal(target[tuple(points[old:].T)], positive[old:])


def _cube(side: int) -> np.ndarray:
    target = np.zeros((16, 16, 16), bool)
    target[4 : 4 + side, 5 : 5 + side, 3 : 3 + side] = True
    return target


def test_clicks_of_several_objects_are_padded_and_special_ones_marked():
    first = (np.array([[1, 2, 3]]), np.array([True]))
    second = (np.array([[4, 5, 6], [7, 8, 9]]), np.array([True, False]))

    coordinates, labels = stack_clicks([first, second], np.array([False, True]))

    assert labels.tolist() == [[1, -1], [3, 2]]
    assert coordinates[1, 1].tolist() == [7, 8, 9]


def test_a_contrast_phase_changes_the_organ_and_nothing_far_from_it(tiny_model):
    image = torch.full((1, 16, 16, 16), 0.5)
    label = torch.zeros_like(image, dtype=torch.uint8)
    label[:, 4:8, 4:8, 4:8] = 6
    transform = RandContrastPhased("image", "label", tiny_model, prob=1.0)
    transform.set_random_state(1)

    changed = transform({"image": image, "label": label})["image"]

    assert (changed[label == 6] - 0.5).abs().mean() > 0.01
    assert torch.equal(changed[:, 10:], image[:, 10:])


@given(seed=st.integers(0, 2**16), air=st.booleans())
def test_tissue_contrast_moves_each_structure_a_little_and_air_not_at_all(seed, air):
    image, label = torch.full((1, 16, 16, 16), 0.5), torch.zeros((1, 16, 16, 16), dtype=torch.uint8)
    label[:, 2:6, 4:12, 4:12] = 1
    image[:, 10:] = 0.0 if air else 0.5
    transform = RandTissueContrastd("image", "label", prob=1.0)
    transform.set_random_state(seed)

    changed = transform({"image": image, "label": label})["image"]

    # Uniform tissue has no texture to amplify: what is left is the shift, whether or not there is air in the patch.
    assert (changed - image)[:, :9].abs().max() <= 0.02 + 1e-6
    assert not air or torch.equal(changed[:, 11:], image[:, 11:])


@given(seed=st.integers(0, 2**16))
def test_air_beside_the_body_is_background_and_reaches_from_head_to_foot(seed):
    image, label = torch.full((1, 12, 12, 12), 0.5), torch.full((1, 12, 12, 12), 3, dtype=torch.uint8)
    transform = RandAirBesided(("image", "label"), prob=1.0)
    transform.set_random_state(seed)

    result = transform({"image": image, "label": label})

    air = result["image"] == 0
    assert torch.equal(air, result["label"] == 0)
    assert (air.all(-1) == air.any(-1)).all()
    assert air.float().mean() <= 0.75
    assert (image == 0.5).all()


def test_the_index_of_real_cts_gives_training_cases_only(ct_data):
    cases = [case_of(item) for item in read_data_list(ct_data).training if any(item.classes.values())]

    assert {"totalseg_s0003", "totalseg_s0009"} <= {case.name for case in cases if case.complete}
    assert "ts_example_ct" not in {case.name for case in cases}
    assert all(case.image.is_file() and case.label.is_file() for case in cases)
