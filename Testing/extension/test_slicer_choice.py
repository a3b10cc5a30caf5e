"""One model and one device for runs, clicks and scripts; what is chosen stays chosen, also where it is not offered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logic_helpers import Heard, MemoryStore

from VISTA3DCore.models.model_folder import ModelFolder
from VISTA3DCore.models.registry import REGISTRY
from VISTA3DSegmentLib.logic.choice import ChosenModel, installed_models, offered_devices, offered_models
from VISTA3DSegmentLib.logic.settings import Settings

SIZES = {"mini": 16, "vista3d-ct": 872, "vista3d-ctmr": 873}


@pytest.mark.parametrize(
    ("installed", "model"),
    [
        ((), "mini"),
        (("mini",), "mini"),
        (("mini", "vista3d-ct"), "vista3d-ct"),
        (("vista3d-ctmr", "mini"), "mini"),  # the larger one answers no clicks
        (("vista3d-ctmr",), "vista3d-ctmr"),
    ],
)
def test_at_first_runs_and_clicks_take_the_largest_model_that_answers_clicks(
    installed: tuple[str, ...], model: str
) -> None:
    chosen = ChosenModel(Settings(MemoryStore()), lambda: {name: SIZES[name] for name in installed})
    assert chosen.model == chosen.choice().model == model
    assert chosen.choice().label_set.name == REGISTRY[model].label_set


def test_a_model_that_arrives_is_taken_until_one_is_chosen() -> None:
    settings, installed = Settings(MemoryStore()), {"mini": 16}
    chosen = ChosenModel(settings, lambda: installed)
    heard = Heard(chosen)
    installed["vista3d-ct"] = 872
    chosen.refresh()
    assert chosen.model == "vista3d-ct"
    settings.model = "mini"
    chosen.refresh()
    assert chosen.model == chosen.choice().model == "mini"
    settings.device = "cpu"
    settings.quality = "best"
    assert chosen.choice().device == "cpu"
    assert heard.all("changed") == [()] * 3


def test_a_choice_that_is_not_installed_stays_one() -> None:
    settings = Settings(MemoryStore({"model": "/weights/mine.pt", "device": "cuda:1"}))
    chosen = ChosenModel(settings, lambda: {"mini": 16})
    assert (chosen.model, chosen.device) == ("/weights/mine.pt", "cuda:1")


def test_models_on_this_computer_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTA3D_HOME", str(tmp_path))
    assert set(installed_models()) == {"mini"}
    file = ModelFolder(tmp_path, REGISTRY["vista3d-ct"]).target()
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(1000))
    assert installed_models()["vista3d-ct"] == 1000


@pytest.mark.parametrize(
    ("found", "chosen", "devices"),
    [
        ("", "auto", ["auto", "cpu"]),
        ("cpu", "auto", ["auto", "cpu"]),
        ("cuda:0", "auto", ["auto", "cuda", "cpu"]),
        ("mps", "auto", ["auto", "mps", "cpu"]),
        ("cuda:0", "cuda:1", ["auto", "cuda", "cpu", "cuda:1"]),
        ("cpu", "cuda", ["auto", "cpu", "cuda"]),
    ],
)
def test_a_graphics_card_is_offered_where_there_is_one(found: str, chosen: str, devices: list[str]) -> None:
    assert [device for device, _name in offered_devices(found, chosen)] == devices


def test_names_of_devices_tell_them_apart() -> None:
    assert dict(offered_devices("cuda:0", "cuda:1"))["cuda:1"] == "Graphics card 1"
    assert dict(offered_devices("cpu", "cuda"))["cuda"] == "Graphics card (not found)"
    assert dict(offered_devices("", "cuda"))["cuda"] == "Graphics card"  # not known yet


@given(
    st.sampled_from(["", "cpu", "cuda:0", "mps"]), st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps", "cpu:0"])
)
def test_what_is_chosen_is_always_offered_and_all_have_different_names(found: str, chosen: str) -> None:
    devices = offered_devices(found, chosen)
    assert chosen in dict(devices)
    assert len({name for _device, name in devices}) == len(devices)


def test_a_weights_file_that_is_chosen_is_among_the_models() -> None:
    titles = {"mini": "Small", "vista3d-ct": "Large"}
    assert offered_models(titles, "mini") == [("mini", "Small"), ("vista3d-ct", "Large")]
    assert dict(offered_models(titles, "/weights/mine.pt"))["/weights/mine.pt"] == "mine.pt"
