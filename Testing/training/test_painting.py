"""CTs painted from label maps alone: they must measure like a CT, and mean what the label map means."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import case_of
from VISTA3DCore.training.datasets import IGNORE, load_case
from VISTA3DCore.training.painting import anatomy_of
from VISTA3DCore.training.synthetic import SyntheticAnatomy, SyntheticConfig

SMALL = ModelConfig(name="small", width=8, blocks_down=(1, 1, 1), window=(32, 32, 32), spacing=(4.0, 4.0, 4.0))
LIVER, AORTA, LUNG, L3, MUSCLE = 1, 6, 28, 35, 104
BOXES = {
    LIVER: np.s_[8:20, 10:30, 8:24],
    AORTA: np.s_[22:25, 12:15, 2:30],
    LUNG: np.s_[26:38, 10:30, 18:30],
    L3: np.s_[20:26, 4:10, 4:28],
    MUSCLE: np.s_[12:18, 3:8, 2:30],
}


def label_map() -> np.ndarray:
    label = np.zeros((46, 36, 32), np.uint8)
    for code, box in BOXES.items():
        label[box] = code
    return label


@pytest.fixture
def map_list(tmp_path):
    """A data list with one label map that has no image, stored left to right, 4 mm."""
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (100, -50, 20)
    nib.save(nib.Nifti1Image(label_map()[::-1], affine), tmp_path / "map.nii.gz")
    content = {
        "labels": {str(code): code for code in BOXES},
        "training": [{"name": "map", "label": "map.nii.gz", "complete": True}],
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    return read_data_list(tmp_path / "list.json")


def test_a_label_map_alone_is_a_case_on_the_model_grid(map_list):
    (item,) = map_list.training
    assert item.image is None
    loaded = load_case(case_of(item), SMALL, 1)
    assert loaded.label.shape == (1, 46, 36, 32)
    assert np.array_equal(loaded.label[0], label_map())  # RAS, whatever the file's order

    coarse = load_case(case_of(item), ModelConfig(spacing=(8.0, 8.0, 8.0), window=(16, 16, 16)), 1)
    assert coarse.label.shape == (1, 23, 18, 16)
    assert np.count_nonzero(coarse.label == LIVER) == pytest.approx(np.count_nonzero(label_map() == LIVER) / 8, rel=0.3)


def test_depth_is_negative_in_the_body_and_grows_in_mm_outside():
    depth, bone = anatomy_of(label_map(), np.array([4.0, 4.0, 4.0])).distances
    assert (depth[label_map() > 0] <= 0).all()
    assert depth[0, 20, 16] == pytest.approx(depth[4, 20, 16] + 16, abs=0.01)
    assert bone[23, 7, 10] == 0
    assert bone[23, 19, 10] == pytest.approx(40)


def test_tissues_measure_what_they_are_and_air_is_around(map_list):
    loaded = load_case(case_of(map_list.training[0]), SMALL, 1)
    source = SyntheticAnatomy([loaded], SMALL, SyntheticConfig(lesions=0))
    low, high = SMALL.intensity_range
    found: dict[int, list[float]] = {code: [] for code in (0, *BOXES)}
    air = 0
    for seed in range(40):
        patch = source.patch(seed)
        hu = patch.image * (high - low) + low
        air += int((hu[patch.label == 0] < -900).sum() > 50)
        for code, medians in found.items():
            inside = hu[patch.label == code]
            if inside.size > 30:
                medians.append(float(np.median(inside)))
    assert all(len(values) > 8 for values in found.values())
    ranges = {LIVER: (-10, 160), AORTA: (5, 500), LUNG: (-950, -550), L3: (60, 700), MUSCLE: (0, 100)}
    for code, (lowest, highest) in ranges.items():
        assert lowest < np.median(found[code]) < highest
        assert np.mean([lowest < value < highest for value in found[code]]) > 0.8, code
    assert air > 20


def test_a_painted_patch_is_complete_and_depends_on_its_seed_alone(map_list):
    source = SyntheticAnatomy([load_case(case_of(map_list.training[0]), SMALL, 1)], SMALL)
    one, again, other = source.patch(3), source.patch(3), source.patch(4)
    assert np.array_equal(one.image, again.image)
    assert not np.array_equal(one.image, other.image)
    assert one.meaning.complete
    assert set(BOXES) <= set(one.meaning.annotated)
    assert set(np.unique(one.label)) <= {0, *BOXES, IGNORE, 26, 23, 128}


def test_weights_decide_how_often_a_source_is_drawn(map_list):
    from dataclasses import replace

    case = case_of(map_list.training[0])
    cases = [replace(case, name=name, weight=weight) for name, weight in (("often", 9.0), ("seldom", 1.0))]
    source = SyntheticAnatomy([load_case(one, SMALL, 1) for one in cases], SMALL)
    names = [source.patch(seed).name for seed in range(60)]
    assert 40 < sum(name.endswith("often") for name in names) < 60
