"""Clicks beside the reference: the n-th click of a list, with the same random weights on the CPU.

The reference is MONAI's ``point_based_window_inferer`` as the released bundle runs it: it keeps nothing, so the n-th
click costs one window for each click ever made. With a base, it also runs the automatic branch in each of them and
``connected_components_combine``. Ours answers from the window that was encoded for the first click. Weights are random
(seeded), so only times mean anything. Both sides use one window around each click (policy ``centred``); all clicks lie
in one voxel, so that every one of them has the same window. Policy ``reuse`` shares windows between clicks that lie
apart, but random masks, which touch every side, would make it ask all neighbours.

The reference's time for N > 2 is N times that of its window for N = 1, unless ``--whole`` is given: it does the same
work N times.

    python Testing/benchmarks/clicking.py             # the released model's size: about ten minutes
    python Testing/benchmarks/clicking.py --width 16 --window 64
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from monai.apps.vista3d.inferer import point_based_window_inferer  # noqa: E402

from VISTA3DCore import Click, Segmenter, Session, Volume  # noqa: E402
from VISTA3DCore.imaging.clicks import positions_of  # noqa: E402
from VISTA3DCore.inference.interactive import ClickResult  # noqa: E402
from VISTA3DCore.network.architecture import build_network  # noqa: E402
from VISTA3DCore.network.config import ModelConfig  # noqa: E402

COUNTS = (1, 2, 5, 10)
CLASS = 1


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = ModelConfig(width=options.width, window=(options.window,) * 3)
    network = build_network(config)
    volume = _volume(options.window + 32)
    clicks = _clicks(volume, max(COUNTS))
    reference = _reference(network, volume, clicks, options)
    with Segmenter.from_network(network, config).open(volume) as session:
        print(_report(options, _ours(session, clicks), reference))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=48, help="feature channels (48)")
    parser.add_argument("--window", type=int, default=128, help="side of the window in voxels (128)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each side (all cores)")
    parser.add_argument("--whole", action="store_true", help="run the reference for every N")
    return parser.parse_args()


def _volume(size: int) -> Volume:
    """Noise with a ball in it; a model grid of its own, so that resampling plays no part."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij")) - size / 2
    ball = np.sqrt((grid**2).sum(0)) < size / 4
    return Volume((rng.normal(0, 100, ball.shape) + 150 * ball).astype(np.int16), np.diag([1.5, 1.5, 1.5, 1.0]))


def _clicks(volume: Volume, count: int) -> list[Click]:
    """Positive clicks in the middle voxel, each at another place of it."""
    middle = np.array(volume.shape) // 2
    return [
        Click(tuple(1.5 * (middle + offset))) for offset in np.random.default_rng(1).uniform(0.05, 0.35, (count, 3))
    ]


def _seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of an action."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - processor


def _reference(
    network: torch.nn.Module, volume: Volume, clicks: list[Click], options: argparse.Namespace
) -> dict[tuple[int, bool], tuple[float, float]]:
    """Return the reference's seconds per (number of clicks, with the automatic result)."""
    image = torch.from_numpy(np.clip((volume.array + 963.8) / 2017.5, 0, 1).astype(np.float32))[None, None]
    times = {}
    for with_base in (False, True):
        for count in COUNTS:
            if count > 2 and not options.whole:
                times[count, with_base] = tuple(count * seconds for seconds in times[1, with_base])
                continue
            asked = clicks[:count]
            places = torch.from_numpy(positions_of(asked) / 1.5)[None].float()
            labels = torch.tensor([[int(click.positive) for click in asked]])
            times[count, with_base] = _seconds(
                lambda places=places, labels=labels, base=with_base: _ask_reference(
                    network, image, options.window, places, labels, base
                )
            )
    return times


@torch.inference_mode()
def _ask_reference(
    network: torch.nn.Module, image: torch.Tensor, window: int, places: torch.Tensor, labels: torch.Tensor, base: bool
) -> None:
    wanted = torch.tensor([CLASS])
    point_based_window_inferer(
        image,
        (window,) * 3,
        network,
        point_coords=places,
        point_labels=labels,
        class_vector=wanted if base else None,
        prompt_class=wanted,
        transpose=True,
    )


def _ours(session: Session, clicks: list[Click]) -> dict[tuple[int, bool] | str, tuple[float, float]]:
    """Return our seconds per (number of clicks, with a base), of the first click of all, and of an undo."""
    result = {}
    times = {"first": _seconds(lambda: result.update(first=_ask(session, clicks[:1])))}
    base = result["first"].mask
    for with_base in (False, True):
        for count in COUNTS:
            runs = []
            for repeat in range(3):
                # Another last click each time: an answer that was given before is remembered.
                moved = Click(tuple(np.add(clicks[count - 1].position, 0.01 * (1 + repeat + 3 * with_base))))
                asked = [*clicks[: count - 1], moved]
                given = base if with_base else None
                runs.append(_seconds(lambda asked=asked, given=given: _ask(session, asked, given)))
            times[count, with_base] = statistics.median(runs)
    _ask(session, clicks[:4], base)
    _ask(session, clicks[:5], base)
    times["undo"] = _seconds(lambda: _ask(session, clicks[:4], base))
    cache = session._clicking.interaction.encoder.cache
    times["cache"] = (cache.nbytes / 1e6, len(cache))
    return times


def _ask(session: Session, clicks: list[Click], base: np.ndarray | None = None) -> ClickResult:
    return session.click(CLASS, clicks, base, policy="centred")


def _report(options: argparse.Namespace, ours: dict, reference: dict) -> str:
    rows = [
        f"Clicks, width {options.width}, windows of {options.window}^3, {options.threads} thread(s)",
        "seconds (processor seconds)",
        f"{'':34}{'reference':>20}{'ours':>20}{'times faster':>14}",
        _row("first click of all", reference[1, False], ours["first"]),
    ]
    for with_base in (False, True):
        for count in COUNTS:
            what = f"click {count}, window kept" + (", with a base" if with_base else "")
            estimated = "" if options.whole or count <= 2 else " *"
            rows.append(_row(what + estimated, reference[count, with_base], ours[count, with_base]))
    rows.append(f"{'undo':34}{'':>20}{ours['undo'][0]:>12.3f}")
    rows.append(f"click cache: {ours['cache'][0]:.0f} MB in {ours['cache'][1]} window(s)")
    if not options.whole:
        rows.append("* reference: N times its measured time for one click")
    return "\n".join(rows)


def _row(what: str, reference: tuple[float, float], ours: tuple[float, float]) -> str:
    times = "".join(f"{wall:>11.2f} ({processor:.2f})" for wall, processor in (reference, ours))
    return f"{what:34}{times}{reference[0] / ours[0]:>12.1f}"


if __name__ == "__main__":
    main()
