"""``vista3d doctor``: what this computer can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from VISTA3DCore import __version__
from VISTA3DCore.cli.console import out, print_json, say
from VISTA3DCore.paths import user_data_dir

GIB = 2.0**30
PACKAGES = ("numpy", "SimpleITK", "safetensors", "huggingface-hub", "monai", "matplotlib", "nibabel")
_NEEDED_RAM_GIB = 8.0  # the released model on the CPU: 1 GB of weights, about 4 GB for a window of 128^3, the volume
_NEEDED_DISK_GIB = 2.0  # one released model, twice while it is checked


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Tell what this computer can do: Python, PyTorch, GPU, memory, disk, models; and what to do next.

    Works before PyTorch is installed, starts nothing and changes nothing. Add its output when you report a problem.
    """
    report = examine()
    if as_json:
        print_json(report)
        return
    out.print(_table(report))
    for problem in report["problems"]:
        say(f"Problem: {problem}", "yellow")
    say(report["advice"], "bold")


def examine() -> dict[str, Any]:
    """Return what was found, ready for JSON; ``problems`` are sentences, ``advice`` is one."""
    report: dict[str, Any] = {"system": _system(), "torch": _torch(), "packages": _packages(), "models": _models()}
    report["problems"] = _problems(report)
    report["advice"] = _advice(report)
    return report


def _system() -> dict[str, Any]:
    import psutil

    memory, folder = psutil.virtual_memory(), user_data_dir()
    return {
        "vista3d": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "os": platform.platform(),
        "cpu_threads": _cpu_threads(),
        "ram_gib": round(memory.total / GIB, 1),
        "ram_free_gib": round(memory.available / GIB, 1),
        "data_folder": str(folder),
        "disk_free_gib": round(shutil.disk_usage(_existing(folder)).free / GIB, 1),
    }


def _cpu_threads() -> int:
    """Return the threads that this process may use: fewer than the computer has, in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _existing(folder: Path) -> Path:
    return next(candidate for candidate in (folder, *folder.absolute().parents) if candidate.exists())


def _torch() -> dict[str, Any] | None:
    """Return what PyTorch says about itself and the devices, or None without it; an ``error`` if it does not load."""
    if _version("torch") is None:
        return None
    try:
        import torch

        cuda = torch.version.cuda
        return {
            "version": torch.__version__,
            "cuda": cuda,
            "cudnn": torch.backends.cudnn.version() if cuda else None,
            "threads": torch.get_num_threads(),
            "gpus": [_gpu(n) for n in range(torch.cuda.device_count())],
            "mps": torch.backends.mps.is_available(),
        }
    except Exception as error:  # a broken installation can fail in any way, and telling so is the purpose
        return {"version": _version("torch"), "error": f"{type(error).__name__}: {error}"}


def _gpu(number: int) -> dict[str, Any]:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    properties = torch.cuda.get_device_properties(number)
    return {
        "device": f"cuda:{number}",
        "name": properties.name,
        "memory_gib": round(total / GIB, 1),
        "free_gib": round(free / GIB, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> dict[str, str | None]:
    return {package: _version(package) for package in PACKAGES}


def _models() -> dict[str, str]:
    from VISTA3DCore.network.store import ModelStore

    store = ModelStore()
    return {entry.name: store.status(entry.name).state for entry in store.entries()}


def _problems(report: dict[str, Any]) -> list[str]:
    system, torch = report["system"], report["torch"]
    problems = []
    if torch and "error" in torch:
        problems.append(f"PyTorch {torch['version']} is installed but does not load ({torch['error']}).")
    elif torch:
        from VISTA3DCore.inference.devices import known_problems

        problems += known_problems()
    if system["ram_gib"] < _NEEDED_RAM_GIB:
        problems.append(f"{system['ram_gib']} GiB of memory are little for the full model; use 'mini' or a --roi.")
    if system["disk_free_gib"] < _NEEDED_DISK_GIB:
        problems.append(f"Only {system['disk_free_gib']} GiB are free in {system['data_folder']}; a model needs 2.")
    return problems


def _advice(report: dict[str, Any]) -> str:
    """Return the one thing to do or know next."""
    torch = report["torch"]
    if not torch or "error" in torch or not report["packages"]["monai"]:
        return "The engine's runtime is incomplete; install it, then run this again: pip install 'vista3d-core[cpu]'."
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
