"""What a cleanup removes from reference segmentations, where everything is real, and how long it takes.

The references are label maps whose values are class numbers of ``vista3d-ct``. Each is looked at whole and in parts,
as images that end within the body are: its left half, and slabs of 60 mm. Percent of all reference voxels, structures
that lose more than 1 % of theirs over all cases, and structures of a single case that vanish, with their volume.

    python Testing/Benchmark/cleanup.py cases/*/label_vista3d.nii.gz
    python Testing/Benchmark/cleanup.py --share 0.1 --minimum 0.5 cases/*/label_vista3d.nii.gz
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.geometry import ras_orientation
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic.cleanup import Cleanup, remove_specks

SLAB_MM = 60.0
CT = catalogue()


def main() -> None:
    options = _options()
    cleanup = Cleanup(options.share, options.minimum)
    before, after, vanished = Counter(), Counter(), Counter()
    for path in options.labels:
        volume = Volume.read(path)
        for part, labels in _parts(volume):
            voxel_ml = abs(np.linalg.det(volume.affine[:3, :3])) / 1000
            cleaned = labels.copy(order="K")
            started = time.perf_counter()
            remove_specks(cleaned, {}, CT.structures, volume.affine, cleanup)
            seconds = time.perf_counter() - started
            counts, left = (np.bincount(one.ravel(), minlength=len(CT) + 1)[1:] for one in (labels, cleaned))
            before.update({(part, index): int(count) for index, count in enumerate(counts, start=1)})
            after.update({(part, index): int(count) for index, count in enumerate(left, start=1)})
            vanished.update({(part, round(count * voxel_ml, 2)): 1 for count in counts[(counts > 0) & (left == 0)]})
            if part == "whole":
                print(
                    f"{path.parent.name:24} {labels.shape} {(counts > 0).sum():4d} structures {1000 * seconds:6.0f} ms"
                )
    for part in dict.fromkeys(part for part, _ in before):
        _show(part, before, after, vanished)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+", help="label maps")
    parser.add_argument("--share", type=float, default=Cleanup().share, help="of the largest piece")
    parser.add_argument("--minimum", type=float, default=Cleanup().minimum_ml, help="volume of a structure in ml")
    return parser.parse_args()


def _parts(volume: Volume) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the label map whole and in parts."""
    labels = volume.array.astype(np.uint16)
    yield "whole", labels
    permutation, _ = ras_orientation(volume.affine)
    across, along = permutation[0], permutation[2]
    yield "half", np.moveaxis(np.moveaxis(labels, across, 0)[: labels.shape[across] // 2], 0, across)
    planes = max(int(SLAB_MM / np.linalg.norm(volume.affine[:3, along])), 1)
    for start in range(0, labels.shape[along], planes):
        yield "slabs", np.moveaxis(np.moveaxis(labels, along, 0)[start : start + planes], 0, along)


def _show(part: str, before: Counter, after: Counter, vanished: Counter) -> None:
    totals = {index: count for (one, index), count in before.items() if one == part and count}
    lost = {index: 100 * (1 - after[part, index] / count) for index, count in totals.items()}
    removed = sum(totals.values()) - sum(after[part, index] for index in totals)
    worst = [f"{CT[index].name} {share:.1f} %" for index, share in sorted(lost.items(), key=lambda one: -one[1])[:6]]
    small = sorted(volume for one, volume in vanished.elements() if one == part)
    print(f"\n{part}: {100 * removed / sum(totals.values()):.3f} % of all voxels are removed")
    print(f"  {sum(share > 1 for share in lost.values())} of {len(lost)} structures lose more than 1 %")
    print(f"  most: {', '.join(worst)}")
    print(f"  {len(small)} segmentations vanish" + (f", of {small[0]:g} to {small[-1]:g} ml" if small else ""))


if __name__ == "__main__":
    main()
