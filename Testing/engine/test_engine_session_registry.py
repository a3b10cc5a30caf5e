"""Which models and volumes the engine process keeps, and what goes first when memory gets short."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from VISTA3DCore.engine.protocol import Memory, UnknownSessionError
from VISTA3DCore.engine.sessions import SessionRegistry, is_short, memory_of
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

GB = 1 << 30
CPU = torch.device("cpu")


@dataclass(eq=False)
class FakeSession:
    """Stands for an opened volume: its image and its caches take memory until they are freed."""

    image: int = 2 * GB
    caches: int = 3 * GB

    def free_caches(self) -> None:
        self.caches = 0

    def close(self) -> None:
        self.caches = self.image = 0


@dataclass(eq=False)
class FakeSegmenter:
    memory: FakeMemory
    device: torch.device = CPU
    freed: int = 0

    def free_caches(self) -> None:
        self.freed += 1

    def open(self, _volume, _progress, **_options) -> FakeSession:
        self.memory.sessions.append(FakeSession())
        return self.memory.sessions[-1]


@dataclass(eq=False)
class FakeMemory:
    """What the sessions leave of 20 GB; below 2 GB it is short."""

    sessions: list[FakeSession] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def load(self, name: str, *_: object) -> FakeSegmenter:
        self.loaded.append(name)
        return FakeSegmenter(self)

    def measure(self, _device) -> Memory:
        return Memory(20 * GB, 20 * GB - sum(one.image + one.caches for one in self.sessions))


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


@pytest.fixture
def holdings(memory: FakeMemory) -> SessionRegistry:
    return SessionRegistry(memory.load, memory.measure)


def opened(holdings: SessionRegistry, name: str, model: str = "mini"):
    volume = Volume(np.zeros((2, 2, 2), np.int16), np.eye(4), name)
    return holdings.open(volume, holdings.model(model, "cpu", Progress()), Progress())


def test_a_model_is_loaded_once(holdings, memory):
    assert holdings.model("mini", "cpu", Progress()) is holdings.model("mini", "cpu", Progress())
    assert memory.loaded == ["mini"]


def test_a_model_whose_file_has_changed_is_loaded_again(holdings, memory, tmp_path):
    file = tmp_path / "model.safetensors"
    for content in (b"1", b"22"):
        file.write_bytes(content)
        os.utime(file, ns=(len(content), len(content)))
        holdings.model(str(file), "cpu", Progress())
    assert len(memory.loaded) == 2


def test_while_there_is_room_everything_stays(holdings, memory):
    ids = [opened(holdings, name).id for name in "abc"]
    assert holdings.sessions == tuple(ids)
    assert all(session.caches for session in memory.sessions)


def test_caches_of_the_least_recently_used_go_first(holdings, memory):
    a, b, c = (opened(holdings, name) for name in "abc")
    memory.sessions[2].caches += 4 * GB
    holdings.find(a.id)
    holdings.make_room(c.segmenter, c)
    assert [session.caches > 0 for session in memory.sessions] == [True, False, True]
    assert len(holdings.sessions) == 3
    assert b.session.image


def test_then_whole_volumes_go_and_say_so_when_they_are_asked_for(holdings, memory):
    a, b, c = (opened(holdings, name) for name in "abc")
    memory.sessions[2].caches = 13 * GB
    holdings.make_room(c.segmenter, c)
    assert holdings.sessions == (b.id, c.id)
    with pytest.raises(UnknownSessionError, match="'a' was closed because memory ran low; open it again"):
        holdings.find(a.id)


def test_a_volume_that_had_to_go_can_be_closed_once(holdings, memory):
    a, _b, c = (opened(holdings, name) for name in "abc")
    memory.sessions[2].caches = 13 * GB
    holdings.make_room(c.segmenter, c)
    assert a.id not in holdings.sessions
    holdings.close(a.id)
    with pytest.raises(UnknownSessionError, match="not open in the engine"):
        holdings.close(a.id)


def test_the_volume_in_use_and_its_model_stay_whatever_happens(holdings, memory):
    a, b = opened(holdings, "a"), opened(holdings, "b", str(Path(__file__)))
    memory.sessions[1].caches = 100 * GB
    holdings.make_room(b.segmenter, b)
    assert holdings.sessions == (b.id,)
    assert memory.sessions[1].caches
    holdings.model(str(Path(__file__)), "cpu", Progress())
    assert len(memory.loaded) == 2  # the one in use was kept,
    holdings.model("mini", "cpu", Progress())
    assert len(memory.loaded) == 3  # the other one was not
    assert a.session.image == 0


def test_a_closed_volume_is_unknown(holdings):
    a = opened(holdings, "a")
    holdings.close(a.id)
    with pytest.raises(UnknownSessionError, match="not open in the engine"):
        holdings.close(a.id)
    assert holdings.sessions == ()


def test_memory_is_short_on_the_host_or_on_the_device():
    assert not is_short(Memory(16 * GB, 2 * GB))
    assert is_short(Memory(16 * GB, GB))
    assert not is_short(Memory(1000 * GB, 5 * GB))
    assert is_short(Memory(16 * GB, 8 * GB, 10 * GB, GB // 2))
    assert memory_of(None).available <= memory_of(CPU).total


def test_what_torch_keeps_on_the_device_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (3 * GB, 24 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 20 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 16 * GB)
    found = memory_of(torch.device("cuda"))
    assert (found.device_total, found.device_available) == (24 * GB, 7 * GB)
    assert memory_of(torch.device("mps")).device_total is None
