"""Automatic segmentation beside the reference pipeline: time and peak memory, on one volume with the same weights.

The reference is the released bundle's chain of MONAI transforms around MONAI's sliding window over 117 class logits, in
float32 and inference mode, with as many threads as ours. Weights are random (seeded), so only the labels' agreement,
times and memory mean anything. Every side runs in a process of its own; memory is the process's peak (Linux). What both
need, the peak of a process that runs a single window's forward pass, is subtracted before memories are compared.

The reference computes class scores inside its network, window by window; ours are a stage of their own. Post-processing
is what follows the scores on both sides: labels, and restoration to the input grid.

    python Testing/benchmarks/automatic.py             # 160^3 voxels, the released model's size: 10-20 minutes
    python Testing/benchmarks/automatic.py --width 16 --window 64 --size 80
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from measuring import in_own_process, machine, peak_memory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "inference")]

SIDES = {"reference": "reference", "streaming": "ours, streaming", "retained": "ours, retained"}
# The input grid: finer in plane and coarser across, as a clinical CT, and 160^3 voxels after resampling to 1.5 mm.
INPUT_SPACING = (0.9375, 0.9375, 2.0)
MODEL_SPACING = 1.5


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(_measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        _write_phantom(options)
        forward = _in_own_process("forward", options)
        results = {side: _in_own_process(side, options) for side in ("reference", *options.lives)}
        agreement = {life: _agreement(folder, life) for life in options.lives}
    for result in results.values():
        result["above"] = result["peak"] - forward["peak"]
    print(_report(options, forward, results, agreement))
    if options.json:
        Path(options.json).write_text(json.dumps({"forward": forward, **results}, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=48, help="feature channels (48)")
    parser.add_argument("--window", type=int, default=128, help="side of the window in voxels (128)")
    parser.add_argument("--size", type=int, default=160, help="side of the volume at model spacing in voxels (160)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each side (all cores)")
    parser.add_argument("--lives", nargs="*", choices=["streaming", "retained"], default=["streaming"])
    parser.add_argument("--json", help="also write the measurements to this file")
    parser.add_argument("--side", choices=["forward", *SIDES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _write_phantom(options: argparse.Namespace) -> None:
    import numpy as np
    from reference_chain import ct_phantom, save_nifti

    shape = tuple(round(options.size * MODEL_SPACING / spacing) for spacing in INPUT_SPACING)
    affine = np.diag([*INPUT_SPACING, 1.0])
    image = ct_phantom(shape, affine)
    # Something bright in two corners keeps the foreground crop from shrinking the volume.
    image[:2, :2, :2] = image[-2:, -2:, -2:] = 100
    save_nifti(Path(options.folder) / "ct.nii.gz", image, affine)


def _in_own_process(side: str, options: argparse.Namespace) -> dict:
    print(f"Running: {SIDES.get(side, 'one forward pass')} ...", file=sys.stderr, flush=True)
    settings = ("width", "window", "size", "threads", "folder")
    return in_own_process(__file__, {name: getattr(options, name) for name in settings} | {"side": side})


def _measure(options: argparse.Namespace) -> dict:
    import torch
    from reference_pipeline import seeded_network

    from VISTA3DCore.network.config import ModelConfig

    torch.set_num_threads(options.threads)
    config = ModelConfig(width=options.width, window=(options.window,) * 3)
    network = seeded_network(config)
    stages: dict[str, float] = defaultdict(float)
    started = time.perf_counter()
    if options.side == "forward":
        _run_forward(network, config)
    elif options.side == "reference":
        _run_reference(options, network, config, stages)
    else:
        _run_ours(options, network, config, stages)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu": time.process_time(), "stages": dict(stages), "peak": peak_memory()}


def _run_forward(network, config) -> None:
    import torch

    from VISTA3DCore.network.backends.torch_backend import TorchBackend

    TorchBackend(network, config).automatic_features(torch.rand(1, 1, *config.window))


def _run_reference(options: argparse.Namespace, network, config, stages: dict[str, float]) -> None:
    import numpy as np
    import torch
    from reference_chain import postprocessing, preprocessing
    from reference_pipeline import Reference

    from VISTA3DCore.anatomy.catalogue import catalogue

    classes = [structure.index for structure in catalogue().everything]
    with torch.inference_mode():
        transforms = preprocessing(config)
        data = _timed(stages, "preprocessing", transforms, {"image": f"{options.folder}/ct.nii.gz"})
        image = data["image"]
        inferer = Reference(network, config)
        logits = _timed(stages, "network", inferer.logits, image[0].numpy().astype(np.float32), classes, "bundle")
        data["pred"] = type(image)(logits[0], meta=image.meta)
        data["label_prompt"] = torch.tensor(classes)
        del logits
        argmax, invert = postprocessing(transforms).transforms
        data = _timed(stages, "labels", argmax, data)
        data = _timed(stages, "restoration", invert, data)
    np.save(f"{options.folder}/reference.npy", data["pred"][0].numpy().astype(np.uint16))


def _run_ours(options: argparse.Namespace, network, config, stages: dict[str, float]) -> None:
    import numpy as np

    from VISTA3DCore import Segmenter, Volume
    from VISTA3DCore.inference.automatic import ClassScores, LabelMap
    from VISTA3DCore.inference.feature_map import FeaturePass
    from VISTA3DCore.inference.restoration import NearestRestorer

    _time_method(stages, "network", FeaturePass, "_add")
    _time_method(stages, "class scores", ClassScores, "score")
    _time_method(stages, "labels", LabelMap, "take")
    _time_method(stages, "restoration", NearestRestorer, "result")
    segmenter = Segmenter.from_network(network, config)
    session = _timed(stages, "preprocessing", lambda: segmenter.open(Volume.read(f"{options.folder}/ct.nii.gz")))
    labels = session.segment("everything", streaming=options.side == "streaming").labels
    stages["labels"] -= stages["class scores"]
    np.save(f"{options.folder}/{options.side}.npy", labels)


def _timed(stages: dict[str, float], stage: str, function, *arguments):
    started = time.perf_counter()
    result = function(*arguments)
    stages[stage] += time.perf_counter() - started
    return result


def _time_method(stages: dict[str, float], stage: str, owner: type, name: str) -> None:
    method = getattr(owner, name)
    setattr(owner, name, lambda *arguments: _timed(stages, stage, method, *arguments))


def _agreement(folder: str, life: str) -> float:
    import numpy as np

    return float(np.mean(np.load(f"{folder}/reference.npy") == np.load(f"{folder}/{life}.npy")))


def _post(result: dict) -> float:
    return result["stages"]["labels"] + result["stages"]["restoration"]


def _report(options: argparse.Namespace, forward: dict, results: dict[str, dict], agreement: dict[str, float]) -> str:
    reference, ours = results["reference"], [results[life] for life in options.lives]
    rows = [["", *(SIDES[side] for side in results)]]
    for stage in ("preprocessing", "network", "class scores", "labels", "restoration"):
        seconds = [result["stages"].get(stage) for result in results.values()]
        rows.append([f"{stage}, s", *("in network" if value is None else f"{value:.2f}" for value in seconds)])
    rows += [
        ["everything, s", *(f"{result['seconds']:.1f}" for result in results.values())],
        ["processor time, s", *(f"{result['cpu']:.1f}" for result in results.values())],
        ["peak memory, MB", *(f"{result['peak'] / 1e6:.0f}" for result in results.values())],
        ["above one forward pass, MB", *(f"{result['above'] / 1e6:.0f}" for result in results.values())],
        ["time, ours / reference", "", *(f"{one['seconds'] / reference['seconds']:.2f}" for one in ours)],
        ["memory above, ours / reference", "", *(f"{one['above'] / reference['above']:.2f}" for one in ours)],
        ["post-processing, times faster", "", *(f"{_post(reference) / _post(one):.1f}" for one in ours)],
        ["labels that agree, %", "", *(f"{100 * agreement[life]:.3f}" for life in options.lives)],
    ]
    table = [f"{row[0]:<32}" + "".join(f"{cell:>18}" for cell in row[1:]) for row in rows]
    return "\n".join([_header(options, forward), *table])


def _header(options: argparse.Namespace, forward: dict) -> str:
    sizes = f"window {options.window}^3, width {options.width}, 117 classes"
    return (
        f"{options.size}^3 voxels of {MODEL_SPACING} mm, {sizes}\n{machine(options.threads)}\n"
        f"one window's forward pass: {forward['seconds']:.1f} s, {forward['peak'] / 1e6:.0f} MB\n"
    )


if __name__ == "__main__":
    main()
