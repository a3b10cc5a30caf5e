"""Pseudo-labels: what predictions agree upon is kept, all else is unknown; a list with them can be trained on."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.cli.main import app
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import DataList, read_data_list
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.session import Segmenter
from VISTA3DCore.models.checkpoints import save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import case_of
from VISTA3DCore.training.datasets import IGNORE, PatchData, load_case
from VISTA3DCore.training.preparation import prepare
from VISTA3DCore.training.prompts import PromptConfig, sample_prompts
from VISTA3DCore.training.pseudo_labels import (
    TOO_SMALL,
    UNSTEADY,
    WRONG_SIDE,
    Reliability,
    _Places,
    pseudo_label,
    relied_on,
)
from VISTA3DCore.training.validation import has_errors, validate

LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY = 1, 3, 5, 14
SHAPE = (30, 20, 20)
AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])  # the first index runs from right to left
CT = Volume(np.zeros(SHAPE, np.int16), AFFINE)
EASY = Reliability(smallest_ml=0.0)


def _map(**boxes: tuple[int, slice]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16)
    for index, where in boxes.values():
        labels[where, 4:16, 4:16] = index
    return labels


def test_agreement_is_kept_and_differences_are_unknown() -> None:
    first = _map(liver=(LIVER, slice(0, 12)), spleen=(SPLEEN, slice(20, 26)))
    second = _map(liver=(LIVER, slice(1, 12)), spleen=(SPLEEN, slice(26, 30)))
    found = relied_on([first, second], CT, catalogue(), EASY)
    assert found.dropped == {SPLEEN: UNSTEADY}
    assert found.agreement[LIVER] == pytest.approx(2 * 11 / 23)
    assert found.agreement[SPLEEN] == 0.0
    np.testing.assert_array_equal(found.labels == LIVER, second == LIVER)
    assert (found.labels[0, 4:16, 4:16] == IGNORE).all()
    assert (found.labels[20:30, 4:16, 4:16] == IGNORE).all()
    assert np.count_nonzero(found.labels == IGNORE) == 11 * 12 * 12


def test_sides_sizes_and_pieces_are_checked() -> None:
    right = _map(kidney=(RIGHT_KIDNEY, slice(22, 26)), liver=(LIVER, slice(0, 10)))
    right[0, 0, 0] = SPLEEN
    right[29, 0, 0] = LIVER
    found = relied_on([right, right], CT, catalogue(), Reliability(smallest_ml=1.0))
    assert found.dropped == {RIGHT_KIDNEY: WRONG_SIDE, SPLEEN: TOO_SMALL}
    assert found.labels[29, 0, 0] == IGNORE
    assert not np.isin(found.labels, (RIGHT_KIDNEY, SPLEEN)).any()
    left = np.where(right == RIGHT_KIDNEY, LEFT_KIDNEY, right)
    assert LEFT_KIDNEY not in relied_on([left, left], CT, catalogue(), EASY).dropped


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, LIVER, SPLEEN, IGNORE])))
def test_places_are_those_of_the_voxels(labels: np.ndarray) -> None:
    found = _Places.of(labels)
    for index in (LIVER, SPLEEN, IGNORE):
        voxels = np.argwhere(labels == index)
        assert found.count(index) == len(voxels)
        if len(voxels):
            np.testing.assert_allclose(found.center(index), voxels.mean(axis=0))
            assert np.count_nonzero(labels[found.box(index)] == index) == len(voxels)
    structures = np.argwhere((labels > 0) & (labels < IGNORE))
    if len(structures):
        np.testing.assert_allclose(found.center(slice(1, IGNORE)), structures.mean(axis=0))


def test_a_large_ct_needs_little_more_than_its_labels() -> None:
    """Many structures, half of them on a side: each costs a look at its own box, and no list of voxels."""
    shape = (160, 160, 100)
    blocks = np.indices(shape).reshape(3, *shape) // np.reshape([32, 40, 25], (3, 1, 1, 1))
    known = [structure.index for structure in catalogue().everything]
    view = np.take(known, (blocks[0] + 5 * blocks[1] + 20 * blocks[2]) % len(known)).astype(np.uint16)
    del blocks
    tracemalloc.start()
    relied_on([view, view, view], Volume(np.zeros(shape, np.int16), AFFINE), catalogue(), EASY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * view.size + 20e6


@given(
    arrays(np.uint16, (5, 4, 4), elements=st.sampled_from([0, LIVER, SPLEEN])),
    arrays(np.uint16, (5, 4, 4), elements=st.sampled_from([0, LIVER, SPLEEN])),
    st.floats(0, 1),
)
def test_nothing_is_claimed_that_a_prediction_denies(first: np.ndarray, second: np.ndarray, agreement: float) -> None:
    volume = Volume(np.zeros(first.shape, np.int16), AFFINE)
    found = relied_on([first, second], volume, catalogue(), Reliability(agreement=agreement, smallest_ml=0.0))
    told = found.labels != IGNORE
    np.testing.assert_array_equal(found.labels[told], first[told])
    np.testing.assert_array_equal(found.labels[told], second[told])
    for index in found.dropped:
        assert not (found.labels[(first == index) | (second == index)] != IGNORE).any()


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    config = ModelConfig(
        name="tiny", width=8, blocks_down=(1, 1, 1), window=(16, 16, 16), spacing=(6.0, 6.0, 6.0), classes=(1, 3, 5)
    )
    return Segmenter.from_network(build_network(config), config)


@pytest.fixture
def tiny_checkpoint(segmenter: Segmenter, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "tiny.safetensors", segmenter.config, build_network(segmenter.config).state_dict())
    return tmp_path / "tiny.safetensors"


def test_predictions_of_a_network_lie_on_the_grid_of_the_ct(segmenter: Segmenter) -> None:
    noise = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.int16)
    found = pseudo_label(segmenter, Volume(noise, AFFINE), Reliability(agreement=0.0, smallest_ml=0.0))
    assert (found.labels.shape, found.labels.dtype) == (SHAPE, np.uint8)
    assert set(np.unique(found.labels)) <= {0, 1, 3, 5, IGNORE}
    with pytest.raises(InputError, match="at least two scales"):
        pseudo_label(segmenter, Volume(noise, AFFINE), Reliability(scales=(1.0,)))


def _list(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        nibabel.save(nibabel.Nifti1Image(rng.normal(0, 300, SHAPE).astype(np.int16), AFFINE), folder / f"{name}.nii.gz")
    label = np.zeros(SHAPE, np.uint8)
    label[3:9, 4:10, 4:10] = 7
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), folder / "label.nii.gz")
    (folder / "damaged.nii.gz").write_bytes(b"no image")
    entry = {"label": "label.nii.gz", "labels": {"7": SPLEEN}, "fold": 1}
    content = {
        "name": "my list",
        "training": [{"image": "a.nii.gz", **entry}, {"image": "b.nii.gz", **entry, "complete": True}],
        "testing": [{"image": "b.nii.gz", **entry}],
        "unlabelled": [{"image": "c.nii.gz"}, {"image": "damaged.nii.gz"}],
    }
    (folder / "list.json").write_text(json.dumps(content))
    return folder / "list.json"


def test_a_list_gets_predictions_and_supervoxels(segmenter: Segmenter, tmp_path: Path) -> None:
    data = read_data_list(_list(tmp_path))
    easy = Reliability(agreement=0.0, smallest_ml=0.0)
    made = prepare(data, tmp_path / "out", segmenter, "graph", easy)
    assert list(made.failures) == ["damaged"]
    assert set(made.report) == {"a", "b", "c"}
    written = read_data_list(made.path)
    a, b, c, damaged = written.training
    assert (a.fold, a.classes, b.complete, b.pseudo_label, c.label) == (1, {7: (SPLEEN,)}, True, None, None)
    assert all(one.pseudo_label.exists() and one.supervoxel.exists() for one in (a, c))
    assert (damaged.pseudo_label, damaged.supervoxel) == (None, None)
    assert [one.name for one in written.testing] == ["b"]


def test_unknown_voxels_are_asked_for_nowhere(segmenter: Segmenter, tmp_path: Path) -> None:
    path = _list(tmp_path)
    predicted = np.zeros(SHAPE, np.uint8)
    predicted[10:20], predicted[20:] = LIVER, IGNORE
    nibabel.save(nibabel.Nifti1Image(predicted, AFFINE), tmp_path / "predicted.nii.gz")
    content = json.loads(path.read_text())
    content["training"] = [{**content["training"][0], "pseudo_label": "predicted.nii.gz"}]
    path.write_text(json.dumps(content))
    data = read_data_list(path)
    loaded = load_case(case_of(data.training[0], data.name), segmenter.config, 16)
    maps = {name: getattr(loaded, name)[0] for name in ("image", "label", "pseudo_label")}
    patch = PatchData(meaning=loaded.meaning, name="a", **maps)
    config = PromptConfig(drop_label=0.0, drop_clicks=1.0, max_background=100, classes=(LIVER, SPLEEN, RIGHT_KIDNEY))
    asked = {one.classes: one for one in sample_prompts(patch, loaded, config, np.random.default_rng(0))}
    assert asked[LIVER,].target.any()
    assert not asked[RIGHT_KIDNEY,].target.any()
    unknown = maps["pseudo_label"] == IGNORE
    assert unknown.any()
    assert not any(one.valid[unknown].any() for one in asked.values() if one.pseudo)
    assert {one.classes for one in asked.values() if one.pseudo} == {(LIVER,), (RIGHT_KIDNEY,)}


def test_what_is_there_is_kept_with_what_is_known_about_it(segmenter: Segmenter, tmp_path: Path) -> None:
    data = read_data_list(_list(tmp_path))
    first = prepare(data, tmp_path / "out", segmenter)
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.nii.gz")}
    again = prepare(data, tmp_path / "out", segmenter)
    assert (len(times), again.path) == (2, first.path)
    assert again.report == first.report
    assert set(again.report) == {"a", "c"}
    assert times == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.nii.gz")}
    assert not has_errors(validate([read_data_list(_healthy(again.path))], segmenter.config))


def test_maps_are_made_anew_where_anything_that_decides_about_them_differs(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    data = _first_alone(read_data_list(_list(tmp_path)))

    def kept(*options: object) -> bool:
        """Return whether the map is the same file as before the call."""
        path = read_data_list(tmp_path / "out" / "my_list.json").training[0].pseudo_label
        before = path.stat().st_ino, path.stat().st_mtime_ns
        prepare(data, tmp_path / "out", *options)
        return before == (path.stat().st_ino, path.stat().st_mtime_ns)

    prepare(data, tmp_path / "out", segmenter)
    assert kept(segmenter)
    assert not kept(segmenter, None, Reliability(agreement=0.5))
    config = replace(segmenter.config, classes=(1, 3))
    other = Segmenter.from_network(build_network(config), config)
    assert not kept(other, None, Reliability(agreement=0.5))
    assert read_data_list(tmp_path / "out" / "my_list.json").training[0].predicted == (1, 3)
    other.provenance["hash"] = "sha256:other weights"
    assert not kept(other, None, Reliability(agreement=0.5))

    image = tmp_path / "a.nii.gz"
    os.utime(image, (0, 0))
    assert kept(other, None, Reliability(agreement=0.5))
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(image).dataobj) + np.int16(1), AFFINE), image)
    assert not kept(other, None, Reliability(agreement=0.5))


def _first_alone(data: DataList) -> DataList:
    return replace(data, sections={"training": data.training[:1]})


def test_a_map_of_an_interrupted_call_is_not_taken_for_a_good_one(segmenter: Segmenter, tmp_path: Path) -> None:
    data = _first_alone(read_data_list(_list(tmp_path)))
    first = prepare(data, tmp_path / "out", segmenter)
    path = read_data_list(first.path).training[0].pseudo_label
    path.with_name(path.name.replace(".nii.gz", ".json")).unlink()
    path.write_bytes(b"half of it")

    again = prepare(data, tmp_path / "out", segmenter)

    assert again.report == first.report
    assert Volume.read(path).shape == SHAPE


def test_cases_of_one_name_in_two_lists_get_files_of_their_own(segmenter: Segmenter, tmp_path: Path) -> None:
    path = _list(tmp_path)
    first = prepare(read_data_list(path), tmp_path / "out", segmenter)
    path.write_text(path.read_text().replace("my list", "other list"))
    second = prepare(read_data_list(path), tmp_path / "out", segmenter)
    files = [one.pseudo_label for made in (first, second) for one in read_data_list(made.path).training]
    made = [file for file in files if file is not None]
    assert len(made) == len(set(made)) == 4


def test_a_misspelt_generator_is_refused_before_anything_is_made(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ("--data", _list(tmp_path), "-m", tiny_checkpoint, "--supervoxels", "grph", "-o", tmp_path / "out")
    done = _prepare(*options)
    assert (done.exit_code, (tmp_path / "out").exists()) == (3, False)
    assert "There is no generator 'grph'" in done.stderr


def test_two_lists_of_one_name_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = _list(tmp_path)
    done = _prepare("--data", path, "--data", path, "-m", tiny_checkpoint, "-o", tmp_path / "out")
    assert (done.exit_code, (tmp_path / "out").exists()) == (3, False)
    assert "Two data lists have the name 'my list'" in done.stderr


def _healthy(path: Path) -> Path:
    content = json.loads(path.read_text())
    content["training"] = [one for one in content["training"] if one["name"] != "damaged"]
    content["testing"] = []
    path.write_text(json.dumps(content))
    return path


def _prepare(*arguments: object):
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def test_the_command_writes_list_and_report(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = _list(tmp_path)
    done = _prepare("--data", path, "-m", tiny_checkpoint, "-d", "cpu", "--agreement", 0.0, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "Not prepared: damaged" in done.stdout + done.stderr
    assert read_data_list(tmp_path / "out" / "my_list.json").training[0].pseudo_label.exists()
    report = json.loads((tmp_path / "out" / "my_list.report.json").read_text())
    assert set(report["cases"]) == {"a", "c"}
    assert list(report["failures"]) == ["damaged"]


def test_nothing_asked_for_is_one_sentence(tmp_path: Path) -> None:
    done = _prepare("--data", _list(tmp_path), "-o", tmp_path / "out")
    assert (done.exit_code, (tmp_path / "out").exists()) == (3, False)
    assert "Nothing was asked for" in done.stderr
