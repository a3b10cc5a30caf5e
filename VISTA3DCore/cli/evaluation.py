"""Share what the commands of ``vista3d evaluate`` have in common: options, and measuring whole data lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from VISTA3DCore.cli import engine
from VISTA3DCore.cli.command import structure_names
from VISTA3DCore.cli.console import print_json, say, show, spoken_warnings
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.cli.segment import Preset, Restoration
from VISTA3DCore.errors import InputError, OutputError
from VISTA3DCore.packages import require
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.evaluator import Evaluation, Task
    from VISTA3DCore.evaluation.results import Failure
    from VISTA3DCore.evaluation.settings import Settings
    from VISTA3DCore.inference.segmenter import Segmenter


class Variant(str, Enum):
    """Who decides which results count."""

    honest = "honest"
    paper = "paper"


Classes = Annotated[
    list[str],
    typer.Option("--classes", "-c", metavar="NAMES", help="As for 'segment'; default: all of the reference."),
]
Clicks = Annotated[
    int,
    typer.Option("--clicks", "-n", min=1, help="How many clicks the honest 'auto+point' and 'zero-shot' set at most."),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the protocols that click at random.")]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME|FILE", help="Default: vista3d-ct if it was downloaded, else the small 'mini'."
    ),
]
Device = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")]
AutomaticPreset = Annotated[Preset, typer.Option("--preset", help="Of the automatic result, as for 'segment'.")]
AutomaticRestoration = Annotated[
    Restoration, typer.Option("--restoration", help="Of the automatic result, as for 'segment'.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON for programs.")]
Folder = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FOLDER", help="The report; the same command again resumes it."),
]
Tolerance = Annotated[float, typer.Option("--tolerance", min=0.0, metavar="MM", help="Of the surface Dice.")]


def names_in(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in several texts, split at commas."""
    return structure_names(texts) if texts else ()


@dataclass(frozen=True)
class Job:
    """Cases that are measured alike.

    :param source: where they come from, for the report.
    """

    source: str
    tasks: Sequence[Task]
    settings: Settings


Extra = Callable[["Evaluation", dict[str, str]], "dict[str, bytes]"]
"""From what was measured and the facts about it to further files of the report: name -> content."""


def lists(data: Sequence[Path], section: str, fold: int | None, settings: Settings) -> list[Job]:
    """Return the cases of data lists.

    :raises InputError: if a list cannot be read or used, or two have the same name.
    """
    from VISTA3DCore.evaluation.data_list import read_data_list
    from VISTA3DCore.evaluation.evaluator import tasks_of

    found = [read_data_list(path) for path in data]
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise InputError(f"Two data lists have the same name ({', '.join(names)}); give each its own 'name'.")
    where = section if fold is None else f"{section}, fold {fold}"
    return [Job(f"{one.name} ({where})", tasks_of(one, section, fold), settings) for one in found]


def run(
    jobs: Sequence[Job],
    folder: Path,
    model: str,
    device: str,
    as_json: bool,
    quiet: bool,
    extra: Extra | None = None,
) -> None:
    """Measure all jobs with one model, write the report and say what came out.

    :raises VistaError: as the engine does; what was measured until then is kept.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file; give the name of a folder for the report.")
    require("An evaluation", "matplotlib", "scipy")
    with spoken_warnings(), Reporter(quiet) as reporter:
        model = model or engine.default_model()
        progress = reporter.progress
        segmenter = load_model(model, device, progress.part(0.0, 0.02), quiet)
        evaluation = _measured(segmenter, jobs, folder, progress.part(0.02, 0.99))
        files = _written(folder, segmenter, jobs, evaluation, extra)
    if as_json:
        print_json(_as_json(evaluation, files))
    elif not quiet:
        _show(evaluation, files)


def load_model(model: str, device: str, progress: Progress, quiet: bool, claimed_only: bool = False) -> Segmenter:
    """Load the model to be measured, and report where it runs."""
    from VISTA3DCore.inference.segmenter import Segmenter

    progress.update(0.0, "Loading the model")
    segmenter = Segmenter.from_pretrained(model, device=device, progress=progress, claimed_only=claimed_only)
    if not quiet:
        engine.say_where(segmenter)
    return segmenter


def _measured(segmenter: Segmenter, jobs: Sequence[Job], folder: Path, progress: Progress) -> Evaluation:
    from VISTA3DCore.evaluation.evaluator import checked, joined, measured

    total, done, found = sum(len(job.tasks) for job in jobs), 0, []
    for job in jobs:
        part = progress.part(done / total, (done + len(job.tasks)) / total)
        found.append(measured(segmenter, job.tasks, job.settings, folder, part))
        done += len(job.tasks)
    return checked(joined(found), jobs[0].settings)


def _written(
    folder: Path, segmenter: Segmenter, jobs: Sequence[Job], evaluation: Evaluation, extra: Extra | None
) -> list[Path]:
    from VISTA3DCore.evaluation.report import write_report

    facts = _facts(segmenter, jobs, evaluation)
    title = f"{facts['Model'].split(' ')[0]} on {', '.join(dict.fromkeys(job.tasks[0].dataset for job in jobs))}"
    more = extra(evaluation, facts) if extra is not None else {}
    return write_report(folder, title, facts, evaluation, more)


def _facts(segmenter: Segmenter, jobs: Sequence[Job], evaluation: Evaluation) -> dict[str, str]:
    """Return what a reader must know about the numbers."""
    provenance, settings = segmenter.provenance, jobs[0].settings
    details = [provenance[key][:19] for key in ("revision", "hash", "version") if key in provenance]
    honest = f"preset {settings.preset}, restoration {settings.restoration}"
    return {
        "Model": f"{provenance['model']} ({', '.join(details)})",
        "Data": "; ".join(job.source for job in jobs),
        "Cases": f"{evaluation.cases}, of which {len({(one.dataset, one.case) for one in evaluation.failures})} failed",
        "Protocols": f"{', '.join(settings.protocols)}; variants: {', '.join(settings.variants)}",
        "Settings": f"{honest}; at most {settings.clicks} clicks; seed {settings.seed}",
        "Surface Dice": f"tolerance {settings.tolerance_mm:g} mm",
    }


def _as_json(evaluation: Evaluation, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "files": [str(file) for file in files],
        "resumed": evaluation.resumed,
        "failures": [asdict(one) for one in evaluation.failures],
        "rows": [asdict(row) for row in evaluation.rows],
    }


def _show(evaluation: Evaluation, files: Sequence[Path]) -> None:
    show(
        "Dice, surface Dice, HD95 (mm), error of the volume: means over structures of their means over n cases",
        soft_wrap=True,
    )
    show(_table(evaluation))
    if evaluation.resumed:
        say(f"{evaluation.resumed} of {evaluation.cases} cases were measured before.")
    show_failures(evaluation.failures)
    for file in files:
        say(f"Wrote {file}")


def show_failures(failures: Sequence[Failure]) -> None:
    """Report the cases that could not be measured, each once."""
    for failure in dict.fromkeys(replace(one, protocol="", variant="") for one in failures):
        say(f"Not measured: {failure.case} of {failure.dataset}: {failure.reason}", "yellow")


def _table(evaluation: Evaluation) -> Table:
    from VISTA3DCore.evaluation.markdown import number
    from VISTA3DCore.evaluation.summary import groups_of, overall, protocol_title

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("dataset", style="bold")
    table.add_column("protocol", no_wrap=True)
    for name in ("n", "Dice", "surface", "HD95", "volume", "missed", "invented"):
        table.add_column(name, justify="right", no_wrap=True)
    for (dataset, protocol, variant), rows in groups_of(evaluation.rows).items():
        one = overall(dataset, rows)
        error = "–" if one.volume_error is None else f"{100 * one.volume_error:.0f} %"
        scores = (number(one.dice), number(one.surface_dice), number(one.hd95_mm, ".1f"), error)
        table.add_row(
            dataset, protocol_title(protocol, variant), str(one.cases), *scores, f"{one.missed}", f"{one.invented}"
        )
    return table
