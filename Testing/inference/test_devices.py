"""Choosing a device, and being told why."""

from __future__ import annotations

import pytest
import torch

from VISTA3DCore.backends.cuda.cudnn import cudnn_problems
from VISTA3DCore.backends.devices import choose_device, free_memory, known_problems
from VISTA3DCore.engine.diagnosis import diagnose_apart
from VISTA3DCore.errors import DeviceError, SlowerWarning


def test_auto_gives_a_device_and_a_reason():
    choice = choose_device("auto")
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choice.device.type == expected
    assert len(choice.reason) > 10


def test_the_cpu_is_always_there():
    assert choose_device("cpu").device == torch.device("cpu")
    assert free_memory(torch.device("cpu")) > 1 << 20


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
def test_a_gpu_that_does_not_work_is_left_alone_and_the_user_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.warns(SlowerWarning, match=r"^The GPU cannot be used \(.*\); the CPU is used instead\.$") as told:
        choice = choose_device("auto")
    assert choice.device == torch.device("cpu")
    assert len(told) == 1
    with pytest.raises(DeviceError, match=r"'cuda' does not work here \(.*\); use 'auto' or 'cpu'\.$"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["cuda:99", "toaster", "xpu"])
def test_a_missing_device_is_one_clear_sentence(name):
    with pytest.raises(DeviceError, match=name) as error:
        choose_device(name)
    assert str(error.value).endswith(".")


def test_known_bad_software_is_named():
    assert "four times slower" in cudnn_problems("2.9.1+cu128", 91002)[0]
    assert any("wrong" in problem for problem in cudnn_problems("2.8.0", 91002))
    assert cudnn_problems("2.9.0", 91500) == []
    assert cudnn_problems("2.13.0", 92100) == []
    assert known_problems() == [] or torch.cuda.is_available()


def test_a_file_of_the_name_in_the_current_folder_does_not_pass_for_pytorch(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise RuntimeError('not PyTorch')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert "error" not in diagnose_apart()["torch"]
