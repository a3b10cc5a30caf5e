"""An image without a label is not annotated, whatever its list says about other images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from training_phantoms import KIDNEY, LIVER, MODEL, SPLEEN, phantom, recipe

from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.cases import case_of
from VISTA3DCore.training.datasets import LabelMeaning, load_case, reconciled
from VISTA3DCore.training.plan import Choices, planned
from VISTA3DCore.training.preparation import prepare
from VISTA3DCore.training.supervoxel_objects import ZERO_SHOT_UNSEEN

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
TINY = "model={width: 8, window: [16, 16, 16], spacing: [3, 3, 3], blocks_down: [1, 1, 1], click_width: 48}"
LABELS = {"1": LIVER, "3": "spleen"}


def _list(folder: Path, entry: dict[str, Any] | None = None, **defaults: Any) -> Path:
    """Write a list of one image without a label, but with a pseudo-label and supervoxels that may be used."""
    case = phantom(0, supervoxels=True)
    maps = {"ct": case.image[0] * 2017.5 - 963.8, "pseudo": case.label[0], "parts": case.supervoxel[0]}
    for name, array in maps.items():
        kind = np.float32 if name == "ct" else np.uint8
        nibabel.save(nibabel.Nifti1Image(array.astype(kind), AFFINE), folder / f"{name}.nii.gz")
    content = {"name": "mine", **defaults, "training": [{"image": "ct.nii.gz", **(entry or {})}]}
    (folder / "list.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "list.json"


@pytest.mark.parametrize(
    ("entry", "defaults"),
    [
        ({}, {"labels": LABELS}),
        ({}, {"labels": LABELS, "complete": True}),
        ({"labels": LABELS, "label_names": {"9": "mass"}, "complete": True}, {}),
    ],
)
def test_nothing_is_annotated_without_a_label(tmp_path, entry, defaults):
    item = read_data_list(_list(tmp_path, entry, **defaults)).training[0]

    assert (item.label, item.classes, item.names, item.complete) == (None, {}, {}, False)
    loaded = load_case(case_of(item), MODEL, 16)
    assert (loaded.meaning, loaded.label.any()) == (LabelMeaning(), False)


def test_its_pseudo_label_counts_for_every_structure(tmp_path):
    entry = {"pseudo_label": "pseudo.nii.gz"}
    data = read_data_list(_list(tmp_path, entry, labels=LABELS, complete=True))
    truth = phantom(0).label[0]

    loaded = load_case(case_of(data.training[0]), MODEL, 16)
    assert np.array_equal(loaded.pseudo_label[0], truth)
    assert np.array_equal(reconciled(truth, np.zeros_like(truth), loaded.meaning), truth)

    changes = ("steps=3", "data.augmentation=paper", "prompts.max_background=8", "prompts.drop_clicks=1.0")
    run = planned(recipe("automatic", TINY, *changes), [data], choices=Choices(None, tmp_path))
    for number in range(3):
        sample = run.samples[number]
        asked = {one.classes[0]: one for one in sample.objects}
        shown = set(np.unique(sample.patch.pseudo_label)) & {LIVER, SPLEEN, KIDNEY}
        assert shown <= set(asked)
        assert all(asked[index].target.any() for index in shown)
        assert not any(asked[index].target.any() for index in set(asked) - shown)


def test_supervoxels_of_an_image_without_a_label_become_objects(tmp_path):
    data = read_data_list(_list(tmp_path, {"supervoxel": "parts.nii.gz"}, labels=LABELS))

    chosen = recipe("interactive", TINY, "steps=1", "prompts.smallest=0.1")
    run = planned(chosen, [data], choices=Choices(None, tmp_path))

    objects = run.samples[0].objects
    assert len(objects) == 4
    assert {one.kind for one in objects} == {ZERO_SHOT_UNSEEN}


def test_prepare_predicts_what_a_complete_list_did_not_label(tmp_path):
    segmenter = Segmenter.from_network(build_network(MODEL), MODEL)
    data = read_data_list(_list(tmp_path, labels=LABELS, complete=True))

    made = prepare(data, tmp_path / "out", segmenter)

    item = read_data_list(made.path).training[0]
    assert item.pseudo_label.exists()
    assert (item.classes, item.complete) == ({}, False)
