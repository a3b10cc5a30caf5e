"""OpenVINO gives PyTorch's results; where it is missing, broken or wrong, PyTorch gives them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
import warnings
import weakref
from dataclasses import replace

import pytest
import torch
from runtime_cases import SMALL, distance, network_of, patch_of, same_labels

from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.backends.openvino import backend as openvino_backend
from VISTA3DCore.backends.openvino.backend import CompiledBranch, Compiler, OpenVinoBackend
from VISTA3DCore.backends.processor import has_bfloat16
from VISTA3DCore.backends.selection import choose_backend
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.errors import SlowerWarning
from VISTA3DCore.network.click_head import ClickTokens

pytest.importorskip("openvino")

NETWORK, PATCH = network_of(), patch_of()
TORCH = TorchBackend(NETWORK, SMALL)
TOKENS = ClickTokens(((16.0, 16.0, 16.0), (3.0, 20.0, 9.0)), (True, False))
CLASSES = TORCH.class_matrix(range(1, 118))


@pytest.fixture(autouse=True)
def _nothing_is_chosen_by_the_environment(monkeypatch):
    monkeypatch.delenv("VISTA3D_RUNTIME", raising=False)


@pytest.fixture(scope="module")
def backend() -> OpenVinoBackend:
    return OpenVinoBackend(NETWORK, SMALL)


def test_float32_features_and_labels_are_those_of_torch(backend):
    found, expected = backend.automatic_features(PATCH), TORCH.automatic_features(PATCH)

    assert found.shape == expected.shape
    assert distance(found, expected) < 1e-3
    assert same_labels(found, expected, CLASSES) >= 0.999
    assert torch.equal(backend.class_matrix([1, 3]), TORCH.class_matrix([1, 3]))


def test_float32_click_answers_are_those_of_torch(backend):
    found, expected = backend.click_features(PATCH), TORCH.click_features(PATCH)
    scores = backend.click_scores(backend.click_image(found), TOKENS)

    assert distance(found, expected) < 1e-3
    assert distance(scores, TORCH.click_scores(expected, TOKENS)) < 1e-3


def test_an_answer_does_not_depend_on_what_was_asked_before(backend):
    first = backend.automatic_features(PATCH)
    backend.automatic_features(patch_of(seed=1))
    backend.click_features(PATCH)

    assert torch.equal(backend.automatic_features(PATCH), first)


def test_the_model_s_window_may_be_larger_than_the_checked_one_and_no_cube():
    config = replace(SMALL, window=(36, 48, 32))
    backend, patch = OpenVinoBackend(NETWORK, config), patch_of(config)

    assert distance(backend.automatic_features(patch), TORCH.automatic_features(patch)) < 1e-3
    assert distance(backend.click_features(patch), TORCH.click_features(patch)) < 1e-3


@pytest.mark.alone
def test_features_exist_once():
    config = replace(SMALL, window=(64, 64, 128))  # 17 MB, beside which what else is allocated is little
    backend, patch = OpenVinoBackend(NETWORK, config), patch_of(config)
    backend.automatic_features(patch)
    tracemalloc.start()
    try:
        features = backend.automatic_features(patch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert features.nbytes <= peak < 1.5 * features.nbytes


def test_auto_is_openvino_on_a_processor_and_torch_elsewhere():
    chosen, reason = choose_backend(NETWORK, SMALL, "cpu")

    assert (chosen.runtime, chosen.precision, reason) == ("openvino", "float32", "the fastest on 'cpu'")
    assert choose_backend(network_of(), SMALL, "meta")[0].runtime == "torch"


def test_the_weights_of_torch_are_freed_when_they_are_compiled():
    alive = []

    def load():
        network = network_of()
        alive.append(weakref.ref(network.image_encoder))
        return network

    backend = OpenVinoBackend(load, SMALL)
    assert alive[0]() is not None
    backend.automatic_features(PATCH)
    gc.collect()
    assert alive[0]() is None

    assert distance(backend.click_features(PATCH), TORCH.click_features(PATCH)) < 1e-3
    gc.collect()
    assert [one() for one in alive] == [None, None]


def test_a_missing_openvino_is_replaced_and_only_who_asked_for_it_hears_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent, reason = choose_backend(NETWORK, SMALL, "cpu")
    with pytest.warns(SlowerWarning, match="not installed .*PyTorch is used instead"):
        told, _ = choose_backend(NETWORK, SMALL, "cpu", "openvino")

    assert silent.runtime == told.runtime == "torch"
    assert "package openvino" in reason
    assert torch.equal(silent.automatic_features(PATCH), TORCH.automatic_features(PATCH))


@pytest.mark.parametrize("runtime", ["auto", "openvino"])
def test_an_openvino_that_cannot_compile_is_replaced(monkeypatch, runtime):
    def broken(*_: object, **__: object):
        raise RuntimeError("No such primitive.\nat line 1")

    monkeypatch.setattr(Compiler, "compiled", broken)
    with pytest.warns(SlowerWarning) as caught:
        chosen, _ = choose_backend(NETWORK, SMALL, "cpu", runtime)

    assert [str(one.message) for one in caught] == [
        "OpenVINO cannot be used (No such primitive). PyTorch is used instead."
    ]
    assert torch.equal(chosen.automatic_features(PATCH), TORCH.automatic_features(PATCH))


@pytest.mark.parametrize("wrong", [lambda found: 1.01 * found, lambda found: torch.full_like(found, float("nan"))])
def test_an_openvino_that_computes_wrongly_is_replaced(monkeypatch, wrong):
    right = CompiledBranch.__call__
    monkeypatch.setattr(CompiledBranch, "__call__", lambda self, patch: wrong(right(self, patch)))
    with pytest.warns(SlowerWarning, match="differ from PyTorch's by"):
        chosen, _ = choose_backend(NETWORK, SMALL, "cpu")

    assert chosen.runtime == "torch"


def test_a_branch_that_fails_later_is_replaced_alone(monkeypatch):
    chosen = OpenVinoBackend(network_of, SMALL)
    chosen.automatic_features(PATCH)
    right = CompiledBranch.__call__
    monkeypatch.setattr(CompiledBranch, "__call__", lambda self, patch: 2 * right(self, patch))
    with pytest.warns(SlowerWarning, match="PyTorch is used instead"):
        found = chosen.click_features(PATCH)
    monkeypatch.undo()

    assert torch.equal(found, TORCH.click_features(PATCH))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen.click_features(PATCH)
    assert distance(chosen.automatic_features(PATCH), TORCH.automatic_features(PATCH)) < 1e-3


def test_a_branch_that_fails_while_it_computes_is_replaced(monkeypatch):
    chosen = OpenVinoBackend(network_of, SMALL)
    chosen.automatic_features(PATCH)

    def fail(*_):
        raise RuntimeError("Exception from src/inference: a primitive cannot be executed")

    monkeypatch.setattr(CompiledBranch, "__call__", fail)
    with pytest.warns(SlowerWarning, match=r"cannot be executed\)\. PyTorch is used instead") as told:
        found = [chosen.automatic_features(PATCH) for _ in range(2)]

    assert len(told) == 1
    assert torch.equal(found[0], TORCH.automatic_features(PATCH))
    assert torch.equal(found[1], found[0])


@pytest.mark.parametrize("where", ["compiled", "__call__"])
def test_memory_that_runs_out_is_no_fault_of_openvino(monkeypatch, where):
    chosen = OpenVinoBackend(network_of, SMALL)

    def fail(*_, **__):
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr(Compiler if where == "compiled" else CompiledBranch, where, fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError) as error:
            chosen.automatic_features(PATCH)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_that_the_processor_lacks_is_float32_with_a_sentence(monkeypatch, precision):
    monkeypatch.setattr(openvino_backend, "has_bfloat16", lambda: False)
    with pytest.warns(SlowerWarning, match=f"cannot compute in {precision} quickly here; float32 is used instead"):
        chosen, _ = choose_backend(NETWORK, SMALL, "cpu", "openvino", precision)

    assert (chosen.runtime, chosen.precision) == ("openvino", "float32")


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_bfloat16_features_are_those_of_torch_roughly():
    chosen = OpenVinoBackend(NETWORK, SMALL, "bfloat16")

    assert chosen.precision == "bfloat16"
    assert 0 < distance(chosen.automatic_features(PATCH), TORCH.automatic_features(PATCH)) < 0.05
    assert distance(chosen.click_features(PATCH), TORCH.click_features(PATCH)) < 0.05


def test_another_device_means_torch_there_and_the_processor_means_this_one(backend):
    assert backend.on("cpu") is backend
    assert (backend.on("meta").runtime, backend.on("meta").device.type) == ("torch", "meta")
    assert next(NETWORK.parameters()).device.type == "cpu"


@pytest.mark.slow
def test_two_processes_give_the_same_bits():
    code = (
        "import hashlib, sys; sys.path.insert(0, 'Testing/backends');"
        "from runtime_cases import SMALL, network_of, patch_of;"
        "from VISTA3DCore.backends.openvino.backend import OpenVinoBackend;"
        "backend = OpenVinoBackend(network_of(), SMALL);"
        "print(hashlib.sha256(backend.automatic_features(patch_of()).numpy().tobytes()).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)}

    assert len(runs) == 1


_WATCHED = """
import sys
reached = []
sys.addaudithook(lambda event, arguments: reached.append(event) if event.startswith("socket.") else None)
from VISTA3DCore.backends.openvino.backend import Compiler
Compiler()
import openvino
assert openvino.convert_model  # for others in this process, all of OpenVINO is there
print(reached, "openvino_telemetry" in sys.modules)
"""


def test_nothing_is_reported_to_the_manufacturer(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", _WATCHED], capture_output=True, text=True, check=True, env=environment
    )

    assert found.stdout.split("\n")[-2] == "[] False"
    assert not found.stderr
    assert not [one for one in tmp_path.iterdir() if one.name.lower().startswith("intel")]


_SIGNALED = """
import gc, signal
from VISTA3DCore.backends.openvino.backend import Compiler

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("heard"))
first, second = Compiler(), Compiler()
for name in ("first", "second"):
    del globals()[name]
    gc.collect()
signal.raise_signal(signal.SIGTERM)
print(*heard)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="stacks for signals")
def test_signals_are_heard_after_models_have_gone():
    """OpenVINO gives threads a stack for signals; one that is gone ends the process at the next Ctrl+C."""
    found = subprocess.run([sys.executable, "-c", _SIGNALED], capture_output=True, text=True, check=False)

    assert (found.returncode, found.stdout) == (0, "heard\n"), found.stderr
