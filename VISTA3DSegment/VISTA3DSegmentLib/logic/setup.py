# SPDX-License-Identifier: Apache-2.0
"""What VISTA3D needs before it can work, and how that gets here: at the user's wish, with Slicer's own means."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from VISTA3DCore.engine.environment import PYTHON_VARIABLE

from ..i18n import tr as _
from .signals import Signal

if TYPE_CHECKING:
    from .engine import Engine
    from .settings import Settings

log = logging.getLogger("vista3d.slicer")

READY, MISSING, RESTART, BROKEN = "ready", "missing", "restart", "broken"
EXTENSION = "PyTorch"
TORCH_REQUIREMENT = ">=2.8"
_TORCH_LEAST = (2, 8)


def installed_version(package: str) -> str | None:
    """Return an installed version of a package; empty if it is only half installed, None if it is not there.

    Nothing is imported: that would load its libraries, which Windows then refuses to replace.
    """
    importlib.invalidate_caches()
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    except Exception:  # damaged metadata fail in many ways
        return ""
    return version if version and importlib.util.find_spec(package) is not None else ""


@dataclass(frozen=True)
class Tools:
    """What Slicer offers for installing; the functions mean what those of the same names in Slicer mean.

    :param load_requirements: of ``slicer.packaging``.
    :param pip_check: of ``slicer.packaging``.
    :param pip_ensure: of ``slicer.packaging``; raises RuntimeError if the user declines.
    :param torch_utils: makes a ``PyTorchUtilsLogic``; raises ImportError without the PyTorch extension.
    :param install_extension: installs an extension after asking the user; returns whether Slicer must restart for it.
    :param version: of an installed package, see :func:`installed_version`.
    :param is_imported: whether a package is loaded in this process.
    """

    load_requirements: Callable[[Path], list[Any]]
    pip_check: Callable[[list[Any]], bool]
    pip_ensure: Callable[..., Any]
    torch_utils: Callable[[], Any]
    install_extension: Callable[[str], bool]
    version: Callable[[str], str | None] = installed_version
    is_imported: Callable[[str], bool] = field(default=lambda name: name in sys.modules)


@dataclass(frozen=True)
class SetupState:
    """How far set-up is.

    :param kind: ``ready``, ``missing``, ``restart`` or ``broken``.
    :param text: a sentence: what it is and what to do.
    """

    kind: str
    text: str


class Setup:
    """Knows what is missing, and installs it.

    Signals: ``changed()`` look at :meth:`state` again; ``installed()`` something was installed, so that the engine must
    be started anew; ``failed(sentence)``.

    :param requirements: the file that lists the packages beside PyTorch.
    :param environment: where ``VISTA3D_WORKER_PYTHON`` is looked up.
    """

    def __init__(
        self, tools: Tools, settings: Settings, requirements: Path, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.changed, self.installed, self.failed = Signal(), Signal(), Signal()
        self._tools, self._settings, self._environment = tools, settings, environment
        self._requirements_file = requirements
        self._restart = ""
        self._engine_problem = self._last_report = ""

    @property
    def own_python(self) -> str | None:
        """The interpreter that the user has chosen for the engine instead of Slicer's, or None."""
        return self._environment.get(PYTHON_VARIABLE) or self._settings.worker_python

    def state(self) -> SetupState:
        """Return how far set-up is; takes milliseconds and imports nothing."""
        state = self._installed()
        if state.kind == READY and self._engine_problem:
            return SetupState(BROKEN, self._engine_problem)
        return state

    def needed(self) -> str | None:
        """Return what must be done before the engine can start at all, in a sentence, or None."""
        state = self._installed()
        return None if state.kind == READY else state.text

    def install(self) -> SetupState:
        """Install what is missing, step by step, asking the user before each; return the state afterwards.

        To be called on the main thread, at the user's wish. Slicer's own dialogs show the progress.
        """
        for step in (self._install_extension, self._install_torch, self._install_packages):
            if self.state().kind in (READY, RESTART) or not step():
                break
        state = self.state()
        self._settings.pending_setup = state.kind == RESTART
        self.changed()
        return state

    def resume(self) -> bool:
        """Continue a set-up that needed a restart, once Slicer has been restarted; return whether there was one.

        To be called when the user opens the module, never at start-up. It asks as :meth:`install` does, and only once.
        """
        if self._restart or not self._settings.pending_setup:
            return False
        self._settings.pending_setup = False
        if self.state().kind == READY:
            return False
        self.install()
        return True

    def watch(self, engine: Engine) -> None:
        """Count an engine process that cannot be started as broken, until it can."""
        engine.reported.connect(self._on_report)
        engine.state_changed.connect(self._on_state)

    # What is there

    def _installed(self) -> SetupState:
        if self._restart:
            return SetupState(RESTART, self._restart)
        return self._chosen(self.own_python) if self.own_python else self._slicers_own()

    def _chosen(self, python: str) -> SetupState:
        if Path(python).is_file():
            return SetupState(READY, _("Ready; the engine runs under '{python}'.").format(python=python))
        sentence = _("The Python '{python}', chosen for the engine, does not exist; correct the setting or {variable}.")
        return SetupState(BROKEN, sentence.format(python=python, variable=PYTHON_VARIABLE))

    def _slicers_own(self) -> SetupState:
        torch, missing = self._tools.version("torch"), []
        if torch == "":
            return SetupState(
                BROKEN, _("PyTorch is only half installed; uninstall it in the PyTorch Utils module, then install it.")
            )
        if torch is None or not _is_enough(torch):
            missing.append(_torch_words(torch))
        if not self._has_packages():
            missing.append(_("MONAI, OpenVINO and a few small packages (about 100 MB)"))
        if not missing:
            return SetupState(READY, _("Ready."))
        sentence = _("Missing: {what}. 'Install packages' in Setup gets it, after asking you.")
        return SetupState(MISSING, sentence.format(what=_(" and ").join(missing)))

    def _has_packages(self) -> bool:
        return bool(self._tools.pip_check(self._tools.load_requirements(self._requirements_file)))

    def _has_torch(self) -> bool:
        torch = self._tools.version("torch")
        return bool(torch) and _is_enough(torch)

    # Steps; each returns whether to go on

    def _install_extension(self) -> bool:
        if self._has_torch() or self._torch_utils() is not None:
            return True
        try:
            if self._tools.install_extension(EXTENSION):
                self._restart = _(
                    "The PyTorch extension was installed; restart Slicer and open VISTA3D again to continue."
                )
                return False
        except Exception as error:
            return self._fail(_("The PyTorch extension cannot be installed"), error)
        if self._torch_utils() is None:
            self.failed(_("VISTA3D needs the PyTorch extension; install it with the Extensions Manager."))
            return False
        return True

    def _install_torch(self) -> bool:
        if self._has_torch():
            return True
        was_imported = self._tools.is_imported("torch")
        try:
            installed = self._torch_utils().installTorch(
                askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
            )
        except Exception as error:
            return self._fail(_("PyTorch cannot be installed"), error)
        if installed is None:
            self.failed(_("PyTorch was not installed, and VISTA3D needs it."))
            return False
        self._done()
        if was_imported:
            self._restart = _("An older PyTorch is still loaded; restart Slicer and open VISTA3D again to continue.")
        return not was_imported

    def _install_packages(self) -> bool:
        requirements = self._tools.load_requirements(self._requirements_file)
        try:
            self._tools.pip_ensure(requirements, requester="VISTA3D")
        except RuntimeError:
            self.failed(_("The packages were not installed, and VISTA3D needs them."))
            return False
        except Exception as error:
            return self._fail(_("The packages cannot be installed"), error)
        self._done()
        return True

    def _torch_utils(self) -> Any | None:
        try:
            return self._tools.torch_utils()
        except ImportError:
            return None

    def _done(self) -> None:
        self._engine_problem = ""
        self.installed()

    def _fail(self, what: str, error: Exception) -> bool:
        log.error("%s", what, exc_info=error)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.failed(_("{what} ({reason}); see the application's log for details.").format(what=what, reason=reason))
        return False

    # The engine

    def _on_report(self, sentence: str) -> None:
        self._last_report = sentence

    def _on_state(self, state: str) -> None:
        problem = {"failed": self._last_report, "ready": ""}.get(state, self._engine_problem)
        if problem != self._engine_problem:
            self._engine_problem = problem
            self.changed()


def _is_enough(version: str) -> bool:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return numbers >= _TORCH_LEAST


def _torch_words(present: str | None) -> str:
    size = _("about 200 MB for the processor, up to 3 GB for an NVIDIA GPU, through the PyTorch extension")
    if present is None:
        return _("PyTorch ({size})").format(size=size)
    return _("PyTorch 2.8 or newer instead of {present} ({size})").format(present=present, size=size)
