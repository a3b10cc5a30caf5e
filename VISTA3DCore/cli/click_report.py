"""What ``vista3d click`` tells about its result: numbers for programs, sentences for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from VISTA3DCore.cli.console import say
from VISTA3DCore.cli.reporting import duration

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.imaging.clicks import Click
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.inference.clicks.fold import ClickResult


@dataclass(frozen=True, eq=False)
class ClickReport:
    """What clicks changed, in numbers.

    :param box: the changed box as [[i start, i stop], ...]; None where nothing changed.
    """

    structure: Structure
    clicks: list[Click]
    touched: tuple[bool, ...]
    added: int
    removed: int
    millilitres: float
    box: list[list[int]] | None
    encoded: int
    device: str
    provenance: dict[str, str]
    seconds: float
    files: list[Path]

    @classmethod
    def of(
        cls,
        found: ClickResult,
        before: np.ndarray | None,
        segmentation: Segmentation,
        clicks: list[Click],
        device: str,
        seconds: float,
        files: list[Path],
    ) -> ClickReport:
        """Measure a result.

        :param before: the base, bool [i, j, k], or None.
        :param segmentation: what was written, the corrected structure first.
        """
        after = found.mask[found.box]
        before = np.zeros_like(after) if before is None else before[found.box]
        bounds = [[int(axis.start or 0), int(axis.stop or 0)] for axis in found.box]
        voxel_ml = abs(np.linalg.det(segmentation.affine[:3, :3])) / 1000.0
        return cls(
            structure=segmentation.structures[0],
            clicks=clicks,
            touched=tuple(map(bool, found.touched)),
            added=int(np.count_nonzero(after & ~before)),
            removed=int(np.count_nonzero(before & ~after)),
            millilitres=float(np.count_nonzero(found.mask) * voxel_ml),
            box=bounds if all(start < stop for start, stop in bounds) else None,
            encoded=int(found.encoded),
            device=device,
            provenance=segmentation.provenance,
            seconds=seconds,
            files=files,
        )

    def show(self) -> None:
        """Tell a person; also what had no effect."""
        changes = f"{self.added:,} voxels added, {self.removed:,} removed"
        took = f"{duration(self.seconds)} on {self.device}"
        say(f"{self.structure.display_name}: {self.millilitres:.1f} ml, {changes}, in {took}.")
        if self.millilitres and not self.added + self.removed:
            say("Nothing changed: the result equals the base.", "yellow")
        idle = [click for click, touched in zip(self.clicks, self.touched, strict=True) if not touched]
        if idle:
            places = "; ".join(_described(click) for click in idle[:5]) + ("; ..." if len(idle) > 5 else "")
            reason = "because the mask was so already, or the model proposes no change there"
            say(f"Without effect, {reason}: {places}.", "yellow")
        if self.provenance["variant"] == "near":
            say("Each click changed what lies near it; --variant paper changes the whole part that a click touches.")
        for file in self.files:
            say(f"Wrote {file}")

    def as_json(self, image: Path, notes: list[str]) -> dict[str, Any]:
        """Return a summary for programs; positions in RAS mm, box in voxels of the image."""
        clicks = [
            {"position": list(click.position), "positive": click.positive, "touched": touched}
            for click, touched in zip(self.clicks, self.touched, strict=True)
        ]
        return {
            "image": str(image),
            "files": [str(file) for file in self.files],
            "structure": {"index": self.structure.index, "name": self.structure.name},
            "empty": self.millilitres == 0,
            "volume_ml": round(self.millilitres, 4),
            "voxels_added": self.added,
            "voxels_removed": self.removed,
            "voxels_changed": self.added + self.removed,
            "box": self.box,
            "clicks": clicks,
            "windows_encoded": self.encoded,
            "seconds": round(self.seconds, 2),
            "device": self.device,
            "provenance": self.provenance,
            "notes": notes,
        }


def _described(click: Click) -> str:
    place = ", ".join(f"{value:.1f}" for value in click.position)
    return f"{'positive' if click.positive else 'negative'} click at {place}"
