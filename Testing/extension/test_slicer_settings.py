"""Settings come back as they were, and nonsense in the store counts as not set; times become honest words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logic_helpers import Heard, MemoryStore

from VISTA3DCore.inference.windows import PRESETS, WindowLayout
from VISTA3DSegmentLib.logic.estimates import OVERLAPS, count_windows, grid_of, in_words, region_grid
from VISTA3DSegmentLib.logic.settings import Rate, Settings

RATE = Rate(250.0, (128, 128, 128), (1.5, 1.5, 1.5))
JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("model", "device", "quality", "worker_python", "favorites/vista3d-ct", "recent/vista3d-ct", "rates")


def test_defaults() -> None:
    settings = Settings(MemoryStore())
    assert (settings.model, settings.device, settings.quality) == ("", "auto", "standard")
    assert settings.worker_python is None
    assert settings.rate("mini", "cpu", "bundle") is None
    assert (settings.favorites("vista3d-ct"), settings.recent("vista3d-ct")) == (frozenset(), ())


def test_what_is_set_comes_back_and_is_told_once() -> None:
    store = MemoryStore()
    settings = Settings(store)
    heard = Heard(settings)
    settings.model = settings.model = "mini"
    settings.device, settings.quality, settings.worker_python = "cuda:1", "best", "/usr/bin/python3"
    assert heard.all("changed") == [("model",), ("device",), ("quality",), ("worker_python",)]
    again = Settings(store)
    assert (again.model, again.device, again.quality) == ("mini", "cuda:1", "best")
    assert again.worker_python == "/usr/bin/python3"
    again.worker_python = None
    assert Settings(store).worker_python is None


def test_cleanup_belongs_to_a_model_and_follows_its_default_until_it_is_chosen() -> None:
    store = MemoryStore({"cleanup/other": "yes"})
    settings = Settings(store)
    assert (settings.cleanup("mini", True), settings.cleanup("mini", False)) == (True, False)
    assert not settings.cleanup("other", False)  # nonsense in the store
    settings.set_cleanup("mini", False)
    assert not Settings(store).cleanup("mini", True)
    assert Settings(store).cleanup("vista3d-ct", True)


def test_the_answer_about_corrected_segments_is_remembered() -> None:
    store = MemoryStore()
    settings = Settings(store)
    assert settings.keep_corrected is None
    heard = Heard(settings)
    for answer in (True, False):
        settings.keep_corrected = answer
        assert Settings(store).keep_corrected is answer
    assert heard.all("changed") == [("keep_corrected",)] * 2
    assert Settings(MemoryStore({"keep_corrected": "yes"})).keep_corrected is None


def test_favorites_and_recent_structures_belong_to_a_label_set() -> None:
    settings = Settings(MemoryStore())
    settings.set_favorite("vista3d-ct", 3, True)
    settings.set_favorite("vista3d-ct", 1, True)
    settings.set_favorite("vista3d-ct", 3, False)
    assert settings.favorites("vista3d-ct") == {1}
    assert settings.favorites("vista3d-ctmr") == frozenset()
    settings.note_recent("vista3d-ct", range(10))
    settings.note_recent("vista3d-ct", (4, 20, 21, 22))
    assert settings.recent("vista3d-ct")[:5] == (4, 20, 21, 22, 0)
    assert len(settings.recent("vista3d-ct")) == 12


def test_rates_are_averaged_and_belong_to_model_device_and_preset() -> None:
    settings = Settings(MemoryStore())
    settings.note_rate("mini", "cpu", "bundle", RATE)
    settings.note_rate("mini", "cpu", "bundle", Rate(350.0, RATE.window, RATE.spacing))
    assert settings.rate("mini", "cpu", "bundle") == Rate(300.0, RATE.window, RATE.spacing)
    assert settings.rate("mini", "cuda", "bundle") is None
    assert settings.rate("mini", "cpu", "paper") is None
    other = Rate(1.0, (48, 48, 48), RATE.spacing)
    settings.note_rate("mini", "cpu", "bundle", other)
    assert settings.rate("mini", "cpu", "bundle") == other


@given(st.dictionaries(st.sampled_from(KEYS), JUNK))
def test_nonsense_in_the_store_counts_as_not_set(values: dict) -> None:
    settings = Settings(MemoryStore(values))
    assert isinstance(settings.model, str)
    assert settings.device
    assert settings.quality in ("standard", "smooth", "best")
    assert all(type(index) is int for index in settings.recent("vista3d-ct"))
    settings.note_rate("mini", "cpu", "bundle", RATE)
    assert settings.rate("mini", "cpu", "bundle") == RATE
    settings.set_favorite("vista3d-ct", 3, True)
    assert 3 in settings.favorites("vista3d-ct")


@pytest.mark.parametrize("value", [None, [], [1], ["x", [1, 2, 3], [1, 2, 3]], [0, [1, 1, 1], [1, 1, 1]], [1, 2, 3]])
def test_damaged_rates_count_as_unknown(value: object) -> None:
    settings = Settings(MemoryStore({"rates": {"mini|cpu|bundle": value}}))
    assert settings.rate("mini", "cpu", "bundle") is None


@given(st.tuples(*[st.integers(1, 400)] * 3), st.sampled_from(sorted(PRESETS)), st.sampled_from([32, 48, 96, 128]))
def test_windows_are_counted_as_the_engine_lays_them(shape: tuple[int, int, int], preset: str, side: int) -> None:
    layout = WindowLayout(shape, (side, side, side), PRESETS[preset])
    assert count_windows(shape, (side,) * 3, preset) == len(layout.windows)


def test_the_presets_are_the_engines() -> None:
    assert {name: preset.overlap for name, preset in PRESETS.items()} == OVERLAPS


def test_a_region_has_context_within_the_volume() -> None:
    assert grid_of((0, 0, 0, 300, 150, 3), (1.5, 1.5, 1.5)) == (200, 100, 2)
    assert region_grid((0, 0, 0, 30, 300, 3), (300, 220, 60), RATE) == (128, 220, 60)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "a few seconds"),
        (21, "about 25 seconds"),
        (54, "about 55 seconds"),
        (70, "about a minute"),
        (540, "about 9 minutes"),
        (9000, "about 2 hours"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
