"""A run that dies between two steps has saved them, and goes on only with the files that it began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from training_phantoms import KIDNEY, LIVER, SPLEEN, phantom, recipe, task

from VISTA3DCore.errors import InputError, NotEnoughMemoryError
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.objective import Objective
from VISTA3DCore.training.plan import Choices, planned
from VISTA3DCore.training.samples import Samples

pytestmark = pytest.mark.slow

TINY = "model={width: 8, window: [16, 16, 16], spacing: [3, 3, 3], blocks_down: [1, 1, 1], click_width: 48}"
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


@pytest.fixture
def data(tmp_path) -> Path:
    """Two phantoms as files in a folder of their own, with a data list."""
    folder, entries = tmp_path / "data", []
    folder.mkdir()
    for number in range(2):
        case = phantom(number)
        hu = (case.image[0] * 2017.5 - 963.8).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(hu, AFFINE), folder / f"ct{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(case.label[0], AFFINE), folder / f"label{number}.nii.gz")
        entries.append({"image": f"ct{number}.nii.gz", "label": f"label{number}.nii.gz"})
    content = {"name": "mine", "labels": {str(one): one for one in (LIVER, SPLEEN, KIDNEY)}, "training": entries}
    (folder / "list.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "list.json"


def _trainer(data: Path, run: Path, workers: int = 0) -> Trainer:
    chosen = recipe("automatic", TINY, "steps=40", "frozen=[]", "data.in_memory=1")
    work = planned(chosen, [read_data_list(data)], choices=Choices(None, data.parent / "cache"))
    return Trainer(work, run, device="cpu", workers=workers)


def _newest(folder: Path) -> dict:
    return torch.load(max((folder / "checkpoints").glob("*.pt")), weights_only=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_costs_no_step(data, tmp_path, workers):
    trainer = _trainer(data, tmp_path / "run", workers)
    kept = data.parent.with_name("kept")

    def vanish(update: object) -> None:
        if "step 2 " in update.message:
            shutil.copytree(data.parent, kept)
            for path in [*data.parent.glob("*.nii.gz"), *(data.parent / "cache").glob("*")]:
                path.unlink()

    with pytest.raises(InputError, match=r"does not exist\. The state after step \d+ is saved; the same") as caught:
        trainer.run(Progress(vanish))
    assert "\n" not in str(caught.value)
    assert _newest(tmp_path / "run")["step"] == trainer.step >= 2

    with pytest.raises(InputError, match="Files of the data lists are missing: image of 'ct0'"):
        _trainer(data, tmp_path / "run")
    for path in kept.glob("*.nii.gz"):
        shutil.copy(path, data.parent)
    assert _trainer(data, tmp_path / "run").run().step == 40


def test_memory_that_runs_out_on_a_processor_is_a_sentence_and_costs_no_step(tmp_path, monkeypatch):
    trainer = Trainer(task(recipe("automatic", "steps=5", "frozen=[]"), [phantom(0)]), tmp_path, device="cpu")
    learn = Objective.learn

    def hungry(self: Objective, sample: object, share: float) -> dict[str, float]:
        if trainer.step == 3:
            torch.empty(1 << 50, dtype=torch.uint8)  # more than any computer has
        return learn(self, sample, share)

    monkeypatch.setattr(Objective, "learn", hungry)
    with pytest.raises(
        NotEnoughMemoryError, match=r"memory of 'cpu' is too small .* use another computer\. The state af"
    ):
        trainer.run()
    assert _newest(tmp_path)["step"] == 3


def test_memory_that_runs_out_while_patches_are_made_is_a_sentence(tmp_path, monkeypatch):
    run = task(recipe("automatic", "steps=5", "frozen=[]"), [phantom(0)])
    trainer = Trainer(run, tmp_path, device="cpu")
    monkeypatch.setattr(Samples, "__getitem__", lambda *_: np.empty(1 << 50))

    with pytest.raises(NotEnoughMemoryError, match="Memory ran out; set fewer prompts"):
        trainer.run()


def test_a_run_is_not_resumed_with_a_changed_file(data, tmp_path):
    progress = Progress(lambda update: progress.cancel() if "step 1 " in update.message else None)
    with pytest.raises(Exception, match="Stopped after step"):
        _trainer(data, tmp_path / "run").run(progress)

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(data.parent, elsewhere, ignore=shutil.ignore_patterns("cache"), copy_function=shutil.copyfile)
    assert _trainer(elsewhere / "list.json", tmp_path / "run").step >= 1

    label = nibabel.load(data.parent / "label1.nii.gz")
    array = np.asarray(label.dataobj).copy()
    array[0, 0, 0] = LIVER
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), data.parent / "label1.nii.gz")
    with pytest.raises(
        InputError, match=r"The label of 'ct1' \(mine\) has changed since the run .* restore it, or begin"
    ):
        _trainer(data, tmp_path / "run")
