"""``vista3d supervoxels``: a CT cut into pieces that follow anatomy."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli.console import print_json, say, spoken_warnings
from VISTA3DCore.cli.outputs import Outputs, check_extra
from VISTA3DCore.cli.reporting import Reporter, duration
from VISTA3DCore.errors import OutputError

if TYPE_CHECKING:
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.progress import Progress
    from VISTA3DCore.supervoxels.generation import Details, Numbers, Supervoxels


class Generator(str, Enum):
    """What supervoxels are made from."""

    auto = "auto"
    light = "medsam-lite"
    sam = "sam"
    graph = "graph"


class Preset(str, Enum):
    """Numbers of the paper, or of its published code."""

    paper = "paper"
    code = "code"


class SamModel(str, Enum):
    """Sizes of Segment Anything."""

    base = "base"
    large = "large"
    huge = "huge"


class Aspect(str, Enum):
    """Proportions of the slices that the encoder sees."""

    physical = "physical"
    voxel = "voxel"


def supervoxels(  # noqa: PLR0913, PLR0917 - each parameter is an option
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The CT: NIfTI, NRRD, MHA/MHD, or a DICOM series.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT.nii.gz", help="The label map, on the grid of the CT.")
    ],
    generator: Annotated[
        Generator,
        typer.Option(
            "--generator",
            "-g",
            help="auto: the light encoder if its weights are here, else graph. medsam-lite, sam: features of an image "
            "encoder, downloaded once. graph: intensities alone.",
        ),
    ] = Generator.auto,
    preset: Annotated[
        Preset, typer.Option(help="paper: 100 supervoxels; code: 400, as its published code does.")
    ] = Preset.paper,
    segments: Annotated[int | None, typer.Option("--segments", "-n", help="How many, instead of the preset's.")] = None,
    compactness: Annotated[
        float | None, typer.Option(help="Closeness against similarity, instead of the preset's.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="Smoothing of features in mm, instead of the preset's.")] = None,
    slice_distance: Annotated[
        float, typer.Option("--slice-distance", help="mm between encoded slices along each axis; less is slower.")
    ] = 6.0,
    spacing: Annotated[float, typer.Option(help="Voxels of the working grid in mm at least.")] = 2.0,
    aspect: Annotated[
        Aspect, typer.Option(help="physical: slices in true proportions; voxel: as the published code.")
    ] = Aspect.physical,
    sam_model: Annotated[SamModel, typer.Option("--sam-model", help="Which Segment Anything.")] = SamModel.base,
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")] = "auto",
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: three planes with outlines and colours.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write settings, times and peak memory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON for programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Cut a CT into supervoxels: pieces that follow the borders of organs without knowing any.

    VISTA3D learns from them to segment what no data set labels. Features of an image encoder are summed over slices
    along three axes and clustered; air around the body is 0.

    **Examples**

    - `vista3d supervoxels ct.nii.gz -o sv.nii.gz --preview sv.png`
    - `vista3d supervoxels ct.nii.gz -o sv.nii.gz --generator medsam-lite --preset code`
    - `vista3d supervoxels ct.nii.gz -o sv.nii.gz --generator graph -n 200 --report sv.json`
    """
    from VISTA3DCore.supervoxels.generation import PRESETS, Details, Numbers, check_parameters

    outputs = _checked(image, output, preview, report)
    usual = PRESETS[preset.value]
    numbers = Numbers(
        segments=usual["segments"] if segments is None else segments,
        compactness=usual["compactness"] if compactness is None else compactness,
        sigma=usual["sigma"] if sigma is None else sigma,
    )
    details = Details(
        spacing_mm=spacing,
        slice_mm=slice_distance,
        physical_aspect=aspect is Aspect.physical,
        device=device,
        sam_model=sam_model.value,
    )
    check_parameters(generator.value, details=details, **numbers)
    with spoken_warnings(), Reporter(quiet) as reporter:
        volume, made = _run(image, generator.value, numbers, details, reporter.progress)
        files = _write(outputs, report, volume, made, reporter.progress)
    if as_json:
        print_json(made.report)
    elif not quiet:
        _show(made, files)


def _checked(image: Path, output: str, preview: Path | None, report: Path | None) -> Outputs:
    if not output.lower().endswith((".nii", ".nii.gz")):
        raise OutputError(f"'{output}' does not end with .nii.gz or .nii; supervoxels can be written as NIfTI only.")
    outputs = Outputs.checked(image, output, None, None, preview)
    if report is not None:
        check_extra(report, "the report", ".json")
        if report.resolve() == image.resolve():
            raise OutputError(f"'{image}' is the input and would be overwritten; choose another name for the report.")
    return outputs


def _run(
    image: Path, generator: str, numbers: Numbers, details: Details, progress: Progress
) -> tuple[Volume, Supervoxels]:
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.supervoxels.generation import compute_supervoxels

    progress.update(0.0, "Reading the image")
    volume = Volume.read(image)
    return volume, compute_supervoxels(
        volume, generator, progress=progress.part(0.02, 0.97), details=details, **numbers
    )


def _write(outputs: Outputs, report: Path | None, volume: Volume, made: Supervoxels, progress: Progress) -> list[Path]:
    from VISTA3DCore.imaging.output import write_files
    from VISTA3DCore.imaging.writers import encode_nifti, label_dtype

    path = outputs.segmentation
    labels, about = made.labels.astype(label_dtype(made.count)), f"{made.count} supervoxels, {made.generator}"
    files = {path: lambda file: encode_nifti(file, labels, made.affine, path.suffix.lower() == ".gz", about)}
    pictures = {}
    if outputs.preview is not None:
        from VISTA3DCore.cli.supervoxel_preview import supervoxel_preview_encoder

        title = f"{made.count} supervoxels of {volume.name or path.name}, generator '{made.generator}'"
        pictures[outputs.preview] = supervoxel_preview_encoder(volume, made.labels, title)
    if report is not None:
        text = json.dumps(made.report, indent=2) + "\n"
        files[report] = lambda file: file.write(text.encode())
    return write_files(files | pictures, progress.part(0.97, 1.0), optional=pictures)


def _show(made: Supervoxels, files: list[Path]) -> None:
    facts = made.report
    say(f"Generator '{made.generator}': {facts['reason']}")
    took, memory = duration(facts["seconds"]), facts["peak_memory_mb"] / 1000
    say(f"{made.count} supervoxels in {took}; the process took at most {memory:.1f} GB of memory. Wrote:")
    for file in files:
        say(f"  {file}")
