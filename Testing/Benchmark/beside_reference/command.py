"""Measure how fast this computer is, beside the reference pipeline: options, files and tables."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from VISTA3DCore.cli.command import Command, ErrorSentences
from VISTA3DCore.cli.console import print_json, say, show, spoken_warnings
from VISTA3DCore.cli.outputs import check_file
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.errors import InputError, OutputError
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from beside_reference.results import BenchmarkReport
    from beside_reference.run import Plan

FILES = ("benchmark.json", "benchmark.md", "benchmark.png")
_WHAT = "window,automatic,clicks"

Sides = Annotated[
    str,
    typer.Option(
        help="Who, with commas: ours, reference (as shipped), tuned, nninteractive; ours with runtime and precision, "
        "e.g. ours:openvino:bfloat16."
    ),
]
What = Annotated[str, typer.Option(help="With commas: window, everything, automatic, clicks, memory, all.")]
Sizes = Annotated[
    str,
    typer.Option(
        "--size",
        help="Phantoms with commas: A, B, N, L, S; or voxels along a side, 200x200x100@0.8 with mm; '' for none.",
    ),
]
Images = Annotated[
    list[Path],
    typer.Option("--image", metavar="CT", help="A CT to segment as well; may be repeated.", show_default=False),
]
Weights = Annotated[
    str, typer.Option(help="random, structured (labels are no noise), mini, or a model's name or file.")
]


class BenchmarkCommand(ErrorSentences, Command):
    """Stand alone, with the error sentences and exit codes of ``vista3d``."""


def benchmark(  # noqa: PLR0913, PLR0917 - each parameter is an option
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the report goes.")],
    sides: Sides = "ours,reference",
    what: What = _WHAT,
    sizes: Sizes = "S",
    images: Images = [],  # noqa: B006 - typer copies it
    weights: Weights = "random",
    width: Annotated[int, typer.Option(help="Feature channels of random weights; 48 is the released size.")] = 48,
    window: Annotated[int, typer.Option(help="Side of their window in voxels; 128 is the released size.")] = 128,
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")] = "auto",
    threads: Annotated[int, typer.Option(help="Of the processor; 0 for all that may be used.")] = 0,
    repetitions: Annotated[int, typer.Option("--repetitions", "-n", help="Timed runs of each side.")] = 5,
    warmups: Annotated[int, typer.Option(help="Runs before them; the first one is reported as the cold one.")] = 2,
    seed: Annotated[int, typer.Option(help="Of weights and phantoms.")] = 0,
    device_memory: Annotated[
        float, typer.Option("--device-memory", metavar="GB", help="Let a CUDA device give no more than this; 0: all.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON for programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error.")] = False,
) -> None:
    """Measure time and memory beside the reference pipeline: same weights, same volumes, sides taking turns.

    First the hardware's limits are measured, then every side is compared with the reference in float32; a side whose
    results differ is not timed. The full size takes hours on a processor: begin with `--what window`.

    **Examples**

    - `python Testing/Benchmark/beside_reference --what window -o report/`
    - `python Testing/Benchmark/beside_reference --sides ours,reference,tuned --size A,B,N --what all -o report/`
    - `python Testing/Benchmark/beside_reference --sides ours,reference --size '' --image ct.nii.gz -o report/`
    """
    _check_folder(output)
    plan = _plan(sides, what, sizes, weights)
    numbers = {"width": width, "window": window, "repetitions": repetitions, "warmups": warmups, "seed": seed}
    plan = replace(
        plan, images=tuple(images), device=device, threads=threads or _usable_threads(),
        device_memory=round(device_memory * 1e9) or None, **numbers,
    )  # fmt: skip
    report, files = _measured(plan, output, quiet)
    if as_json:
        print_json(report.to_dict())
    elif not quiet:
        _show(report, files)


def _plan(sides: str, what: str, sizes: str, weights: str) -> Plan:
    from beside_reference.run import Plan
    from beside_reference.sides import parse_sides
    from beside_reference.volumes import parse_size

    phantoms = tuple(parse_size(one.strip()) for one in _split_sizes(sizes))
    return Plan(parse_sides(sides), _measures(what), sizes=phantoms, weights=weights)


def _split_sizes(text: str) -> list[str]:
    """Split at commas, but not within a spacing (``@0.8,0.8,2``)."""
    parts: list[str] = []
    for one in text.split(","):
        if parts and "@" in parts[-1] and parts[-1].count(",") < 2 and one.replace(".", "", 1).isdigit():
            parts[-1] += f",{one}"
        elif one.strip():
            parts.append(one)
    return parts


def _measures(what: str) -> tuple[str, ...]:
    from beside_reference.scene import WHAT

    names = [one.strip() for one in what.split(",") if one.strip()]
    unknown = [one for one in names if one not in (*WHAT, "all")]
    if unknown or not names:
        raise InputError(f"'{', '.join(unknown)}' cannot be measured; use some of: {', '.join(WHAT)}, all.")
    chosen = list(WHAT) if "all" in names else names
    return tuple(dict.fromkeys(measure for name in chosen for measure in WHAT[name]))


def _usable_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file; give the name of a folder for the report.")
    check_file(folder / FILES[0] if folder.is_dir() else folder, "the report")
    require("A benchmark", "matplotlib", "nibabel")


def _measured(plan: Plan, folder: Path, quiet: bool) -> tuple[BenchmarkReport, list[Path]]:
    from beside_reference.figure import report_encoder
    from beside_reference.report import markdown
    from beside_reference.run import benchmark as measure
    from VISTA3DCore.imaging.output import bytes_encoder, write_files

    with spoken_warnings(), Reporter(quiet) as reporter:
        report = measure(plan, reporter.progress)
    text = json.dumps(report.to_dict(), indent=1) + "\n"
    picture = f"{markdown(report)}\n![{FILES[2]}]({FILES[2]})\n"
    encoders = (bytes_encoder(text.encode()), bytes_encoder(picture.encode()), report_encoder(report))
    folder.mkdir(exist_ok=True)
    files = dict(zip((folder / name for name in FILES), encoders, strict=True))
    return report, write_files(files, optional=(folder / FILES[2],))


def _show(report: BenchmarkReport, files: list[Path]) -> None:
    show(_table(report))
    for side in report.sides:
        if side.refused:
            say(f"Not measured: {side.name}: {side.refused}", "yellow")
    for one in report.not_measured:
        say(f"Not measured: {one['measure']} of {one['side']} ({one['volume']}): {one['reason']}", "yellow")
    for file in files:
        say(f"Wrote {file}")


def _table(report: BenchmarkReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("measure", "volume", "side"):
        table.add_column(name)
    for name in ("median, s", "minimum", "of the roof", "times faster"):
        table.add_column(name, justify="right")
    for one in report.measurements:
        peak = "-" if one.of_peak is None else f"{100 * one.of_peak:.0f} %"
        faster = "-" if one.faster is None else f"{one.faster:.2f}"
        times = f"{one.seconds.median:.3g}", f"{one.seconds.minimum:.3g}"
        table.add_row(one.measure, one.volume, one.side, *times, peak, faster)
    return table


app = typer.Typer(
    name="beside_reference",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=BenchmarkCommand)(benchmark)
