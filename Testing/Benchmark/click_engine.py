"""What a click costs outside the network: windows, growth, restoration to the input grid, Algorithm 1.

The network is a stand-in whose scores look like those of a trained one on a phantom (structured weights), and whose own
time is subtracted. The volume has 512 x 512 x 300 voxels of 0.78 x 0.78 x 1 mm. Medians of repeated cached clicks.

    python Testing/Benchmark/click_engine.py                 # a minute
    python Testing/Benchmark/click_engine.py --profile       # where the time goes
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from click_phantom import CORE, CORE_AT, LARGE, LARGE_AT, StructuredBackend, mask_of, phantom

from VISTA3DCore import Segmenter, Session
from VISTA3DCore.imaging.clicks import Click

COUNTS = (1, 5, 10)
BESIDE_CORE = CORE_AT + np.array([28.0, 0.0, 0.0])
HEADINGS = ("outside the network, ms", "N", "click", "processor", "with mask", "changed box", "voxels")


@dataclass(frozen=True)
class Case:
    """A list of clicks and the mask from before them."""

    name: str
    clicks: tuple[Click, ...]
    base: np.ndarray | None = None
    answer: str = "bright"
    policy: str = "reuse"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (all cores)")
    parser.add_argument("--repeats", type=int, default=9, help="clicks of each kind (9)")
    parser.add_argument("--profile", action="store_true", help="show the slowest functions of each case instead")
    options = parser.parse_args()
    print(report(options.threads, options.repeats, options.profile))


def report(threads: int, repeats: int, profile: bool = False) -> str:
    """Return the table, or the profiles."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    backend = StructuredBackend()
    with Segmenter(backend).open(phantom()) as session:
        if profile:
            return "\n".join(_profiled(session, backend, case) for case in cases())
        rows = [HEADINGS, *(_row(session, backend, case, repeats) for case in cases())]
    load = f"512 x 512 x 300 voxels, {threads} threads, load {os.getloadavg()[0]:.1f}"
    return "\n".join([load, *(f"{row[0]:<36}{row[1]:>4}" + "".join(f"{cell:>17}" for cell in row[2:]) for row in rows)])


def cases() -> Iterator[Case]:
    """Yield what is measured; in each case, one click adds or removes an object of about 128^3 voxels."""
    mistake, half = mask_of(CORE_AT, LARGE), mask_of(LARGE_AT, LARGE)
    half[:, :, int(LARGE_AT[2]) - 20 :] = False
    base = half | mistake
    for count in COUNTS:
        yield Case("nothing, positive", _around(LARGE_AT, count, True))
        yield Case("base, positive", _around(LARGE_AT, count, True), base)
        yield Case("base, negative", _around(BESIDE_CORE, count, False), base)
        positive = _around(CORE_AT, count // 2, True)
        yield Case("base, both", positive + _around(BESIDE_CORE, count - len(positive), False), base)
    everything = np.ones_like(base)
    yield Case("large base, small mistake removed", _around(CORE_AT, 1, False), everything, answer="dark")
    yield Case("large base, small part added", _around(CORE_AT, 1, True), ~mask_of(CORE_AT, CORE))
    window = _around(LARGE_AT + 1, 1, True)
    yield Case("nothing, fills the window", window, answer="all", policy="centred")
    yield Case("base, fills the window", window, base, answer="all", policy="centred")
    yield Case("nothing, fills 9 windows", window, answer="all")


def _around(centre: np.ndarray, count: int, positive: bool) -> tuple[Click, ...]:
    """Return clicks 8 mm from a centre."""
    angles = 2 * np.pi * np.arange(count) / max(count, 1)
    places = centre + 8 * np.stack([np.zeros(count), np.cos(angles), np.sin(angles)], axis=1)
    return tuple(Click(tuple(place), positive) for place in places)


def _row(session: Session, backend: StructuredBackend, case: Case, repeats: int) -> tuple[str, ...]:
    _click(session, backend, case)
    results = [_click(session, backend, case) for _ in range(repeats)]
    click, processor, mask = (
        1000 * statistics.median(times) for times in np.transpose([times for times, _ in results])
    )
    result = results[0][1]
    assert any(result.touched), case.name
    box = " x ".join(str(part.stop - part.start) for part in result.box)
    changed = int(np.count_nonzero(result.mask != (False if case.base is None else case.base)))
    return case.name, str(len(case.clicks)), f"{click:.0f}", f"{processor:.0f}", f"{mask:.0f}", box, str(changed)


def _click(session: Session, backend: StructuredBackend, case: Case):
    """Return seconds of a click, of the processor, and until the mask is there; and the result."""
    backend.answer, backend.seconds, backend.processor = case.answer, 0.0, 0.0
    session._clicking.interaction.history.clear()  # else the answer would be known
    started, processor = time.perf_counter(), time.process_time()
    result = session.click("liver", case.clicks, case.base, policy=case.policy)
    seconds = time.perf_counter() - started - backend.seconds
    processor = time.process_time() - processor - backend.processor
    started = time.perf_counter()
    _ = result.mask
    return (seconds, processor, seconds + time.perf_counter() - started), result


def _profiled(session: Session, backend: StructuredBackend, case: Case) -> str:
    _click(session, backend, case)
    with cProfile.Profile() as profile:
        for _ in range(3):
            _click(session, backend, case)
    print(f"--- {case.name}, {len(case.clicks)} clicks, 3 times")
    pstats.Stats(profile).sort_stats("tottime").print_stats(14)
    return ""


if __name__ == "__main__":
    main()
