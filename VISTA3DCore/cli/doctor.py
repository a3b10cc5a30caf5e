"""``vista3d doctor``: what this computer can do."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from VISTA3DCore.cli.console import print_json, say, show
from VISTA3DCore.engine.diagnosis import diagnose


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Tell what this computer can do: Python, PyTorch, GPU, memory, disk, models; and what to do next.

    Works before PyTorch is installed, starts nothing and changes nothing. Add its output when you report a problem.
    """
    report = examine()
    if as_json:
        print_json(report)
        return
    show(_table(report))
    for problem in report["problems"]:
        say(f"Problem: {problem}", "yellow")
    say(report["advice"], "bold")


def examine() -> dict[str, Any]:
    """Return what was found, ready for JSON; ``problems`` are sentences, ``advice`` is one."""
    report = diagnose()
    return {**report, "advice": _advice(report)}


def _advice(report: dict[str, Any]) -> str:
    """Return the one thing to do or know next."""
    torch = report["torch"]
    if not torch or "error" in torch or not report["packages"]["monai"]:
        return "The engine's runtime is incomplete; install it, then run this again: pip install torch monai."
    present = [name for name, state in report["models"].items() if state in ("present", "verified")]
    if "vista3d-ct" in present:
        return f"Ready for 'vista3d segment', which will run {_where(torch)}."
    if "mini" in present:
        return (
            f"Ready for 'vista3d demo', which will run {_where(torch)}; "
            "get the full model with: vista3d models download vista3d-ct."
        )
    return "No model is on this computer; get one with: vista3d models download vista3d-ct."


def _where(torch: dict[str, Any]) -> str:
    if torch["gpus"]:
        return f"on the {torch['gpus'][0]['name']}"
    return "on the Apple GPU" if torch["mps"] else "on the processor (minutes; --classes and --roi shorten that)"


def _table(report: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for row in _rows(report):
        table.add_row(*map(escape, row))
    return table


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    system, torch = report["system"], report["torch"]
    rows = [
        ("vista3d", system["vista3d"]),
        ("Python", f"{system['python']}  {system['executable']}"),
        ("system", system["os"]),
        ("processor", f"{system['cpu_threads']} threads"),
        ("memory", f"{system['ram_gib']} GiB, {system['ram_free_gib']} free"),
        ("disk", f"{system['disk_free_gib']} GiB free for {system['data_folder']}"),
        *_torch_rows(torch),
        *[("NVIDIA driver", f"{card['driver']} for {card['name']}") for card in report["nvidia"]],
    ]
    rows += [(package, version or "not installed") for package, version in report["packages"].items()]
    return rows + [(f"model {name}", state) for name, state in report["models"].items()]


def _torch_rows(torch: dict[str, Any] | None) -> list[tuple[str, str]]:
    if torch is None:
        return [("PyTorch", "not installed")]
    if "error" in torch:
        return [("PyTorch", f"{torch['version']}, does not load: {torch['error']}")]
    build = f"CUDA {torch['cuda']}, cuDNN {torch['cudnn']}" if torch["cuda"] else "built without CUDA"
    rows = [("PyTorch", f"{torch['version']}, {build}, {torch['threads']} threads")]
    rows += [
        (gpu["device"], f"{gpu['name']}, {gpu['memory_gib']} GiB, {gpu['free_gib']} free") for gpu in torch["gpus"]
    ]
    return rows + ([("mps", "Apple GPU")] if torch["mps"] else [])
