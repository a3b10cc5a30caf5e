"""``vista3d evaluate clicks``: measure Dice against the number of clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from VISTA3DCore.cli import engine, evaluation
from VISTA3DCore.cli.console import print_json, say, show, spoken_warnings
from VISTA3DCore.cli.outputs import check_extra
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.cli.segment import Preset, Restoration
from VISTA3DCore.errors import InputError
from VISTA3DCore.packages import require
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.evaluator import Evaluation, Task
    from VISTA3DCore.evaluation.results import Row
    from VISTA3DCore.evaluation.settings import Settings
    from VISTA3DCore.evaluation.summary import ClickSummary
    from VISTA3DCore.inference.segmenter import Segmenter


# Numbers of clicks whose means are said in a sentence.
_COUNTS = (0, 1, 3, 5, 10)


class Protocol(str, Enum):
    """How clicks are simulated and counted."""

    honest = "honest"
    oracle_best_so_far = "oracle_best_so_far"
    oracle_trials = "oracle_trials"


class Start(str, Enum):
    """What the first click meets."""

    automatic = "automatic"
    nothing = "nothing"


Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE.csv", help="Every number: a row per structure and click.")
]
Image = Annotated[Path | None, typer.Option("--image", "-i", metavar="CT", help="The CT, as for 'segment'.")]
LabelMap = Annotated[
    Path | None,
    typer.Option(
        "--reference", "-r", metavar="LABELS", help="Label map on the grid of the CT (value = index), or .seg.nrrd."
    ),
]
LabelsJson = Annotated[
    Path | None,
    typer.Option("--labels-json", metavar="FILE.json", help='What the values mean instead: {"1": "liver"}.'),
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="LIST|FOLDER", help="A data list, or a folder with one, not one image.")
]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="Which cases of --data.")]
Number = Annotated[int, typer.Option("--clicks", "-n", min=1, help="How many clicks are set.")]
Protocols = Annotated[
    list[Protocol], typer.Option("--protocol", "-p", help="How clicks are set and counted; may be repeated.")
]
Starts = Annotated[
    list[Start],
    typer.Option("--start", "-s", help="What the first click meets; may be repeated.", show_default="automatic"),
]
ZeroShot = Annotated[
    bool, typer.Option("--zero-shot", help="Tell the model no class, as for an object that it never saw.")
]
Claimed = Annotated[
    bool, typer.Option("--claimed", help="Only structures that the model claims, with the results that users get.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw mean Dice against the number of clicks.")
]


def clicks(  # noqa: PLR0913, PLR0917 - each parameter is an option
    output: Output,
    image: Image = None,
    reference: LabelMap = None,
    labels_json: LabelsJson = None,
    data: Data = None,
    split: Split = "test",
    classes: evaluation.Classes = ["everything"],  # noqa: B006 - typer copies it
    number: Number = 5,
    protocol: Protocols = [Protocol.honest],  # noqa: B006 - typer copies it
    start: Starts = [],  # noqa: B006 - typer copies it
    zero_shot: ZeroShot = False,
    claimed: Claimed = False,
    seed: evaluation.Seed = 0,
    model: evaluation.Model = "",
    device: evaluation.Device = "auto",
    preset: evaluation.AutomaticPreset = Preset.paper,
    restoration: evaluation.AutomaticRestoration = Restoration.smooth,
    plot: Plot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the curves as JSON for programs.")] = False,
    quiet: evaluation.Quiet = False,
) -> None:
    """Simulate clicks that correct a segmentation, and measure Dice after each.

    *honest* is what a user experiences: clicks on the largest error of the mask shown, every result kept, better or
    worse. The two *oracle* protocols are those of the VISTA3D paper; they look at the reference to keep the best
    result only: *oracle_best_so_far* (its zero-shot evaluation) and *oracle_trials* (automatic result plus trials).

    **Examples**

    - `vista3d evaluate clicks -i ct.nii.gz -r labels.nii.gz -c liver,spleen -o clicks.csv --plot clicks.png`
    - `vista3d evaluate clicks -i ct.nii.gz -r labels.nii.gz -s automatic -s nothing -n 10 -o clicks.csv`
    - `vista3d evaluate clicks -i ct.nii.gz -r labels.nii.gz --claimed -m mini -o clicks.csv`
    - `vista3d evaluate clicks --data cases/ --split test --zero-shot -o lesions.csv`
    """
    _check_outputs(output, plot)
    source = _Source(image, reference, labels_json, data, split)
    source.check()
    settings = _settings(evaluation.names_in(classes), protocol, start, number, zero_shot)
    settings = replace(settings, preset=preset.value, restoration=restoration.value, seed=seed)
    with spoken_warnings() as notes, Reporter(quiet) as reporter:
        model = model or engine.default_model()
        if reference is not None and labels_json is None:
            say("Note: the reference's values are read as VISTA3D's indices (1 is liver); else give --labels-json.")
        if not zero_shot:
            engine.Wishes(classes=settings.classes, model=model).check(clicks=True)
        progress = reporter.progress
        segmenter = evaluation.load_model(model, device, progress.part(0.0, 0.03), quiet, claimed)
        measured = _measured(segmenter, source, settings, progress.part(0.03, 0.98))
        rows = _in_order(measured.rows, settings)
        files = _write(output, plot, rows, source.title, progress)
    if as_json:
        print_json(_as_json(rows, model, files, notes))
    elif not quiet:
        _show(rows, files)
        evaluation.show_failures(measured.failures)


@dataclass(frozen=True)
class _Source:
    """Where images and references come from, as typed."""

    image: Path | None
    reference: Path | None
    labels_json: Path | None
    data: Path | None
    split: str

    def check(self) -> None:
        """:raises InputError: if it is neither one image with its reference nor a folder."""
        if (self.data is None) == (self.image is None and self.reference is None):
            raise InputError("Give either --image with --reference, or a folder of cases with --data.")
        if self.data is None and (self.image is None or self.reference is None):
            raise InputError("An image and its reference belong together; give both --image and --reference.")
        if self.data is not None and self.labels_json is not None:
            raise InputError("--labels-json belongs to --reference; a folder's index.json says what its labels mean.")

    @property
    def title(self) -> str:
        if self.image is not None:
            return self.image.name
        assert self.data is not None
        return f"{self.data.resolve().name}, {self.split} cases"

    def tasks(self, segmenter: Segmenter) -> list[Task]:
        """Return the cases: the one image, or those of a section of a data list."""
        from VISTA3DCore.evaluation.data_list import read_data_list
        from VISTA3DCore.evaluation.evaluator import Task, tasks_of
        from VISTA3DCore.evaluation.references import labeled_image, read_meanings

        if self.data is not None:
            return tasks_of(read_data_list(self.data), self.split)
        assert self.image is not None
        assert self.reference is not None
        meanings = read_meanings(self.labels_json, segmenter.catalogue) if self.labels_json else None
        return [Task("", labeled_image(self.image, self.reference, meanings))]


def _check_outputs(output: Path, plot: Path | None) -> None:
    check_extra(output, "the curves", ".csv")
    if plot is not None:
        check_extra(plot, "the plot", ".png")
        require("A plot", "matplotlib")


def _settings(
    classes: tuple[str, ...], protocols: list[Protocol], starts: list[Start], number: int, zero_shot: bool
) -> Settings:
    """Return what to measure, without the settings of the automatic result.

    :raises InputError: if the options do not fit together.
    """
    from VISTA3DCore.evaluation.settings import CLICKS, CLICKS_FROM_NOTHING, CLICKS_ZERO_SHOT, Settings

    starts = starts or [Start.nothing if zero_shot else Start.automatic]
    if zero_shot and Start.automatic in starts:
        raise InputError("A new object (zero-shot) has no automatic result; start from 'nothing'.")
    if Protocol.oracle_trials in protocols and Start.nothing in starts:
        raise InputError("The protocol 'oracle_trials' starts from the automatic result; use the start 'automatic'.")
    names = {Start.automatic: CLICKS, Start.nothing: CLICKS_ZERO_SHOT if zero_shot else CLICKS_FROM_NOTHING}
    return Settings(
        protocols=tuple(dict.fromkeys(names[one] for one in starts)),
        variants=tuple(dict.fromkeys(one.value for one in protocols)),
        classes=classes,
        clicks=number,
        tolerance_mm=None,
    )


def _measured(segmenter: Segmenter, source: _Source, settings: Settings, progress: Progress) -> Evaluation:
    from VISTA3DCore.evaluation.evaluator import evaluate

    return evaluate(segmenter, source.tasks(segmenter), settings, None, progress, strict=source.data is None)


def _in_order(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Return the rows case by case and structure by structure, simulations and starts in the order of the options."""
    members = list(dict.fromkeys((row.case, row.structure) for row in rows))

    def place(row: Row) -> tuple[int, int, int]:
        starts, simulations = settings.protocols, settings.variants
        member = members.index((row.case, row.structure))
        return member, simulations.index(row.variant), starts.index(row.protocol)

    return sorted(rows, key=place)


def _write(output: Path, plot: Path | None, rows: list[Row], title: str, progress: Progress) -> list[Path]:
    from VISTA3DCore.evaluation.report import write_click_report

    progress.update(0.98, "Writing the results")
    return write_click_report(rows, title, output, plot, progress.part(0.98, 1.0))


def _as_json(rows: list[Row], model: str, files: list[Path], notes: list[str]) -> dict[str, Any]:
    from VISTA3DCore.evaluation.summary import summarize_clicks

    return {
        "model": model,
        "files": [str(file) for file in files],
        "notes": notes,
        "summaries": [asdict(summary) for summary in summarize_clicks(rows)],
        "curves": [_curve(row) for row in rows],
    }


def _curve(row: Row) -> dict[str, Any]:
    return {
        "structure": row.structure,
        "protocol": row.simulation,
        "start": row.start,
        "dice": row.curve,
        "clicks": [asdict(click) for click in row.placed],
        "seconds": row.click_seconds,
        "case": row.case,
        "zero_shot": row.is_zero_shot,
    }


def _show(rows: list[Row], files: list[Path]) -> None:
    from VISTA3DCore.evaluation.summary import summarize_clicks

    for summary in summarize_clicks(rows):
        time = "" if summary.seconds is None else f"; {summary.seconds:.2f} s per click (median)"
        show(f"Dice after 0, 1, 2 ... clicks: {summary.title}{time}", soft_wrap=True)
        show(_table([row for row in rows if summary.holds(row)], summary))
        show(_harm(summary), soft_wrap=True)
    for file in files:
        say(f"Wrote {file}")


def _harm(summary: ClickSummary) -> str:
    """Return the means at a few numbers of clicks and the largest loss, in words."""
    counts = [count for count in _COUNTS if count < len(summary.mean)]
    means = ", ".join(f"{summary.mean[count]:.3f}" for count in counts)
    loss, structure, clicks = summary.largest_loss
    worst = f"{loss:.3f} ({structure}, after {clicks} clicks)" if loss else "none"
    return f"Mean Dice after {', '.join(map(str, counts))} clicks: {means}. Largest loss of one structure: {worst}."


def _table(rows: list[Row], summary: ClickSummary) -> Table:
    """Return Dice after each click: a row per structure, the mean at the end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    several = len({row.case for row in rows}) > 1
    if several:
        table.add_column("case", no_wrap=True)
    table.add_column("structure", style="bold", no_wrap=True)
    for clicks in range(len(summary.mean)):
        table.add_column(f"{clicks}", justify="right")
    for row in rows:
        table.add_row(*([row.case] if several else []), row.structure, *map("{:.2f}".format, row.curve))
    table.add_section()
    table.add_row(*([""] if several else []), f"mean of {summary.count}", *map("{:.2f}".format, summary.mean))
    return table
