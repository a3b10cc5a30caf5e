"""``vista3d click``: point at what is missing or too much, and that alone changes."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli import engine
from VISTA3DCore.cli.console import print_json, spoken_warnings
from VISTA3DCore.cli.outputs import Outputs
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.paths import readable

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.cli.click_report import ClickReport
    from VISTA3DCore.cli.correction import Base
    from VISTA3DCore.engine.blocking_client import RemoteSession
    from VISTA3DCore.imaging.clicks import Click
    from VISTA3DCore.imaging.formats.seg_reading import StoredSegment
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.inference.clicks.fold import ClickResult
    from VISTA3DCore.inference.session import Session
    from VISTA3DCore.progress import Progress


class Polarity(str, Enum):
    """What the points of a markups file mean."""

    auto = "auto"
    positive = "positive"
    negative = "negative"


class Policy(str, Enum):
    """Which part of the CT the network looks at."""

    reuse = "reuse"
    centred = "centred"


class Variant(str, Enum):
    """What a click may change; see ``Session.click``."""

    auto = "auto"
    paper = "paper"
    near = "near"
    permissive = "permissive"


def click(  # noqa: PLR0913, PLR0917 - each parameter is an option
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
    positive: Annotated[
        list[str], typer.Option("--positive", "-p", metavar="X,Y,Z", help="A place in the object; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    negative: Annotated[
        list[str], typer.Option("--negative", "-n", metavar="X,Y,Z", help="A place outside of it; may be repeated.")
    ] = [],  # noqa: B006
    markups: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Clicks placed in Slicer: .mrk.json or .fcsv; may be repeated."),
    ] = [],  # noqa: B006
    polarity: Annotated[
        list[Polarity],
        typer.Option(
            help="Of the markups, once for all files or once for each; auto: points whose label or list begins with "
            "the word neg, negative or background, or with a minus sign, are negative.",
            show_default="auto",
        ),
    ] = [],  # noqa: B006
    voxel: Annotated[
        bool, typer.Option("--voxel", help="X,Y,Z are voxel indices i,j,k of the image, not RAS mm.")
    ] = False,
    class_name: Annotated[
        str,
        typer.Option(
            "--class",
            "-c",
            metavar="NAME",
            help="What the object is: a name, synonym or index; of a group, the member that is hit.",
        ),
    ] = "",
    new_object: Annotated[
        bool, typer.Option("--new-object", help="The object is none that the model knows, or you do not know.")
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The segmentation to correct: .seg.nrrd, or a label map; default: empty."),
    ] = None,
    segment: Annotated[
        str, typer.Option(metavar="NAME", help="Which segment of --base (name or ID), if not found by --class.")
    ] = "",
    resample_base: Annotated[
        bool, typer.Option("--resample-base", help="Accept a base of another geometry; nearest neighbour.")
    ] = False,
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
    policy: Annotated[
        Policy, typer.Option(help="reuse: windows serve several clicks; centred: one around each click, as published.")
    ] = Policy.reuse,
    variant: Annotated[
        Variant,
        typer.Option(
            help="What a click may change. paper: the whole connected part that it touches; near: that part as far as "
            "half again the click's distance to the border; permissive: paper, through the mask, too; auto: near for "
            "the small model, else paper."
        ),
    ] = Variant.auto,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: three planes through the last click.")
    ] = None,
    engine_: engine.EngineOption = engine.Engine.in_process,
    runtime: engine.RuntimeOption = engine.Runtime.auto,
    precision: engine.PrecisionOption = engine.Precision.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON for programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Segment or correct one object by clicks: only what the clicks point at changes.

    Positions are RAS millimetres. Positive clicks add, negative ones remove; the rest of the base stays as it is. The
    result holds the object and the base's other segments, untouched.

    **Examples**

    - `vista3d click ct.nii.gz --class liver --positive 42,-10.5,88 -o liver.seg.nrrd`
    - `vista3d click ct.nrrd -c spleen --base organs.seg.nrrd --negative -70,12,40 -o better.seg.nrrd --preview a.png`
    - `vista3d click ct.nrrd --new-object --markups inside.mrk.json --markups neg.mrk.json -o lesion.seg.nrrd`
    """
    asked = _Asked(
        points=_points(positive, True) + _points(negative, False),
        voxel=voxel,
        markups=_markups(markups, polarity),
        class_name=_class_name(class_name, new_object),
        base=base,
        segment=segment,
        resample_base=resample_base,
        policy=policy.value,
        variant=None if variant == Variant.auto else variant.value,
    )
    asked.check()
    outputs = Outputs.checked(image, output, None, None, preview, asked.files)
    with spoken_warnings() as notes, Reporter(quiet) as reporter:
        chosen = model or engine.default_model()
        wishes = engine.Wishes(
            classes=asked.classes,
            model=chosen,
            device=device,
            engine=engine_,
            runtime=runtime.value,
            precision=precision.value,
        )
        wishes.check(clicks=True)
        result = _run(image, asked, wishes, outputs, reporter.progress, quiet)
    if as_json:
        print_json(result.as_json(image, notes))
    elif not quiet:
        result.show()


@dataclass(frozen=True)
class _Asked:
    """The options about the object and the clicks.

    :param points: as typed, with their polarity: RAS mm, or voxel indices if ``voxel``.
    :param markups: files and their polarity.
    :param class_name: None for a new object.
    """

    points: list[tuple[tuple[float, float, float], bool]]
    voxel: bool
    markups: list[tuple[Path, str]]
    class_name: str | None
    base: Path | None
    segment: str
    resample_base: bool
    policy: str
    variant: str | None

    @property
    def classes(self) -> tuple[str, ...]:
        return () if self.class_name is None else (self.class_name,)

    @property
    def files(self) -> list[Path]:
        """Inputs beside the image."""
        return [path for path, _ in self.markups] + ([self.base] if self.base else [])

    def check(self) -> None:
        """:raises BadParameter: if options are missing or useless."""
        if not self.points and not self.markups:
            raise typer.BadParameter("Give at least one click: --positive X,Y,Z, --negative X,Y,Z or --markups FILE.")
        if self.base is None and (self.segment or self.resample_base):
            raise typer.BadParameter("--segment and --resample-base belong to --base FILE; give it, too.")

    def read_base(self, structure: Structure | None, volume: Volume) -> Base | None:
        from VISTA3DCore.cli.correction import Base

        if self.base is None:
            return None
        return Base.read(self.base, structure, self.segment or None, volume, self.resample_base)

    def clicks_from_files(self) -> list[Click]:
        from VISTA3DCore.imaging.formats.markups import read_clicks

        return [click for path, polarity in self.markups for click in read_clicks(path, polarity)]

    def clicks_as_typed(self, volume: Volume) -> list[Click]:
        from VISTA3DCore.imaging.clicks import Click
        from VISTA3DCore.imaging.geometry import apply_affine

        return [
            Click(tuple(apply_affine(volume.affine, place)) if self.voxel else place, positive)
            for place, positive in self.points
        ]


def _points(texts: list[str], positive: bool) -> list[tuple[tuple[float, float, float], bool]]:
    return [(_numbers(text, "--positive" if positive else "--negative"), positive) for text in texts]


def _numbers(text: str, option: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(number) for number in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is not three numbers X,Y,Z.", param_hint=option) from error
    return x, y, z


def _markups(files: list[Path], polarities: list[Polarity]) -> list[tuple[Path, str]]:
    """Pair markups files with polarities: none means auto, one counts for all files."""
    chosen = polarities or [Polarity.auto]
    if len(chosen) == 1:
        chosen = chosen * len(files)
    if len(chosen) != len(files) or (polarities and not files):
        raise typer.BadParameter("Give one for all --markups, or one for each of them.", param_hint="--polarity")
    return [(file, polarity.value) for file, polarity in zip(files, chosen, strict=True)]


def _class_name(name: str, new_object: bool) -> str | None:
    if bool(name) == new_object:
        raise typer.BadParameter("Say what the object is: either --class NAME, or --new-object.")
    return None if new_object else name


def _run(
    image: Path, asked: _Asked, wishes: engine.Wishes, outputs: Outputs, progress: Progress, quiet: bool
) -> ClickReport:
    from VISTA3DCore.cli.click_report import ClickReport
    from VISTA3DCore.imaging.volume import Volume

    started = time.monotonic()
    from_files = asked.clicks_from_files()
    progress.update(0.0, "Reading the image")
    volume = Volume.read(image)
    clicks = asked.clicks_as_typed(volume) + from_files
    with engine.loaded(wishes, progress.part(0.02, 0.1)) as segmenter:
        found, base = _answer(segmenter, volume, clicks, asked, outputs, progress, quiet)
    progress.update(0.95, "Writing the results")
    _warn_of_nothing(found)
    segmentation = _segmentation(found, base, segmenter, volume)
    segmentation.provenance.update(_provenance(clicks, asked, segmentation.provenance["model"]))
    files = _write(volume, segmentation, clicks, outputs, progress)
    seconds = time.monotonic() - started
    return ClickReport.of(found, found.base, segmentation, clicks, str(segmenter.device), seconds, files)


def _answer(
    segmenter: engine.Loaded,
    volume: Volume,
    clicks: list[Click],
    asked: _Asked,
    outputs: Outputs,
    progress: Progress,
    quiet: bool,
) -> tuple[ClickResult, Base | None]:
    members = segmenter.catalogue.resolve(asked.classes)
    structure = members[0] if members else None
    base = asked.read_base(structure, volume) if len(members) < 2 else None
    if not quiet:
        engine.say_where(segmenter)
    with segmenter.open(volume, progress=progress.part(0.1, 0.2)) as session:
        if len(members) > 1:
            structure = _hit(session, asked.class_name, clicks)
            base = asked.read_base(structure, volume)
        _warn_of_unknown(structure, segmenter)
        edited, others = _edited_and_others(structure, base, segmenter)
        # Which of the others the object will overlap is not known yet, so each may need a file of its own.
        outputs.masks((edited, *others.values()), [other.index for other in others.values()])
        mask = base.mask if base else None
        options = {"policy": asked.policy, "variant": asked.variant}
        found = session.click(structure, clicks, mask, **options, progress=progress.part(0.2, 0.95))
    return found, base


def _hit(session: Session | RemoteSession, name: str, clicks: list[Click]) -> Structure:
    """Return which of the structures that a name stands for is meant: the one that the first positive click hits."""
    deciding = next((click for click in clicks if click.positive), clicks[0])
    return session.hit(name, deciding.position)


def _warn_of_unknown(structure: Structure | None, segmenter: engine.Loaded) -> None:
    if structure is not None and structure.index not in segmenter.trained:
        sentence = f"The model was not trained for '{structure.name}'; it is treated as a new object."
        warnings.warn(sentence, UserWarning, stacklevel=2)


def _warn_of_nothing(found: ClickResult) -> None:
    if found.mask.any():
        return
    if found.base is None:
        sentence = "Nothing was found: the result is empty. Click nearer to the middle of the object."
    else:
        sentence = "Nothing is left: the clicks removed all of the base."
    warnings.warn(sentence, UserWarning, stacklevel=2)


def _segmentation(found: ClickResult, base: Base | None, segmenter: engine.Loaded, volume: Volume) -> Segmentation:
    """Return a segmentation whose first structure is the one that was clicked."""
    from VISTA3DCore.cli.correction import corrected

    edited, others = _edited_and_others(found.structure, base, segmenter)
    return corrected(edited, found.mask, others, base, volume, segmenter.provenance)


def _edited_and_others(
    structure: Structure | None, base: Base | None, segmenter: engine.Loaded
) -> tuple[Structure, dict[StoredSegment, Structure]]:
    """Return what is clicked, and the structures of the base that stay as they are."""
    from VISTA3DCore.anatomy.structure import new_object

    known = segmenter.catalogue
    edited = structure or (base.identity(known) if base else new_object())
    return edited, base.others(edited, known) if base else {}


def _provenance(clicks: list[Click], asked: _Asked, model: str) -> dict[str, str]:
    from VISTA3DCore.inference.clicks.fold import default_variant

    positive = sum(click.positive for click in clicks)
    counts = f"{positive} positive, {len(clicks) - positive} negative"
    told = {"clicks": counts, "policy": asked.policy, "variant": asked.variant or default_variant(model)}
    return told | ({"base": readable(asked.base.name)} if asked.base else {})


def _write(
    volume: Volume, segmentation: Segmentation, clicks: list[Click], outputs: Outputs, progress: Progress
) -> list[Path]:
    more = {}
    if outputs.preview:
        from VISTA3DCore.cli.preview import preview_encoder

        shown = _first_alone(segmentation)
        title = f"{shown.structures[0].display_name}, {volume.name}"
        more[outputs.preview] = preview_encoder(volume, shown, title, clicks)
    return outputs.write(segmentation, more, progress)


def _first_alone(segmentation: Segmentation) -> Segmentation:
    """Return a segmentation of the first structure, without the others."""
    structure = segmentation.structures[0]
    return replace(segmentation, labels=segmentation[structure] * structure.index, masks={}, structures=(structure,))
