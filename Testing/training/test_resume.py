"""A run that was killed goes on to the very same weights; its folder survives full disks and damaged files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_phantoms import phantom, recipe, task

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import Cancelled, InputError, OutputError, TrainingError
from VISTA3DCore.models.checkpoints import load_checkpoint
from VISTA3DCore.progress import Progress
from VISTA3DCore.training import checkpointing
from VISTA3DCore.training.checkpointing import RunFolder
from VISTA3DCore.training.loop import Trainer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("steps=6", "saving.every=2", "prompts.iterations=2", "prompts.drop_label=0", "prompts.drop_clicks=0")


def _child(folder: Path) -> subprocess.Popen:
    script = Path(__file__).with_name("training_child.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([sys.executable, str(script), str(folder), "saving.every=1"], env=environment)


def _run(folder: Path, *changes: str, progress: Progress | None = None) -> Trainer:
    trainer = Trainer(task(recipe("interactive", *SHORT, *changes), [phantom(0), phantom(1)]), folder, device="cpu")
    trainer.run(progress)
    return trainer


def _newest(folder: Path) -> dict:
    return torch.load(max((folder / "checkpoints").glob("*.pt")), weights_only=True)


def _assert_equal(one: object, other: object, place: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            _assert_equal(one[key], other[key], f"{place}/{key}")
    else:
        assert one == other, place


def test_a_run_killed_at_any_moment_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _child(whole).wait(120) == 0

    for step in (3, 7):
        child = _child(killed)
        deadline = time.monotonic() + 120
        while not (killed / "checkpoints" / f"step-{step:08d}.pt").exists():
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
        child.wait()
    assert _newest(killed)["step"] < 10
    assert _child(killed).wait(120) == 0

    _assert_equal(_newest(whole), _newest(killed))
    _assert_equal(*(load_checkpoint(folder / "model.safetensors")[1] for folder in (whole, killed)))


def test_checkpoints_rotate(tmp_path):
    _run(tmp_path, "saving.keep=2", "saving.every=1")

    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000005.pt",
        "step-00000006.pt",
    ]


def test_a_cancelled_run_has_saved_its_step_and_says_so(tmp_path):
    progress = Progress(lambda update: progress.cancel() if "step 3 " in update.message else None)

    with pytest.raises(Cancelled, match="after step 4 of 6; the same command goes on"):
        _run(tmp_path, progress=progress)
    assert _newest(tmp_path)["step"] == 4
    assert _run(tmp_path).step == 6


def test_time_that_is_up_stops_a_run_which_can_go_on(tmp_path):
    trainer = Trainer(task(recipe("interactive", *SHORT), [phantom(0)]), tmp_path, device="cpu")

    outcome = trainer.run(until=0.0)

    assert (outcome.step, outcome.reason) == (1, "the time is up")
    assert outcome.model.exists()


def test_a_folder_with_another_run_is_refused(tmp_path):
    _run(tmp_path)

    with pytest.raises(InputError, match=r"another run \(recipe.optimizer.learning_rate is 0.004 there and 0.1 here\)"):
        _run(tmp_path, "optimizer.learning_rate=0.1")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    run = task(recipe("automatic", "steps=1", "frozen=[]"), [phantom(0)])
    first = Trainer(run, tmp_path, device="cpu")

    with pytest.raises(InputError, match=r"Another process trains in .*; wait until it ends, or give another folder"):
        Trainer(run, tmp_path, device="cpu")
    assert first.run().step == 1
    assert Trainer(run, tmp_path, device="cpu").step == 1


def test_how_often_is_saved_may_change(tmp_path):
    _run(tmp_path)

    assert _run(tmp_path, "saving.every=5").step == 6


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    trainer = _run(tmp_path)
    before = _newest(tmp_path)
    trainer.step += 1

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "_save", full)
    with pytest.raises(OutputError, match=r"No space left on device; the last good one, 'step-00000006\.pt'") as caught:
        trainer.save()
    assert "\n" not in str(caught.value)
    _assert_equal(before, _newest(tmp_path))
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.suffix != ".pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes")
def test_torch_that_cannot_write_is_a_full_disk(tmp_path):
    code = (
        "import resource, signal, torch, pathlib, sys\n"
        "from VISTA3DCore.training.checkpointing import RunFolder\n"
        "from VISTA3DCore.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "folder = RunFolder(pathlib.Path(sys.argv[1]), 2)\n"
        "folder.states.mkdir()\n"
        "folder.save({'step': 1})\n"
        "try:\n"
        "    folder.save({'step': 2, 'weights': torch.zeros(200000)})\n"
        "except OutputError as error:\n"
        "    print(error, [path.name for path in folder.states.iterdir()])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True, text=True
    )

    assert "the last good one, 'step-00000001.pt', is unharmed" in done.stdout, done
    assert "['step-00000001.pt']" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes")
def test_a_full_disk_is_one_sentence_and_ends_the_curves_alone(tmp_path):
    code = (
        "import resource, signal, sys, warnings, pathlib\n"
        "from VISTA3DCore.cli.console import spoken_warnings\n"
        "from VISTA3DCore.training.curves import Curves\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "with spoken_warnings():\n"
        "    curves = Curves(pathlib.Path(sys.argv[1]), 0)\n"
        "    for step in range(2000):\n"
        "        curves.add(step, {'prompt': 1.0}, [])\n"
        "    curves.close()\n"
        "print('done')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert done.stdout == "done\n"
    assert done.stderr.strip() == "Note: The curves cannot be written any more (File too large)."


def test_a_disk_that_fills_up_in_a_run_is_one_sentence(tmp_path, monkeypatch):
    def full(state: dict, path: Path) -> None:
        raise OSError(28, "No space left on device")

    trainer = Trainer(task(recipe("interactive", *SHORT), [phantom(0)]), tmp_path, device="cpu")
    monkeypatch.setattr(checkpointing, "_save", full)
    with pytest.raises(OutputError) as caught:
        trainer.run()
    assert str(caught.value).count("No space left on device") == 1


def test_a_damaged_state_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path, 3)
    folder.states.mkdir()
    folder.save({"step": 1})
    with replacing(folder.states / "step-00000002.pt") as file:
        file.write_bytes(b"PK\x03\x04 nothing")

    with pytest.warns(UserWarning, match="step-00000002.pt' is damaged"):
        assert folder.load() == {"step": 1}


def test_a_loss_that_is_no_number_stops_with_the_state_before_it(tmp_path):
    broken = phantom(1)
    trainer = Trainer(task(recipe("interactive", *SHORT), [phantom(0), broken]), tmp_path, device="cpu")
    broken.image[:] = float("nan")

    with pytest.raises(TrainingError, match=r"of step \d is not a number \(patch \d+ of 'phantom 1'\)") as caught:
        trainer.run()
    state = _newest(tmp_path)
    assert str(trainer.folder.states) in str(caught.value)
    assert state["step"] == trainer.step
    assert all(torch.isfinite(value).all() for value in state["network"].values())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_loading_processes_end_with_a_killed_run(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TRAINING_CHILD_WORKERS": "2"}
    script = Path(__file__).with_name("training_child.py")
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "saving.every=1", "steps=5000"], env=environment
    )
    try:
        _until(lambda: list((tmp_path / "checkpoints").glob("*.pt")))
        children = [int(one) for one in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    finally:
        run.kill()
        run.wait()

    assert len(children) == 2
    _until(lambda: not any(_runs(one) for one in children))


def _runs(process: int) -> bool:
    """Return whether a process is there and no zombie, which only waits for someone to ask for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(condition: object, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
