"""Which runtime a model gets: as asked for, the best one, or PyTorch with a sentence that says why."""

from __future__ import annotations

import warnings

import pytest
import torch
from runtime_cases import SMALL, network_of, patch_of

from VISTA3DCore import Segmenter
from VISTA3DCore.backends import selection
from VISTA3DCore.backends.selection import PRECISIONS, RUNTIMES, RuntimeUnavailableError, choose_backend
from VISTA3DCore.cli.engine import Precision, Runtime
from VISTA3DCore.errors import InputError, SlowerWarning

NETWORK = network_of()


@pytest.fixture(autouse=True)
def _nothing_is_chosen_by_the_environment(monkeypatch):
    monkeypatch.delenv("VISTA3D_RUNTIME", raising=False)


def test_the_command_line_offers_the_names_that_exist():
    assert tuple(one.value for one in Runtime) == RUNTIMES
    assert tuple(one.value for one in Precision) == PRECISIONS


@pytest.mark.parametrize(("option", "name"), [("runtime", "tensorrt"), ("precision", "int8")])
def test_unknown_names_are_refused_with_those_that_exist(option, name):
    with pytest.raises(InputError, match=f"no {option} '{name}'; use one of: auto"):
        choose_backend(NETWORK, SMALL, **{option: name})


def test_the_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setenv("VISTA3D_RUNTIME", "torch")
    assert choose_backend(NETWORK, SMALL)[0].runtime == "torch"
    monkeypatch.setenv("VISTA3D_RUNTIME", "tensorrt")
    with pytest.raises(InputError, match="no runtime 'tensorrt'"):
        choose_backend(NETWORK, SMALL)


def test_torch_by_name_is_torch_in_float32_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend, reason = choose_backend(NETWORK, SMALL, runtime="torch")

    assert (backend.runtime, backend.precision, reason) == ("torch", "float32", "as asked for")


@pytest.mark.parametrize("runtime", ["cuda"])
def test_a_runtime_for_another_device_is_replaced_with_a_sentence(runtime):
    with pytest.warns(SlowerWarning, match="PyTorch is used instead"):
        backend, reason = choose_backend(NETWORK, SMALL, "cpu", runtime)

    assert backend.runtime == "torch"
    assert reason.endswith(".")


@pytest.mark.parametrize(
    ("runtime", "expected", "heard"), [("auto", True, 0), ("auto", False, 1), ("openvino", True, 1)]
)
def test_who_did_not_ask_hears_only_of_what_is_broken(monkeypatch, runtime, expected, heard):
    def broken(*_: object):
        raise RuntimeUnavailableError("It does not work.", expected=expected)

    monkeypatch.setitem(selection._STARTERS, "openvino", broken)
    monkeypatch.setitem(selection._AUTOMATIC, "cpu", "openvino")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend, reason = choose_backend(NETWORK, SMALL, "cpu", runtime)

    assert (backend.runtime, reason) == ("torch", "It does not work.")
    assert [str(one.message) for one in caught] == ["It does not work. PyTorch is used instead."] * heard


def test_a_segmenter_tells_what_runs_it_and_results_carry_it():
    segmenter = Segmenter.from_network(NETWORK, SMALL)

    assert (segmenter.runtime, segmenter.precision) == ("torch", "float32")
    assert segmenter.provenance["runtime"] == "torch"
    assert segmenter.provenance["precision"] == "float32"


def test_a_network_can_be_given_as_a_function_that_loads_it():
    patch = patch_of()
    loaded, _ = choose_backend(lambda: NETWORK, SMALL, runtime="torch")

    assert torch.equal(
        loaded.automatic_features(patch),
        choose_backend(NETWORK, SMALL, runtime="torch")[0].automatic_features(patch),
    )
