# SPDX-License-Identifier: Apache-2.0
"""The model and the device that the user has chosen: the same ones for runs, clicks and scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from VISTA3DCore.anatomy.catalogue import Catalogue, catalogue
from VISTA3DCore.models.registry import REGISTRY

from ..i18n import tr as _
from .signals import Signal

if TYPE_CHECKING:
    from .settings import Settings

# The one that comes with the extension, and the label set of a file that is not known by name.
_BUNDLED, _LABEL_SET = "mini", "vista3d-ct"


@dataclass(frozen=True)
class Choice:
    """What clicks are computed with.

    :param model, device: as the engine's ``open`` takes them.
    :param label_set: the catalogue that the model's structures belong to.
    """

    model: str
    device: str
    label_set: Catalogue


def installed_models() -> dict[str, int]:
    """Return the models that are on this computer, and their size in bytes; takes milliseconds."""
    from VISTA3DCore.models.store import ModelStore

    store = ModelStore()
    found = (store.status(entry.name) for entry in store.entries())
    return {one.name: one.size for one in found if one.path is not None}


class ChosenModel:
    """Knows the model and the device that count, wherever something is computed.

    Until the user chooses a model, it is the largest one on this computer that answers clicks.

    Signal: ``changed()``: the model or the device is another one.

    :param settings: keeps what the user has chosen.
    :param installed: returns models and their sizes, see :func:`installed_models`.
    """

    def __init__(self, settings: Settings, installed: Callable[[], dict[str, int]] = installed_models) -> None:
        self.changed = Signal()
        self._settings, self._look = settings, installed
        self._first: str | None = None
        self._known = self.model, self.device
        settings.changed.connect(self._on_setting)

    @property
    def model(self) -> str:
        """The name of the model, or the path of a weights file."""
        if self._settings.model:
            return self._settings.model
        if self._first is None:
            self._first = _largest(self._look())
        return self._first

    @property
    def device(self) -> str:
        """Where to compute, as the engine's ``open`` takes it."""
        return self._settings.device

    def choice(self) -> Choice:
        """Return both, and the structures that the model knows."""
        label_set = REGISTRY[self.model].label_set if self.model in REGISTRY else _LABEL_SET
        return Choice(self.model, self.device, catalogue(label_set))

    def refresh(self) -> None:
        """Look again which models are on this computer."""
        self._first = None
        self._compare()

    def _on_setting(self, name: str) -> None:
        if name in ("model", "device"):
            self._compare()

    def _compare(self) -> None:
        former, self._known = self._known, (self.model, self.device)
        if former != self._known:
            self.changed()


def _largest(installed: dict[str, int]) -> str:
    return max(installed, key=lambda name: (_answers_clicks(name), installed[name]), default=_BUNDLED)


def _answers_clicks(name: str) -> bool:
    entry = REGISTRY.get(name)
    return entry is None or entry.config is None or entry.config.click_branch


def offered_devices(found: str, chosen: str) -> list[tuple[str, str]]:
    """Return the devices to choose from, each with its name for people.

    :param found: what the engine uses by itself, e.g. ``cuda:0``; empty: it has not said so yet.
    :param chosen: the device that is chosen; it is offered in any case, so that it stays chosen.
    """
    kind = found.partition(":")[0]
    devices = {"auto": _("Automatic")}
    if kind in ("cuda", "mps"):
        devices[kind] = _name_of(kind)
    devices["cpu"] = _name_of("cpu")
    if chosen not in devices:
        name, missing = _name_of(chosen), bool(found) and kind != chosen.partition(":")[0]
        devices[chosen] = _("{name} (not found)").format(name=name) if missing else name
    return list(devices.items())


def offered_models(titles: Mapping[str, str], chosen: str) -> list[tuple[str, str]]:
    """Return the models to choose from, each with its title: those of a list, and the one that is chosen.

    :param titles: of the models that can be had by name.
    :param chosen: one of them, or the path of a weights file.
    """
    return list({**({} if chosen in titles else {chosen: Path(chosen).name}), **titles}.items())


def _name_of(device: str) -> str:
    kind, _colon, number = device.partition(":")
    name = {"mps": _("Graphics (Apple)"), "cpu": _("Processor")}.get(kind, _("Graphics card"))
    return f"{name} {number}" if number else name
