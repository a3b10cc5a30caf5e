"""Clicks beside the reference's way of answering them: time and memory, in one volume with the same weights.

The reference is MONAI's ``point_based_window_inferer`` as the released bundle calls it: for every new click it runs all
clicks again, each with a window of its own. With a base there are two ways: the mask from before is handed over
(``prev_mask``), or a label prompt has the network's automatic branch run, too (``bundle``); either way MONAI's
``connected_components_combine`` follows. What the bundle does around that for every request (reading, resampling,
restoration) is left out, whereas our times are those of ``Session.click``: the result lies on the input grid.

The model grid has the size of one window, so both sides, and both of our window policies, answer from the same window
however many clicks there are. Weights are random (seeded), so only times and memory mean anything; masks of noise that
fill the window are the dearest for all that follows the network. Each side runs in a process of its own. Seconds are
those of the processor, because wall times (also shown) depend on what else the machine does.

    python Testing/Benchmark/clicking.py             # the reference runs N = 1 and 2; the rest is N times one window
    python Testing/Benchmark/clicking.py --whole     # the reference runs everything: an hour on a slow machine
    python Testing/Benchmark/clicking.py --width 16 --window 64
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from beside_reference.measuring import in_own_process, machine, peak_memory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "inference")]

COUNTS = (1, 2, 5, 10)
# The input grid: finer than the model grid, as a clinical CT.
INPUT_SPACING = (0.75, 0.75, 1.0)
MODEL_SPACING = 1.5
PREVIOUS, BUNDLE = "prev_mask", "bundle"
STRUCTURE = "liver"
CACHED_WINDOWS = 4
_REPEATS = 3


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(_measure(options)))
        return
    settings = {name: getattr(options, name) for name in ("width", "window", "threads")}
    results = {}
    for side in ("forward", "reference", "ours"):
        print(f"Running: {side} ...", file=sys.stderr, flush=True)
        measured = COUNTS if options.whole else (1, 2)
        results[side] = in_own_process(__file__, settings | {"side": side, "reference-counts": max(measured)})
    print(_report(options, results))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if not options.no_engine:
        from click_engine import report

        print(f"\n{report(options.threads, repeats=9)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=48, help="feature channels (48)")
    parser.add_argument("--window", type=int, default=128, help="side of the window in voxels (128)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each side (all cores)")
    parser.add_argument("--whole", action="store_true", help="run the reference for every number of clicks")
    parser.add_argument("--no-engine", action="store_true", help="leave out the part that needs no network")
    parser.add_argument("--json", help="also write the measurements to this file")
    parser.add_argument("--side", choices=["forward", "reference", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--reference-counts", type=int, default=max(COUNTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> dict:
    import torch
    from reference_pipeline import seeded_network

    from VISTA3DCore.network.config import ModelConfig

    torch.set_num_threads(options.threads)
    config = ModelConfig(width=options.width, window=(options.window,) * 3)
    network = seeded_network(config)
    run = {"forward": _run_forward, "reference": _run_reference, "ours": _run_ours}[options.side]
    return {**run(network, config, options.reference_counts), "peak": peak_memory(), "load": os.getloadavg()[0]}


def _run_forward(network, config, _) -> dict:
    import torch

    from VISTA3DCore.backends.torch_backend import TorchBackend

    TorchBackend(network, config).click_features(torch.rand(1, 1, *config.window))
    return {}


def _run_reference(network, config, most: int) -> dict:
    """Time the reference for 1, 2, ... clicks, up to ``most``."""
    import torch
    from monai.apps.vista3d.inferer import point_based_window_inferer

    volume, _, on_model = _scene(config)
    image = _session(network, config, volume).model_grid[0]
    inputs, previous = torch.from_numpy(image)[None, None], torch.from_numpy(on_model * 2.0 - 1.0).float()[None, None]
    extras = {"none": {}, PREVIOUS: {"prev_mask": previous}, BUNDLE: {"class_vector": torch.tensor([[1]])}}
    rows = {}
    for kind, extra in extras.items():
        for count in (count for count in COUNTS if count <= most):
            places, positive = _places(config, count)
            arguments = torch.from_numpy(places)[None].float(), torch.tensor([positive]).long()
            with torch.inference_mode():
                rows[f"{kind} {count}"] = _timed(
                    point_based_window_inferer,
                    inputs,
                    config.window,
                    network,
                    *arguments,
                    prompt_class=torch.tensor([[1]]),
                    transpose=True,
                    **extra,
                )
    return {"rows": rows}


def _run_ours(network, config, _) -> dict:
    """Time every row of the table; windows are encoded by the first click alone."""
    volume, base, _ = _scene(config)
    session = _session(network, config, volume)
    rows = {"first 1": _timed(session.click, STRUCTURE, _clicks(config, 1))}
    for kind, mask, shift in (("none", None, 0.1), ("base", base, 0.6)):
        # Each time the clicks lie a little elsewhere, so that no answer is known already.
        shifts = [shift + 0.1 * number for number in range(_REPEATS)]
        for count in COUNTS:
            rows[f"{kind} {count}"] = _median([_nth_click(session, config, count, mask, one) for one in shifts])
        rows[f"undo {kind}"] = _median([_undo(session, config, mask, one + 1) for one in shifts])
    return {"rows": rows, **_memory(session)}


def _nth_click(session, config, count: int, mask: np.ndarray | None, shift: float) -> dict:
    """Ask for the last of some clicks after the others."""
    return _timed(session.click, STRUCTURE, _asking(session, config, count, mask, shift), mask)


def _asking(session, config, count: int, mask: np.ndarray | None, shift: float) -> list:
    """Return clicks, all but the last one answered, whose last one the mask shown does not serve already."""
    clicks = _clicks(config, count, shift)
    shown = session.click(STRUCTURE, clicks[:-1], mask).mask if count > 1 else mask
    if shown is not None:
        voxel = np.rint(np.divide(clicks[-1].position, INPUT_SPACING)).astype(int)
        clicks[-1] = replace(clicks[-1], positive=not shown[tuple(voxel)])
    return clicks


def _undo(session, config, mask: np.ndarray | None, shift: float) -> dict:
    """Ask again without the last click."""
    clicks = _asking(session, config, 2, mask, shift)
    session.click(STRUCTURE, clicks, mask)
    return _timed(session.click, STRUCTURE, clicks[:-1], mask)


def _memory(session) -> dict:
    """Fill the cache of windows beyond its budget; return its bytes, and those of what is kept for the next click."""
    encoder = session._clicking.interaction.encoder
    features = encoder.cache.get((0, 0, 0))
    for number in range(1, 2 * CACHED_WINDOWS):
        encoder.cache.put((number, 0, 0), features.clone())
    sizes = {"window": features.nbytes, "cache": encoder.cache.nbytes, "budget": CACHED_WINDOWS * features.nbytes}
    return {**sizes, "windows": len(encoder.cache)}


def _session(network, config, volume):
    from VISTA3DCore import Segmenter
    from VISTA3DCore.backends.torch_backend import TorchBackend

    window = 2 * config.width * int(np.prod(config.window)) // 8
    return Segmenter(TorchBackend(network, config)).open(volume, click_cache_bytes=CACHED_WINDOWS * window)


def _scene(config) -> tuple:
    """Return a volume that is one window large on the model grid, and a base mask on both grids."""
    from click_backends import texture

    sides = [round(side * MODEL_SPACING / spacing) for side, spacing in zip(config.window, INPUT_SPACING, strict=True)]
    volume = texture(tuple(sides), affine=np.diag([*INPUT_SPACING, 1.0]))
    return volume, _ball(sides), _ball(config.window)


def _ball(shape) -> np.ndarray:
    axes = np.ogrid[tuple(slice(-1, 1, side * 1j) for side in shape)]
    return np.asfortranarray(sum(axis**2 for axis in axes) < 0.4)


def _places(config, count: int, shift: float = 0.0) -> tuple[np.ndarray, list[bool]]:
    """Return places in voxels of the model grid around the window's middle, and polarities."""
    angles = np.arange(count) * 2.4
    offsets = np.stack([np.cos(angles), np.sin(angles), angles / 10], axis=1) * (config.window[0] / 8)
    return config.window[0] / 2 + offsets + shift, [number % 2 == 0 for number in range(count)]


def _clicks(config, count: int, shift: float = 0.0) -> list:
    from VISTA3DCore import Click

    places, positive = _places(config, count, shift)
    return [Click(tuple(MODEL_SPACING * place), one) for place, one in zip(places, positive, strict=True)]


def _timed(function: Callable, *arguments, **options) -> dict:
    started, processor = time.perf_counter(), time.process_time()
    function(*arguments, **options)
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - processor}


def _median(times: list[dict]) -> dict:
    return {key: float(np.median([one[key] for one in times])) for key in times[0]}


def _report(options: argparse.Namespace, results: dict) -> str:
    headings = ("", "ours, s", "wall", "reference, s", "wall", "times faster", "wall")
    rows = [headings, *(_row(results, *row) for row in _rows())]
    table = "\n".join(f"{row[0]:<38}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in rows)
    sizes = f"window and model grid {options.window}^3, width {options.width}"
    loads = ", ".join(f"{side} {result['load']:.1f}" for side, result in results.items())
    note = "~ not measured: N times the one-window time of the same kind\n" if "~" in table else ""
    header = f"{sizes}\n{machine(options.threads)}\nload at the end of: {loads}"
    return f"{header}\n\n{table}\n{note}\n{_memory_report(results)}"


def _rows() -> list[tuple[str, str, str, int]]:
    """Return for each row of the table: its name, our measurement, the reference's kind and its number of clicks."""
    rows = [("first click, window encoded", "first 1", "none", 1)]
    rows += [(f"click {count}, window kept", f"none {count}", "none", count) for count in COUNTS]
    rows += [("undo, 2 to 1", "undo none", "none", 1)]
    for kind, name in ((PREVIOUS, "base"), (BUNDLE, "base, label prompt")):
        rows += [(f"click {count}, {name}", f"base {count}", kind, count) for count in COUNTS]
    return [*rows, ("undo, 2 to 1, base", "undo base", PREVIOUS, 1)]


def _row(results: dict, name: str, measured: str, kind: str, count: int) -> tuple[str, ...]:
    ours, references = results["ours"]["rows"][measured], results["reference"]["rows"]
    sign = "" if f"{kind} {count}" in references else "~"
    one = references[f"{kind} 1"]
    reference = references.get(f"{kind} {count}", {key: count * value for key, value in one.items()})
    times = (
        [f"{ours[key]:.2f}" for key in ("cpu", "seconds")],
        [f"{sign}{reference[key]:.1f}" for key in ("cpu", "seconds")],
    )
    ratios = [f"{sign}{reference[key] / ours[key]:.0f}" for key in ("cpu", "seconds")]
    return (name, *times[0], *times[1], *ratios)


def _memory_report(results: dict) -> str:
    ours, forward = results["ours"], results["forward"]["peak"]
    peaks = ", ".join(f"{side} {results[side]['peak'] / 1e6:.0f} MB" for side in ("ours", "reference"))
    window, held, budget = (ours[name] / 1e6 for name in ("window", "cache", "budget"))
    return (
        f"click cache: {window:.1f} MB a window; after {2 * CACHED_WINDOWS} windows it holds {ours['windows']} = "
        f"{held:.1f} MB, its budget is {budget:.1f} MB\n"
        f"peak memory: {peaks}; a process that encodes one window {forward / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
