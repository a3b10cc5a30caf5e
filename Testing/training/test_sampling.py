"""Which case comes next, where it is cut, how it is varied, and what the cache keeps."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from VISTA3DCore.errors import InputError
from VISTA3DCore.training.augmentation import PAPER, patch_transform, seed_transform
from VISTA3DCore.training.caching import CaseStore, cache_key
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, coded, load_case, reconciled, unions_of
from VISTA3DCore.training.sampling import BY_DATASET, class_voxels, crop_map, sampling_weights


@pytest.fixture
def rich_case(labelled_case):
    """The tiny case with predictions of a spleen, a wrong liver and a bone, and with supervoxels."""
    label = nibabel.load(labelled_case.label)
    values = np.asarray(label.dataobj)
    pseudo = np.where(values == 7, 1, 0).astype(np.uint8)
    pseudo[14:22, 20:24, 8:24] = 3
    parts = (1 + np.indices(values.shape)[2] // 7).astype(np.int16)
    folder = labelled_case.label.parent
    nibabel.save(nibabel.Nifti1Image(pseudo, label.affine), folder / "pseudo.nii.gz")
    nibabel.save(nibabel.Nifti1Image(parts, label.affine), folder / "parts.nii.gz")
    return replace(
        labelled_case, complete=False, pseudo_label=folder / "pseudo.nii.gz", supervoxel=folder / "parts.nii.gz"
    )


def test_weights_are_the_papers_or_given(labelled_case):
    datasets = ["a"] * 50 + ["b"] * 2
    cases = [replace(labelled_case, dataset=name) for name in datasets]
    weights = sampling_weights(cases, BY_DATASET)
    assert weights[:50].sum() == pytest.approx(0.5)
    assert weights[50] / weights[0] == pytest.approx((100 / 2) / (100 / 50))
    given_weights = sampling_weights([replace(labelled_case, weight=3.0), labelled_case])
    assert given_weights.tolist() == [0.75, 0.25]
    with pytest.raises(InputError, match="positive"):
        sampling_weights([replace(labelled_case, weight=0.0)])
    with pytest.raises(InputError, match="no weighting"):
        sampling_weights(cases, "luck")


@given(st.integers(0, 2**16), st.integers(1, 50))
def test_centres_of_a_class_lie_in_it(seed, most):
    label = np.random.default_rng(seed).choice([0, 1, 3, IGNORE], (1, 6, 7, 8)).astype(np.uint8)
    found = class_voxels(label, most)
    assert len(found) == IGNORE
    for code, voxels in enumerate(found):
        assert (label.ravel()[voxels] == code).all()
        assert len(voxels) == min(most, (label == code).sum())


def test_crops_are_balanced_over_classes(tiny_model, labelled_case):
    case = load_case(labelled_case, tiny_model, 24)
    data = {"image": torch.as_tensor(case.image), "label": torch.as_tensor(case.label)}
    small = replace(tiny_model, window=(4, 4, 4))
    transform = patch_transform(small, 4, PAPER).transforms[0]
    transform.set_random_state(0)
    data["label_cls_indices"] = class_voxels(crop_map(case))
    centres = Counter(int(transform(data)[0]["label"][0, 2, 2, 2]) for _ in range(300))
    assert set(centres) == {0, 1, FIRST_UNION}
    assert min(centres.values()) > 60


def test_the_papers_augmentation_keeps_maps_together_and_never_flips(tiny_model, rich_case):
    case = load_case(rich_case, tiny_model, 16)
    data = {name: torch.as_tensor(getattr(case, name)) for name in ("image", "label", "pseudo_label", "supervoxel")}
    data["label_cls_indices"] = class_voxels(crop_map(case))
    transform = patch_transform(tiny_model, 16, PAPER)
    names = [type(one).__name__ for one in transform.transforms]
    assert names == [
        "RandCropByLabelClassesd",
        "RandZoomd",
        "RandSimulateLowResolutiond",
        "RandGaussianSmoothd",
        "RandScaleIntensityd",
        "RandShiftIntensityd",
        "RandGaussianNoised",
    ]
    assert all(one.prob == 0.2 for one in transform.transforms[1:])
    for seed in range(8):
        seed_transform(transform, seed)
        patch = transform(dict(data))[0]
        again = (seed_transform(transform, seed), transform(dict(data))[0])[1]
        assert torch.equal(patch["image"], again["image"])
        assert all(patch[name].shape[1:] == (16, 16, 16) for name in ("image", "label", "pseudo_label", "supervoxel"))
        assert set(np.unique(patch["label"])) <= set(np.unique(case.label))
        assert set(np.unique(patch["supervoxel"])) <= set(np.unique(case.supervoxel))
        # The liver stays on its side of the lung: in RAS order it comes last.
        here = [np.argwhere(np.asarray(patch["label"][0]) == code)[:, 0] for code in (1, FIRST_UNION)]
        if all(len(one) for one in here):
            assert here[0].mean() > here[1].mean()


def test_an_unknown_recipe_is_one_sentence(tiny_model):
    with pytest.raises(InputError, match="no augmentation 'x'; choose one of paper, few-cases"):
        patch_transform(tiny_model, 16, "x")


def test_annotations_overrule_predictions(tiny_model, rich_case):
    case = load_case(rich_case, tiny_model, 16)
    assert np.array_equal(case.pseudo_label == FIRST_UNION, case.label == FIRST_UNION)
    assert np.array_equal(case.pseudo_label == 1, case.label == 1)
    assert (case.pseudo_label == 3).any()
    assert set(np.unique(case.supervoxel)) == {1, 2, 3, 4}
    meaning = LabelMeaning(annotated=(5,))
    label = np.array([[[5, 0, 0, IGNORE]]], np.uint8)
    assert reconciled(np.array([[[1, 5, 1, 1]]]), label, meaning).tolist() == [[[5, 0, 1, IGNORE]]]


@given(st.lists(st.integers(-3, 400), min_size=1, max_size=20))
def test_values_without_meaning_are_unknown_not_background(values):
    classes = {1: (3,), 2: (28, 29), 300: (), 4: ()}
    label = np.array(values, float).reshape(1, 1, -1)
    result = coded(label, classes, unions_of(classes)).ravel()
    expected = {0: 0, 1: 3, 2: FIRST_UNION, 300: FIRST_UNION + 1, 4: FIRST_UNION + 2}
    assert result.tolist() == [expected.get(value, IGNORE) for value in values]


def test_the_cache_gives_what_was_loaded_and_notices_changes(tiny_model, rich_case, tmp_path):
    folder = tmp_path / "cache"
    fresh = load_case(rich_case, tiny_model, 16)
    for _ in range(2):
        cached = pickle.loads(pickle.dumps(CaseStore([rich_case], tiny_model, 16, folder)))[0]
        for name in ("image", "label", "pseudo_label", "supervoxel"):
            assert np.array_equal(getattr(cached, name), getattr(fresh, name)), name
            assert getattr(cached, name).dtype == getattr(fresh, name).dtype, name
        assert (cached.unions, cached.annotated) == (fresh.unions, fresh.annotated)
    assert len(list(folder.glob("*.pt"))) == 1

    key = cache_key(rich_case, tiny_model, (16, 16, 16))
    assert key != cache_key(rich_case, replace(tiny_model, spacing=(2.0, 2.0, 2.0)), (16, 16, 16))
    assert key != cache_key(replace(rich_case, classes={5: (3,)}), tiny_model, (16, 16, 16))
    assert key == cache_key(replace(rich_case, weight=7.0), replace(tiny_model, width=16), (16, 16, 16))
    os.utime(rich_case.label, ns=(1, 1))
    assert key != cache_key(rich_case, tiny_model, (16, 16, 16))


def test_a_damaged_file_of_the_cache_is_made_again(tiny_model, labelled_case, tmp_path):
    store = CaseStore([labelled_case], tiny_model, 16, tmp_path / "cache")
    image = store[0].image
    file = next((tmp_path / "cache").glob("*.pt"))
    file.write_bytes(file.read_bytes()[:500])
    assert np.array_equal(store[0].image, image)
    assert len(file.read_bytes()) > 500


def test_what_is_wrong_with_a_file_comes_through_the_cache(tiny_model, labelled_case, tmp_path):
    short = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.diag([3.0, 3, 3, 1]))
    nibabel.save(short, labelled_case.label)
    with pytest.raises(InputError, match="different grids"):
        CaseStore([labelled_case], tiny_model, 16, tmp_path / "cache")[0]
