"""``vista3d segment``: a CT goes in, named structures come out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from VISTA3DCore.cli import engine
from VISTA3DCore.cli.command import structure_names
from VISTA3DCore.cli.console import print_json, say, show, spoken_warnings
from VISTA3DCore.cli.outputs import Outputs
from VISTA3DCore.cli.reporting import Reporter, duration
from VISTA3DCore.cli.tables import statistics_table

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.statistics import StructureStatistics
    from VISTA3DCore.imaging.geometry import Region
    from VISTA3DCore.imaging.volume import Volume

Corners = tuple[float, float, float, float, float, float]


class Preset(str, Enum):
    """How windows overlap and blend."""

    bundle = "bundle"
    paper = "paper"


class Restoration(str, Enum):
    """How labels come back to the input grid."""

    nearest = "nearest"
    smooth = "smooth"


class Grid(str, Enum):
    """Where the grid on which the network works begins."""

    stored = "stored"
    patient = "patient"


class Format(str, Enum):
    """Kind of output file."""

    seg_nrrd = "seg.nrrd"
    nii_gz = "nii.gz"
    nrrd = "nrrd"
    mha = "mha"
    separate = "separate"


def segment(  # noqa: PLR0913, PLR0917 - each parameter is an option
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE", help="The CT: NIfTI, NRRD, MHA/MHD, or a DICOM series (its folder, or one of its files)."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Result: .seg.nrrd, .nii.gz, .nrrd or .mha; a folder/ for one file each.",
        ),
    ],
    classes: Annotated[
        list[str],
        typer.Option(
            "--classes", "-c", metavar="NAMES", help="Names, synonyms, indices or groups, separated by commas."
        ),
    ] = ["everything"],  # noqa: B006 - typer copies it
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FILE",
            help="Default: vista3d-ct if it was downloaded, else the small 'mini'.",
        ),
    ] = "",
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")] = "auto",
    preset: Annotated[
        Preset, typer.Option(help="bundle: overlap 0.25, as released; paper: overlap 0.625, gaussian, slower.")
    ] = Preset.bundle,
    restoration: Annotated[
        Restoration, typer.Option(help="nearest: as the reference; smooth: surfaces without steps.")
    ] = Restoration.nearest,
    grid: Annotated[
        Grid,
        typer.Option(
            help="stored: the model's grid begins at the first voxel, as in the reference; patient: at a corner of the "
            "patient, so that the order and direction in which voxels are stored change nothing."
        ),
    ] = Grid.stored,
    roi: Annotated[
        Corners | None,
        typer.Option("--roi", metavar="R A S R A S", help="Only this box: minimum and maximum corner in RAS mm."),
    ] = None,
    body_crop: Annotated[
        bool, typer.Option("--body-crop", help="Leave out table and air: faster, labels may differ a little.")
    ] = False,
    localize: Annotated[
        bool,
        typer.Option(
            "--localize", help="Find the structures coarsely, work around them only: faster for a few of them."
        ),
    ] = False,
    cleanup: Annotated[
        bool | None,
        typer.Option(
            "--cleanup/--no-cleanup",
            help="Remove pieces under 2 % of a structure's largest, and structures under 0.1 ml. "
            "Default: only for the model 'mini'.",
        ),
    ] = None,
    format_: Annotated[Format | None, typer.Option("--format", "-f", help="Default: by the suffix of OUT.")] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write volume (ml), mean and SD (HU) and voxels of each structure."),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a picture: three planes with colored structures, and 3D."),
    ] = None,
    engine_: engine.EngineOption = engine.Engine.in_process,
    runtime: engine.RuntimeOption = engine.Runtime.auto,
    precision: engine.PrecisionOption = engine.Precision.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON for programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Segment a CT: find the structures, name them, write them where you want.

    The result lies on the grid of the input, whatever its orientation. An existing result is replaced, in one step at
    the end: an error or Ctrl+C leaves nothing behind.

    Beside a label map, structures that may overlap others get files of their own, such as organs_lung_tumor.nii.gz;
    files that are no part of an earlier result are never replaced.

    **Examples**

    - `vista3d segment ct.nii.gz -o organs.seg.nrrd`
    - `vista3d segment dicom_folder -o liver.nii.gz --classes "liver, spleen, kidney"`
    - `vista3d segment ct.nrrd -o masks/ --classes ribs,vertebrae --statistics bones.csv --preview bones.png`
    - `vista3d segment ct.nii.gz -o kidneys.seg.nrrd -c kidney --roi -120 -80 -50 120 60 150`
    """
    names = structure_names(classes)
    outputs = Outputs.checked(image, output, format_.value if format_ else None, statistics, preview)
    with spoken_warnings() as notes, Reporter(quiet) as reporter:
        wishes = engine.Wishes(
            classes=names,
            model=model or engine.default_model(),
            device=device,
            preset=preset.value,
            restoration=restoration.value,
            roi=_region(roi),
            body_crop=body_crop,
            localize=localize,
            cleanup=cleanup,
            engine=engine_,
            runtime=runtime.value,
            precision=precision.value,
            grid=grid.value,
        )
        structures = wishes.check()
        masks = outputs.masks(structures, [structure.index for structure in structures if structure.overlapping])
        if masks and not quiet:
            say(f"Structures that may overlap others get files of their own: {', '.join(map(str, masks))}")
        result = _run(image, wishes, outputs, reporter, quiet)
    if as_json:
        print_json(result.as_json(image, wishes, notes))
    elif not quiet:
        result.show()


@dataclass(frozen=True, eq=False)
class _Result:
    files: list[Path]
    rows: list[StructureStatistics]
    outcome: engine.Outcome

    def show(self) -> None:
        found = [row for row in self.rows if row.voxels]
        if found:
            show(statistics_table(found))
        took = duration(self.outcome.seconds)
        say(f"Found {len(found)} of the {len(self.rows)} structures looked for, in {took} on {self.outcome.device}.")
        cleanup = self.outcome.segmentation.provenance["cleanup"]
        if cleanup != "no":
            say(f"Removed specks ({cleanup}); --no-cleanup keeps them.")
        for file in self.files:
            say(f"Wrote {file}")

    def as_json(self, image: Path, wishes: engine.Wishes, notes: list[str]) -> dict[str, Any]:
        rows = [{key: value for key, value in asdict(row).items() if key != "dice"} for row in self.rows]
        return {
            "image": str(image),
            "files": [str(file) for file in self.files],
            "model": wishes.model,
            "preset": wishes.preset,
            "restoration": wishes.restoration,
            "device": self.outcome.device,
            "device_reason": self.outcome.device_reason,
            "seconds": round(self.outcome.seconds, 2),
            "provenance": self.outcome.segmentation.provenance,
            "notes": notes,
            "structures": rows,
        }


def _run(image: Path, wishes: engine.Wishes, outputs: Outputs, reporter: Reporter, quiet: bool) -> _Result:
    from VISTA3DCore.evaluation.statistics import measure
    from VISTA3DCore.imaging.volume import Volume

    progress = reporter.progress
    progress.update(0.0, "Reading the image")
    volume = Volume.read(image)
    outcome = engine.run(volume, wishes, progress.part(0.02, 0.95), quiet)
    progress.update(0.95, "Writing the results")
    rows = measure(volume, outcome.segmentation)
    files = _write(volume, outcome, rows, outputs, reporter)
    return _Result(files, rows, outcome)


def _write(
    volume: Volume, outcome: engine.Outcome, rows: list[StructureStatistics], outputs: Outputs, reporter: Reporter
) -> list[Path]:
    from VISTA3DCore.evaluation.statistics import csv_encoder

    more = {}
    if outputs.statistics:
        more[outputs.statistics] = csv_encoder(rows)
    if outputs.preview:
        from VISTA3DCore.cli.preview import preview_encoder

        more[outputs.preview] = preview_encoder(volume, outcome.segmentation, volume.name, surfaces=True)
    return outputs.write(outcome.segmentation, more, reporter.progress)


def _region(corners: Corners | None) -> Region | None:
    if corners is None:
        return None
    from VISTA3DCore.imaging.geometry import Region

    return Region(corners[:3], corners[3:])
