"""The memory of ``vista3d segment`` on a volume of 183 million voxels: at most input, result and 600 MB.

    python Testing/Benchmark/large_volume.py

Each case runs as the command itself, in a process of its own whose largest resident size the system reports. The model
is a narrow one with random weights on a coarse grid, so that what depends on the volume is measured and not the size of
a network: a larger one, the released model for instance, adds its weights and the sums of one slab of windows. The
result is the label map (2 bytes for each voxel) and the structures that overlap others (a bit each).

Linux and macOS. The exit code is 1 where the promise is broken.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.child_processes import child_environment, python_command
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.writers import encode_nifti
from VISTA3DCore.models.checkpoints import save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig

PROMISE = 600e6
# A process counts what its parent held when it was started, so a small one starts the command.
_MEASURE = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
SHAPE = (512, 512, 700)
SPACING = 0.7
OVERLAPPING = tuple(one.name for one in catalogue() if one.overlapping and one.supported)
#: Structures asked for, and the type of the file.
CASES = {
    "liver, .nii.gz": (("liver",), "result.nii.gz"),
    "everything, .seg.nrrd": (("everything",), "result.seg.nrrd"),
    "everything and overlaps, .seg.nrrd": (("everything", *OVERLAPPING), "result.seg.nrrd"),
    "everything and overlaps, .nii.gz": (("everything", *OVERLAPPING), "result.nii.gz"),
}


def main() -> int:
    """Measure every case; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar="N")
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--model", help="another model, by name or file; it has to know the structures")
    options = parser.parse_args()
    voxels, kept = int(np.prod(options.shape)), True
    print(f"{'x'.join(map(str, options.shape))}, {voxels / 1e6:.1f} million voxels, int16; MB")
    with tempfile.TemporaryDirectory(prefix="vista3d-memory-") as folder:
        image, model = _image(Path(folder), tuple(options.shape)), options.model or _model(Path(folder))
        for case in options.case or CASES:
            classes, name = CASES[case]
            masks = sum(one in OVERLAPPING for one in classes)
            known = voxels * (2 + 2 + -(-masks // 8))
            peak = _peak(image, model, classes, Path(folder) / name)
            kept &= peak <= known + PROMISE
            print(
                f"{case}: peak {peak / 1e6:.0f}, input and result {known / 1e6:.0f}, beyond {(peak - known) / 1e6:.0f}",
                flush=True,
            )
    return 0 if kept else 1


def _image(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Write the painted phantom, every voxel of it several times."""
    factors = [max(1, size // 64) for size in shape]
    small, _ = paint_phantom(tuple(-(-size // factor) for size, factor in zip(shape, factors, strict=True)))
    array = np.rint(small.array).astype(np.int16)
    for axis, factor in enumerate(factors):
        array = array.repeat(factor, axis)
    array = array[tuple(slice(0, size) for size in shape)]
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    path = folder / "large.nii"
    write_files({path: lambda file: encode_nifti(file, array, affine, compressed=False)})
    return path


def _model(folder: Path) -> Path:
    config = ModelConfig(name="narrow", width=8, blocks_down=(1, 1, 1), window=(32, 32, 32), spacing=(12.0, 12.0, 12.0))
    torch.manual_seed(0)
    path = folder / "narrow.safetensors"
    save_checkpoint(path, config, build_network(config).state_dict())
    return path


def _peak(image: Path, model: Path | str, classes: tuple[str, ...], output: Path) -> int:
    """Return the largest resident size of the command, in bytes."""
    options = ("--model", str(model), "--device", "cpu", "--runtime", "torch", "--classes", ",".join(classes))
    command = python_command("VISTA3DCore.cli", "segment", str(image), "-o", str(output), "--quiet", *options)
    done = subprocess.run(
        [sys.executable, "-S", "-c", _MEASURE, *command],
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"The command failed with code {done.returncode}.")
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
