"""Encoded windows stay within their budgets, and the least recently used go first."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from VISTA3DCore.inference.clicks.cache import ClickCache

CPU = torch.device("cpu")
SIZE = 1000


def window(number: int) -> tuple[int, int, int]:
    return (number, 0, 0)


def features(value: float = 0.0, count: int = SIZE // 2) -> torch.Tensor:
    return torch.full((count,), value, dtype=torch.float16)


@dataclass(frozen=True)
class Placed:
    """Features that know where they are: stands for memory of a device that this machine lacks."""

    place: str = "accelerator"
    nbytes: int = SIZE

    def to(self, device: object) -> Placed:
        return Placed(device if isinstance(device, str) else device.type, self.nbytes)


def with_device(device_windows: float, host_windows: float) -> ClickCache:
    accelerator = SimpleNamespace(type="accelerator")
    return ClickCache(accelerator, int(device_windows * SIZE), int(host_windows * SIZE))


def places(cache: ClickCache) -> dict[str, list[int]]:
    """Return the windows in each memory, least recently used first; and check that they lie there."""
    for name, type_ in (("device", "accelerator"), ("host", "cpu")):
        assert {kept.place for kept in cache._stores[name].values()} <= {type_}
    return {name: [key[0] for key in store] for name, store in cache._stores.items()}


def test_what_was_kept_comes_back_unchanged():
    cache = ClickCache(CPU, 10 * SIZE, 10 * SIZE)
    cache.put(window(1), features(1.5))
    cache.put(window(2), features(2.5))
    assert torch.equal(cache.get(window(1)), features(1.5))
    assert cache.get(window(3)) is None
    assert len(cache) == 2
    assert window(2) in cache
    assert window(3) not in cache
    assert cache.nbytes == 2 * SIZE


def test_the_least_recently_used_window_goes_first():
    cache = ClickCache(CPU, 0, 3 * SIZE)
    for number in (1, 2, 3):
        cache.put(window(number), features(number))
    cache.get(window(1))
    cache.put(window(4), features(4))
    assert [number for number in range(1, 5) if window(number) in cache] == [1, 3, 4]


def test_putting_a_window_again_replaces_it():
    cache = ClickCache(CPU, 0, 3 * SIZE)
    cache.put(window(1), features(1))
    cache.put(window(1), features(2))
    assert cache.nbytes == SIZE
    assert cache.get(window(1))[0] == 2


def test_what_exceeds_the_budget_alone_is_not_kept():
    cache = ClickCache(CPU, 0, SIZE)
    cache.put(window(1), features(1))
    cache.put(window(2), features(2, count=SIZE))
    assert cache.nbytes <= SIZE
    assert window(2) not in cache


def test_on_the_cpu_the_devices_budget_does_not_count_twice():
    cache = ClickCache(CPU, 100 * SIZE, SIZE)
    for number in range(5):
        cache.put(window(number), features())
    assert cache.nbytes == SIZE


def test_windows_spill_from_the_device_to_the_host_and_are_then_dropped():
    cache = with_device(2, 2)
    for number in range(1, 6):
        cache.put(window(number), Placed())
    assert places(cache) == {"device": [4, 5], "host": [2, 3]}


def test_a_window_that_is_used_again_returns_to_the_device():
    cache = with_device(2, 2)
    for number in range(1, 5):
        cache.put(window(number), Placed())
    assert places(cache) == {"device": [3, 4], "host": [1, 2]}
    cache.get(window(1))
    assert places(cache) == {"device": [4, 1], "host": [2, 3]}


def test_a_window_larger_than_the_device_lives_on_the_host():
    cache = with_device(0.5, 2)
    cache.put(window(1), Placed())
    assert places(cache) == {"device": [], "host": [1]}


def test_leaving_the_device_keeps_what_fits_on_the_host():
    cache = with_device(2, 3)
    for number in range(1, 5):
        cache.put(window(number), Placed())
    cache.leave_device()
    assert places(cache)["device"] == []
    assert places(cache)["host"] == [2, 3, 4]
    cache.put(window(9), Placed())
    cache.get(window(3))
    assert places(cache) == {"device": [], "host": [4, 9, 3]}


def test_clearing_forgets_all():
    cache = with_device(2, 2)
    for number in range(3):
        cache.put(window(number), Placed())
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


@given(
    budgets=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "get", "leave"]), st.integers(0, 7), st.integers(1, 3)),
        min_size=5,
        max_size=30,
    ),
)
def test_budgets_hold_whatever_happens(budgets, steps):
    cache = with_device(*budgets)
    for step, number, size in steps:
        if step == "put":
            cache.put(window(number), Placed(nbytes=size * SIZE))
        elif step == "get":
            found, kept = cache.get(window(number)), window(number) in cache
            assert found is not None or not kept
        else:
            cache.leave_device()
        held = places(cache)
        assert not set(held["device"]) & set(held["host"])
        for name, budget in zip(("device", "host"), budgets, strict=True):
            assert sum(kept.nbytes for kept in cache._stores[name].values()) <= budget * SIZE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_device():
    cache = ClickCache(torch.device("cuda"), 2 * SIZE, 2 * SIZE)
    for number in range(5):
        cache.put(window(number), features(number).cuda())
    assert [cache._stores[name][window(2 + at)].device.type for at, name in ((1, "device"), (0, "host"))] == [
        "cuda",
        "cpu",
    ]
