"""Connected components (26 neighbours) by several libraries, and the refinement that needs them.

Milliseconds, the best of several runs, one thread. Masks: *blobs*, organ-like and smooth; *shell*, the rough difference
of two such masks, which is what a refinement labels; *noise*, blobs with 2 % of all voxels flipped; *bone*, a real CT
above 200 HU, if one is given. cc3d (connected-components-3d, LGPL) is timed if it is installed; nothing depends on it.

    python Testing/Benchmark/components.py                       # about a minute
    python Testing/Benchmark/components.py --ct ct.nii.gz --sides 64 128
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from skimage import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.components import label_components
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.clicks.refinement import refine

BONE_HU = 200
CORNERS = np.ones((3, 3, 3))
SPACING_MM = 0.8
REFINED_SHAPES = ((128, 128, 128), (256, 256, 200))


def main() -> None:
    options = _options()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    libraries = _libraries()
    print(f"{'side':>4} {'mask':6} {'components':>10} {'layout':9}" + "".join(f"{name:>14}" for name in libraries))
    for side in options.sides:
        for name, mask in _masks(side, options.ct).items():
            _, count = label_components(mask)
            for layout, view in _layouts(mask).items():
                times = "".join(f"{_milliseconds(label, view):14.1f}" for label in libraries.values())
                print(f"{side:4d} {name:6} {count:10d} {layout:9}{times}", flush=True)
    print(f"\n{'refine':12} {'clicks':22} {'voxels changed':>14} {'ms':>8}")
    for shape in REFINED_SHAPES:
        _time_refinement(shape)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="*", default=[64, 128, 256], help="sides of the masks in voxels")
    parser.add_argument("--ct", type=Path, help="a CT, for the mask 'bone'")
    return parser.parse_args()


def _libraries() -> dict[str, Callable[[np.ndarray], object]]:
    libraries = {
        "ours": label_components,
        "SimpleITK": _simpleitk,
        "scikit-image": lambda mask: measure.label(mask.view(bool), connectivity=3, return_num=True),
        "scipy": lambda mask: ndimage.label(mask, CORNERS),
    }
    if importlib.util.find_spec("cc3d"):
        import cc3d

        libraries["cc3d"] = lambda mask: cc3d.connected_components(mask, connectivity=26, return_N=True)
    return libraries


def _simpleitk(mask: np.ndarray) -> np.ndarray:
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))


def _layouts(mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"bool C": mask, "bool F": np.asfortranarray(mask), "uint8 C": mask.view(np.uint8)}


def _masks(side: int, ct: Path | None) -> dict[str, np.ndarray]:
    base, interactive = _organs((side,) * 3)
    flipped = np.random.default_rng(1).random(base.shape) < 0.02
    masks = {"blobs": base, "shell": base & ~interactive, "noise": base ^ flipped}
    if ct is not None:
        image = Volume.read(ct).array
        start = [max((size - side) // 2, 0) for size in image.shape]
        masks["bone"] = np.ascontiguousarray(image[tuple(slice(at, at + side) for at in start)] > BONE_HU)
    return masks


def _organs(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of organ-like bodies, and another opinion on where their surfaces are."""
    random = np.random.default_rng(0)
    smooth, rough = (
        ndimage.gaussian_filter(random.standard_normal(shape), sigma, mode="wrap") for sigma in (shape[0] / 10, 2.0)
    )
    smooth, rough = smooth / smooth.std(), rough / rough.std()
    return smooth > 1.0, smooth + 0.15 * rough > 1.1


def _milliseconds(function: Callable[..., object], *arguments: object, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def _time_refinement(shape: tuple[int, int, int]) -> None:
    base, interactive = _organs(shape)
    nothing = np.zeros_like(base)
    added, removed = (_clicks(interactive & ~base, True), _clicks(base & ~interactive, False))
    scenes = {
        "one, adds": (base, interactive, added[:1]),
        "one, removes": (base, interactive, removed[:1]),
        "five and five": (base, interactive, added + removed),
        "one, empty base": (nothing, interactive, _clicks(interactive, True)[:1]),
        "one, touches nothing": (base, interactive, [Click((-500.0, 0.0, 0.0))]),
    }
    for name, scene in scenes.items():
        arguments = (*scene, np.diag([SPACING_MM] * 3 + [1.0]))
        result = refine(*arguments)
        changed = np.count_nonzero(result.added | result.removed)
        print(f"{'x'.join(map(str, shape)):12} {name:22} {changed:14d} {_milliseconds(refine, *arguments):8.1f}")


def _clicks(mask: np.ndarray, positive: bool) -> list[Click]:
    """Return five clicks, the first in the largest component."""
    labels, _ = label_components(mask)
    largest = np.argwhere(labels == 1 + np.argmax(np.bincount(labels[mask])[1:]))
    voxels = np.argwhere(mask)
    places = [largest[len(largest) // 2], *voxels[np.linspace(0, len(voxels) - 1, 4).astype(int)]]
    return [Click(tuple(place * SPACING_MM), positive) for place in places]


if __name__ == "__main__":
    main()
