"""What this computer can do: Python, PyTorch, GPU, memory, disk, models; works before PyTorch is installed.

``python -m VISTA3DCore.engine.diagnosis`` prints it as JSON, so that a process can ask without importing PyTorch.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from VISTA3DCore import __version__
from VISTA3DCore.child_processes import WorkingFolder, child_environment, find_program, no_window, python_command
from VISTA3DCore.paths import user_data_dir

GIB = 2.0**30
PACKAGES = (
    "numpy",
    "SimpleITK",
    "safetensors",
    "huggingface-hub",
    "filelock",
    "psutil",
    "monai",
    "openvino",
    "matplotlib",
    "nibabel",
)
_NEEDED_RAM_GIB = 8.0  # the released model on the CPU: 1 GB of weights, about 4 GB for a window of 128^3, the volume
_NEEDED_DISK_GIB = 2.0  # one released model, twice while it is checked
_NVIDIA_TIMEOUT_S = 10.0
# A cold import of torch from a slow disk.
_APART_TIMEOUT_S = 180.0


def diagnose() -> dict[str, Any]:
    """Return what was found, ready for JSON; ``problems`` are sentences. Imports PyTorch if it is there."""
    return _complete(_torch())


def diagnose_apart() -> dict[str, Any]:
    """As :func:`diagnose`, but PyTorch is looked at by another process: it may crash, and is not imported here."""
    if version_of("torch") is None:
        return _complete(None)
    try:
        with WorkingFolder() as folder:
            done = subprocess.run(
                python_command(__name__),
                cwd=folder,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_APART_TIMEOUT_S,
                check=True,
                **no_window(),
            )
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return _complete({"version": version_of("torch"), "error": f"its process failed: {type(error).__name__}"})


def version_of(package: str) -> str | None:
    """Return the version of an installed distribution, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _complete(torch: dict[str, Any] | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "system": _system(),
        "torch": torch,
        "nvidia": _nvidia(),
        "packages": {package: version_of(package) for package in PACKAGES},
        "models": _models(),
    }
    report["problems"] = _problems(report)
    return report


def _system() -> dict[str, Any]:
    total, available = _memory()
    folder = user_data_dir()
    return {
        "vista3d": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "os": platform.platform(),
        "cpu_threads": _cpu_threads(),
        "ram_gib": total,
        "ram_free_gib": available,
        "data_folder": str(folder),
        "disk_free_gib": round(shutil.disk_usage(_existing(folder)).free / GIB, 1),
        "long_paths": _long_paths(),
    }


def _memory() -> tuple[float | None, float | None]:
    """Return the total and the free memory in GiB; None where psutil is not installed yet."""
    try:
        import psutil
    except ImportError:
        return None, None
    memory = psutil.virtual_memory()
    return round(memory.total / GIB, 1), round(memory.available / GIB, 1)


def _cpu_threads() -> int:
    """Return the threads that this process may use: fewer than the computer has, in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _existing(folder: Path) -> Path:
    return next(candidate for candidate in (folder, *folder.absolute().parents) if candidate.exists())


def _long_paths() -> bool | None:
    """Whether Windows allows paths beyond 260 characters; None on other systems, which always do."""
    if sys.platform != "win32":
        return None
    import winreg

    key = r"SYSTEM\CurrentControlSet\Control\FileSystem"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            return bool(winreg.QueryValueEx(opened, "LongPathsEnabled")[0])
    except OSError:
        return False


def _torch() -> dict[str, Any] | None:
    """Return what PyTorch says about itself and the devices, or None without it; an ``error`` if it does not load."""
    if version_of("torch") is None:
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
            "problems": _known_problems(),
        }
    except Exception as error:  # a broken installation can fail in any way, and telling so is the purpose
        return {"version": version_of("torch"), "error": f"{type(error).__name__}: {error}"}


def _known_problems() -> list[str]:
    from VISTA3DCore.backends.devices import known_problems

    return known_problems()


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


def _nvidia() -> list[dict[str, str]]:
    """Return the cards that NVIDIA's driver knows, with its version; torch need not be able to use them."""
    command = find_program("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=_NVIDIA_TIMEOUT_S, check=True, **no_window()
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return cards_in(done.stdout)


def cards_in(text: str) -> list[dict[str, str]]:
    """Return the cards in what ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader`` prints."""
    rows = [[part.strip() for part in line.rsplit(",", 1)] for line in text.splitlines()]
    return [{"name": row[0], "driver": row[1]} for row in rows if len(row) == 2]


def _models() -> dict[str, str]:
    from VISTA3DCore.models.store import ModelStore

    store = ModelStore()
    return {entry.name: store.status(entry.name).state for entry in store.entries()}


def _problems(report: dict[str, Any]) -> list[str]:
    system, torch = report["system"], report["torch"] or {}
    problems = list(torch.get("problems", ()))
    if "error" in torch:
        problems.append(f"PyTorch {torch['version']} is installed but does not load ({torch['error']}).")
    elif torch and not torch["gpus"] and report["nvidia"]:
        problems.append(_unused_card(report["nvidia"][0], torch))
    if (system["ram_gib"] or _NEEDED_RAM_GIB) < _NEEDED_RAM_GIB:
        problems.append(
            f"The {system['ram_gib']} GiB of memory are too little for the full model on a CT; use the small model or "
            "a region."
        )
    if system["disk_free_gib"] < _NEEDED_DISK_GIB:
        problems.append(f"Only {system['disk_free_gib']} GiB are free in {system['data_folder']}; a model needs 2.")
    return problems


def _unused_card(card: dict[str, str], torch: dict[str, Any]) -> str:
    """Return why an NVIDIA card stays idle, and what to do."""
    if torch["cuda"] is None:
        return f"The {card['name']} is not used: PyTorch {torch['version']} is built without CUDA; reinstall it."
    return (
        f"The {card['name']} stays unused: PyTorch {torch['version']} (CUDA {torch['cuda']}) cannot use it with driver "
        f"{card['driver']}; update the driver."
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(diagnose()))
