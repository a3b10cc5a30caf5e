# SPDX-License-Identifier: Apache-2.0
"""What this computer can do, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from ..i18n import tr as _
from .signals import Signal

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import DiagnoseResult
    from VISTA3DCore.errors import VistaError

    from .housekeeping import Housekeeping

FINE, NOTE, PROBLEM = "fine", "note", "problem"

# A card with less cannot hold a window of the released model and its features at once.
_ENOUGH_GPU_GIB = 7.0
# The longest path below site-packages that PyTorch installs has about 170 characters, of the 260 that Windows allows.
_LONGEST_FOLDER = 90


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    :param kind: ``fine``, ``note`` or ``problem``.
    :param text: a sentence.
    """

    kind: str
    text: str


class Doctor:
    """Looks at the computer.

    Signals: ``examined(list of findings)``; ``failed(sentence)``.
    """

    def __init__(self, housekeeping: Housekeeping) -> None:
        self.examined, self.failed = Signal(), Signal()
        self._housekeeping = housekeeping

    def examine(self) -> None:
        """Start to look; takes some seconds."""
        self._housekeeping.request("diagnose", None, self._on_report, self._on_failed)

    def _on_report(self, report: DiagnoseResult) -> None:
        self.examined(findings_of(report))

    def _on_failed(self, error: VistaError) -> None:
        self.failed(str(error))


def findings_of(report: DiagnoseResult) -> list[Finding]:
    """Return what a report of the engine means, problems first."""
    problems = [Finding(PROBLEM, sentence) for sentence in report.problems]
    system = report.system
    if long_paths := long_path_problem(system["executable"], system.get("long_paths")):
        problems.append(Finding(PROBLEM, long_paths))
    return [*problems, *_runtime(report), *_computer(system)]


def long_path_problem(executable: str, long_paths: bool | None) -> str | None:
    """Return a sentence if packages may not fit below a folder on Windows, else None.

    :param executable: path of the interpreter that packages are installed for.
    :param long_paths: whether Windows allows long paths; None: this is not Windows.
    """
    folder = str(PureWindowsPath(executable).parent)
    if long_paths is not False or len(folder) <= _LONGEST_FOLDER:
        return None
    return _(
        "Windows limits paths to 260 characters and '{folder}' takes {count} of them, so PyTorch may fail to install; "
        "enable long paths in Windows, or install Slicer into a folder with a shorter name."
    ).format(folder=folder, count=len(folder))


def _runtime(report: DiagnoseResult) -> list[Finding]:
    torch = report.torch
    if torch is None:
        return [Finding(NOTE, _("PyTorch is not installed yet."))]
    if "error" in torch:
        return []  # told as a problem
    version = _("PyTorch {version} works.").format(version=torch["version"])
    return [Finding(FINE, version), *_device(torch)]


def _device(torch: dict[str, Any]) -> list[Finding]:
    if torch["gpus"]:
        return [_card(gpu) for gpu in torch["gpus"]]
    if torch["mps"]:
        return [Finding(FINE, _("Apple's GPU is used."))]
    return [Finding(NOTE, _("There is no GPU that PyTorch can use: a whole CT takes minutes, a region less."))]


def _card(gpu: dict[str, Any]) -> Finding:
    facts = {"name": gpu["name"], "size": gpu["memory_gib"]}
    if gpu["memory_gib"] < _ENOUGH_GPU_GIB:
        return Finding(
            NOTE,
            _("The {name} has only {size} GB of memory; large volumes continue on the processor, more slowly.").format(
                **facts
            ),
        )
    return Finding(FINE, _("The {name} with {size} GB of memory is used.").format(**facts))


def _computer(system: dict[str, Any]) -> list[Finding]:
    facts = {"threads": system["cpu_threads"], "disk": system["disk_free_gib"], "folder": system["data_folder"]}
    found = [_("{threads} processor threads.").format(**facts)]
    if system["ram_gib"] is not None:
        memory = {"total": system["ram_gib"], "free": system["ram_free_gib"]}
        found.append(_("{total} GB of memory, {free} GB free.").format(**memory))
    found.append(_("{disk} GB free for models in '{folder}'.").format(**facts))
    return [Finding(FINE, text) for text in found]
