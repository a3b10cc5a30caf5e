"""Synthetic CTs: seeded, in Hounsfield units that belong to a CT, with lesions where they belong."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_phantoms import phantom

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import case_of
from VISTA3DCore.training.datasets import IGNORE, load_case
from VISTA3DCore.training.deformation import DeformationConfig, sample_points
from VISTA3DCore.training.hu_statistics import hu_statistics
from VISTA3DCore.training.lesions import LESIONS, add_lesions
from VISTA3DCore.training.patches import PatchConfig, PatchSource
from VISTA3DCore.training.synthetic import SyntheticAnatomy, SyntheticConfig

SMALL = ModelConfig(name="small", width=8, blocks_down=(1, 1, 1), window=(32, 32, 32), spacing=(4.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def anatomy(ct_data) -> SyntheticAnatomy:
    cases = [case_of(item) for item in read_data_list(ct_data).training if item.name == "totalseg_s0009"]
    loaded = [load_case(case, SMALL, 32) for case in cases]
    return SyntheticAnatomy(loaded, SMALL, SyntheticConfig(lesions=4))


def test_a_patch_depends_on_its_seed_alone(anatomy):
    one, again, other = anatomy.patch(3), pickle.loads(pickle.dumps(anatomy)).patch(3), anatomy.patch(4)

    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.label, again.label)
    assert not np.array_equal(one.image, other.image)
    assert one.image.shape == one.label.shape == SMALL.window
    assert (one.image.dtype, one.label.dtype) == (np.float32, np.uint8)
    assert 0 <= one.image.min() < one.image.max() <= 1


def test_small_fields_of_view_show_nothing_and_teach_nothing_beyond_them():
    model = replace(SMALL, spacing=(10.0, 10.0, 10.0))
    body = phantom(0)
    maps = {key: np.kron(getattr(body, key), np.ones((1, 4, 4, 4), np.uint8)) for key in ("image", "label")}
    case = replace(body, **maps)
    wide, narrow = (SyntheticAnatomy([case], model, SyntheticConfig(narrow=share)) for share in (0.0, 1.0))
    sides = []
    for seed in range(40):
        patch = narrow.patch(seed)
        known = patch.label != IGNORE
        assert np.all(patch.image[~known] == 0)
        assert patch.image[known].std() > 0
        sides.append([10.0 * (np.ptp(np.flatnonzero(known.any(axes))) + 1) for axes in ((1, 2), (0, 2), (0, 1))])
    across, along = np.array(sides)[:, :2], np.array(sides)[:, 2]
    assert across.max() <= 270
    assert across.min() <= 130
    assert np.ptp(np.mean(sides, axis=1)) > 50
    assert along.max() == 320
    assert np.mean([np.mean(wide.patch(seed).label != IGNORE) for seed in range(10)]) > 0.85


def test_patches_measure_what_organs_measure(anatomy):
    statistics, low, high = hu_statistics(), *SMALL.intensity_range
    deviations = []
    for seed in range(12):
        patch = anatomy.patch(seed)
        hu = patch.image * (high - low) + low
        for code in set(np.unique(patch.label).tolist()) & {1, 3, 5, 6, 14, 104}:
            inside = hu[patch.label == code]
            if inside.size > 60:
                allowed = statistics.mean[:, code] + 2.2 * np.outer([-1, 1], statistics.spread[:, code])
                deviations.append(max(allowed.min() - np.median(inside), np.median(inside) - allowed.max(), 0))
    assert len(deviations) > 10
    assert np.percentile(deviations, 80) < 40


def test_lesions_grow_in_their_organs_and_are_known(anatomy):
    found = set()
    for seed in range(30):
        patch = anatomy.patch(seed)
        grown = {kind.index for kind in LESIONS} & set(np.unique(patch.label).tolist())
        assert grown <= set(patch.meaning.annotated)
        found |= grown
    assert len(found) >= 3


@given(st.integers(0, 2**16), st.sampled_from([1.0, 1.5, 4.0]))
@settings(max_examples=40)
def test_a_lesion_stays_in_its_host(seed, spacing):
    rng = np.random.default_rng(seed)
    label = np.zeros((24, 24, 24), np.uint8)
    label[4:20, 4:20, 4:20], label[0:3] = 1, 14
    image = np.full(label.shape, 60.0, np.float32)
    before = label.copy()

    grown = add_lesions(image, label, (spacing,) * 3, 2, rng)

    changed = label != before
    assert set(grown) <= {26, 116}
    assert set(before[changed & (label == 26)].tolist()) <= {1}
    assert set(before[changed & (label == 116)].tolist()) <= {14}
    assert bool(grown) == changed.any()
    assert np.isfinite(image).all()


@given(st.integers(0, 2**16))
@settings(max_examples=20)
def test_deformations_do_not_fold_and_keep_left_left(seed):
    points = sample_points((50, 50, 50), (40, 40, 40), (1.5,) * 3, DeformationConfig(), np.random.default_rng(seed))
    steps = [np.diff(points, axis=axis)[:, :39, :39, :39] for axis in (1, 2, 3)]
    jacobian = np.linalg.det(np.stack(steps).transpose(2, 3, 4, 0, 1))
    assert (jacobian > 0).mean() > 0.999


def test_statistics_name_structures_and_phases():
    statistics = hu_statistics()
    assert statistics.phases == ("native", "arterial", "portal")
    assert statistics.mean[1, 6] > 300 > statistics.mean[0, 6]
    assert not statistics.known[33]
    drawn = statistics.draw(np.random.default_rng(0))
    assert np.isnan(drawn[33])
    assert -20 <= drawn[6] < 600


def test_without_a_case_there_is_one_sentence(tiny_model):
    with pytest.raises(InputError, match="completely annotated"):
        SyntheticAnatomy([], tiny_model)


def test_a_partial_case_stays_partial_and_gets_no_lesions(tiny_model, labelled_case):
    partial = load_case(replace(labelled_case, complete=False), tiny_model, 16)
    source = SyntheticAnatomy([partial], tiny_model, SyntheticConfig(lesions=20))
    for seed in range(8):
        meaning = source.patch(seed).meaning
        assert not meaning.complete
        assert meaning.annotated == partial.annotated


def test_worker_processes_draw_what_one_process_draws(tiny_model, labelled_case):
    case = load_case(labelled_case, tiny_model, 16)
    config = PatchConfig(seed=5, synthetic=0.5)
    source = PatchSource([case], tiny_model, 6, config, SyntheticAnatomy([case], tiny_model))
    loader = torch.utils.data.DataLoader(source, batch_size=None, num_workers=1, multiprocessing_context="spawn")

    names = set()
    for number, patch in enumerate(loader):
        assert np.array_equal(patch.image, source[number].image)
        assert np.array_equal(patch.label, source[number].label)
        assert patch.image.shape == tiny_model.window
        names.add(patch.name)
    assert names == {"tiny", "synthetic of tiny"}


def test_synthetic_patches_need_a_source(tiny_model, labelled_case):
    case = load_case(labelled_case, tiny_model, 16)
    with pytest.raises(InputError, match="no source"):
        PatchSource([case], tiny_model, 1, PatchConfig(synthetic=0.1))
    with pytest.raises(InputError, match="no labelled case"):
        PatchSource([], tiny_model, 1)
