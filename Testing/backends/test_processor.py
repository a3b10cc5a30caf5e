"""How many threads compute: as many as torch would use, but no more than the system lets this process use."""

from __future__ import annotations

import os

import pytest
import torch

from VISTA3DCore.backends import processor
from VISTA3DCore.backends.processor import is_bound_by_products, limit_threads, thread_count


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def many_processors(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4),
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, 4),
    ],
)
def test_a_container_s_share_limits_the_threads(tmp_path, four_threads, many_processors, files, expected):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n", encoding="ascii")

    assert thread_count(tmp_path) == expected


def test_a_service_s_share_and_that_of_its_slice_limit_the_threads(tmp_path, four_threads, many_processors):
    service = tmp_path / "groups" / "system.slice" / "engine.service"
    service.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/other\n0::/system.slice/engine.service\n", encoding="ascii")
    (service / "cpu.max").write_text("300000 100000\n", encoding="ascii")
    assert thread_count(tmp_path / "groups", own) == 3
    (service.parent / "cpu.max").write_text("200000 100000\n", encoding="ascii")
    assert thread_count(tmp_path / "groups", own) == 2


@pytest.mark.parametrize(
    ("instructions", "threads", "expected"),
    [("AVX512", 4, True), ("AVX512", 5, False), ("AVX2", 8, True), ("AVX2", 9, False), ("DEFAULT", 1, False)],
)
def test_products_limit_few_threads_and_memory_many(monkeypatch, instructions, threads, expected):
    monkeypatch.setattr(processor, "thread_count", lambda: threads)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)

    assert is_bound_by_products() is expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to processors")
def test_a_process_bound_to_one_processor_uses_one_thread(tmp_path, four_threads):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert thread_count(tmp_path) == 1
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
