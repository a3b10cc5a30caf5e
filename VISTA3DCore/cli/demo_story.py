"""What the demonstration found: figures for programs, and a table and a few sentences for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from VISTA3DCore.cli.console import out, say, show
from VISTA3DCore.cli.demo_correction import LEAST_ML, TRIED, Correction
from VISTA3DCore.cli.reporting import duration
from VISTA3DCore.cli.tables import number, volume_text

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.evaluation.statistics import StructureStatistics
    from VISTA3DCore.imaging.samples import Sample

#: A structure that the reference does not have is reported from this volume on.
WORTH_REPORTING_ML = 0.2
_TWO_COLUMNS = 116  # characters of a terminal


@dataclass(frozen=True, eq=False)
class Story:
    """The results of one demonstration.

    :param rows: figures of every structure that the model claims.
    :param reference_ml: volume of each structure that the reference has, by index.
    :param unclaimed: structures that the reference has and the model does not claim.
    :param files: what was written, by purpose.
    """

    sample: Sample
    model: str
    device: str
    seconds: float
    rows: Sequence[StructureStatistics]
    reference_ml: dict[int, float]
    unclaimed: Sequence[Structure]
    correction: Correction | None
    files: dict[str, Path]

    @property
    def compared(self) -> list[StructureStatistics]:
        """Claimed structures that the reference has."""
        return [row for row in self.rows if row.index in self.reference_ml]

    @property
    def mean_dice(self) -> float | None:
        return fmean(row.dice or 0.0 for row in self.compared) if self.compared else None

    @property
    def not_in_reference(self) -> list[StructureStatistics]:
        """Structures of a noteworthy volume that the reference does not have."""
        rows = [row for row in self.rows if row.index not in self.reference_ml and row.volume_ml > WORTH_REPORTING_ML]
        return sorted(rows, key=lambda row: -row.volume_ml)

    def as_json(self) -> dict[str, Any]:
        """Return everything that :meth:`show` shows; positions in RAS mm, volumes in ml."""
        return {
            "origin": self.sample.origin,
            "synthetic": self.sample.synthetic,
            "reference": self.sample.reference_origin,
            "model": self.model,
            "device": self.device,
            "seconds": round(self.seconds, 2),
            "files": {purpose: path.name for purpose, path in self.files.items()},
            "structures": [{**asdict(row), "reference_ml": self.reference_ml.get(row.index, 0.0)} for row in self.rows],
            "compared": len(self.compared),
            "mean_dice": self.mean_dice,
            "not_in_reference": [row.structure for row in self.not_in_reference],
            "not_claimed": [structure.name for structure in self.unclaimed],
            "correction": _correction_as_json(self.correction),
        }

    def show(self, folder: Path) -> None:
        """Print a table and sentences."""
        rows = [row for row in self.rows if row.voxels or row.index in self.reference_ml]
        show(_table(rows, self.reference_ml))
        for sentence in self._sentences():
            show(sentence, soft_wrap=True, markup=False)
        say(f"Took {duration(self.seconds)} on {self.device}. Wrote to {folder}: {', '.join(self._names())}")
        say("Next: open the CT and the segmentations in 3D Slicer, or run: vista3d segment YOUR_CT -o organs.seg.nrrd")

    def _names(self) -> list[str]:
        return [path.name for path in self.files.values()]

    def _sentences(self) -> list[str]:
        unseen = " The model was not trained on it." if self.model == "mini" and not self.sample.synthetic else ""
        sentences = [f"{self.sample.origin}{unseen} {self.sample.reference_origin}"]
        if self.mean_dice is not None:
            sentences.append(
                f"Claimed structures in the reference: {len(self.compared)}, mean Dice {self.mean_dice:.2f}."
            )
        extra = [f"{row.display_name} ({volume_text(row.volume_ml)} ml)" for row in self.not_in_reference]
        sentences.append(f"Found but not in the reference (> {WORTH_REPORTING_ML} ml): {_listed(extra)}.")
        names = [structure.display_name for structure in self.unclaimed]
        sentences.append(f"In the reference but not claimed by the model: {_listed(names)}.")
        return sentences + _correction_sentences(self.correction)


def _table(rows: Sequence[StructureStatistics], reference_ml: dict[int, float]) -> Table:
    """Return one table, or two halves side by side where the terminal is wide enough."""
    rows = sorted(rows, key=lambda row: -row.volume_ml)
    if out.width < _TWO_COLUMNS or len(rows) < 12:
        return _part(rows, reference_ml)
    half = -(-len(rows) // 2)
    grid = Table.grid(padding=(0, 4))
    grid.add_row(_part(rows[:half], reference_ml), _part(rows[half:], reference_ml))
    return grid


def _part(rows: Sequence[StructureStatistics], reference_ml: dict[int, float]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("structure", style="bold", no_wrap=True)
    for title in ("volume ml", "mean HU", "Dice"):
        table.add_column(title, justify="right")
    for row in rows:
        volume = volume_text(row.volume_ml) if row.voxels else "-"
        dice = row.dice if row.index in reference_ml else None
        table.add_row(row.display_name, volume, number(row.mean_hu, "{:.0f}"), number(dice, "{:.2f}"))
    return table


def _correction_sentences(correction: Correction | None) -> list[str]:
    if correction is None:
        return []
    name, before, after = correction.structure.display_name, correction.dice[0], correction.dice[-1]
    what = name if correction.structure.voxels else f"{name}, which is not in the automatic result"
    sentences = [f"\nCorrection by clicks: {what}: Dice {before:.2f} -> {after:.2f}."]
    if correction.gain <= 0.0:
        sentences[0] += " The clicks did not help here."
    for count, (click, dice) in enumerate(zip(correction.clicks, correction.dice[1:], strict=True), start=1):
        place = ", ".join(f"{letter} {value:.0f}" for letter, value in zip("RAS", click.position, strict=True))
        sentences.append(f"  {count}. {'adds' if click.positive else 'removes'} at {place} mm: Dice {dice:.2f}")
    others = [f"{other} {first:.2f} -> {last:.2f}" for other, first, last in correction.others]
    sentences.append(
        "Each click is simulated on the largest error. The structure is the one that gains most of the "
        f"{TRIED} claimed ones with the lowest Dice and the {TRIED} largest that are not claimed"
        + (f"; the others: {_listed(others)}." if others else ".")
    )
    return sentences


def _correction_as_json(correction: Correction | None) -> dict[str, Any] | None:
    if correction is None:
        return None
    return {
        "structure": correction.structure.structure,
        "index": correction.structure.index,
        "dice_before": correction.dice[0],
        "dice_after": correction.dice[-1],
        "clicks": [
            {"position": list(click.position), "positive": click.positive, "dice": dice}
            for click, dice in zip(correction.clicks, correction.dice[1:], strict=True)
        ],
        "rule": f"most gain of the {TRIED} claimed structures of at least {LEAST_ML:g} ml with the lowest Dice "
        f"and of the {TRIED} largest that are not claimed",
        "others": [
            {"structure": name, "dice_before": before, "dice_after": after} for name, before, after in correction.others
        ],
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
