"""Two processes that torchrun started compute what one process with accumulation computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from VISTA3DCore.errors import InputError
from VISTA3DCore.training.processes import Processes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("training_child.py")


def _trained(folder: Path, *launcher: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, str(CHILD), str(folder), "steps=4"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(max((folder / "checkpoints").glob("*.pt")), weights_only=True)


@pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows is built without the rendezvous of torchrun")
def test_two_processes_equal_one_with_accumulation(tmp_path):
    one = _trained(tmp_path / "one")
    two = _trained(tmp_path / "two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

    assert one["step"] == two["step"] == 4
    for name, value in one["network"].items():
        assert torch.allclose(value, two["network"][name], rtol=0, atol=1e-5), name
        assert torch.allclose(one["average"][name], two["average"][name], rtol=0, atol=1e-5), name


def test_a_batch_is_shared_evenly_or_refused():
    processes = Processes("cpu", "fp32")
    assert processes.places(4) == range(0, 4, 1)

    processes.count, processes.rank = 2, 1
    assert list(processes.places(4)) == [1, 3]
    with pytest.raises(InputError, match="batch of 3 cannot be shared by 2 processes; set batch=2"):
        processes.places(3)
