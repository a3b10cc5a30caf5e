"""Messages about models and about this computer; :mod:`VISTA3DCore.engine.protocol` says which belongs to what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from VISTA3DCore.engine.coding import Message
from VISTA3DCore.engine.messages import Params, Result


@dataclass(frozen=True, eq=False, repr=False)
class ModelDetails(Message):
    """What is known of a model; ``state`` and ``detail`` as :class:`VISTA3DCore.models.store.ModelStatus` says.

    ``size``: bytes on this computer; ``download_size``: bytes to fetch, about; ``path``: None while it is not here;
    ``claimed``: how many structures it claims to segment well, None where nothing is recorded; ``cleanup``: whether
    specks are removed from its automatic results by default, False from engines that do not report it.
    """

    name: str
    title: str
    state: str
    detail: str
    size: int
    download_size: int
    path: str | None
    licence: str
    licence_url: str
    bundled: bool
    revision: str
    label_set: str
    claimed: int | None = None
    cleanup: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ModelsResult(Result):
    """``folder``: where models are kept."""

    models: tuple[ModelDetails, ...]
    folder: str


@dataclass(frozen=True, eq=False, repr=False)
class ModelParams(Params):
    """One model, by name."""

    model: str


@dataclass(frozen=True, eq=False, repr=False)
class ProbeParams(Params):
    """How fast a model runs: one window of it is computed. Any other request goes first."""

    model: str
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult(Result):
    """``window_ms``: of one window; ``window``, ``spacing``, ``device``: as :class:`OpenResult` has them."""

    window_ms: float
    window: tuple[int, int, int]
    spacing: tuple[float, float, float]
    device: str


@dataclass(frozen=True, eq=False, repr=False)
class LicenceResult(Result):
    """``text``: the whole licence."""

    title: str
    url: str
    text: str


@dataclass(frozen=True, eq=False, repr=False)
class DownloadParams(Params):
    """``accept_licence``: the user has read the licence and agrees."""

    model: str
    accept_licence: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ImportParams(Params):
    """``path``: of the weights file; ``model``: which one it is, if the file does not say so itself."""

    path: str
    model: str | None = None
    accept_licence: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ModelResult(Result):
    """What is known of the model now."""

    model: ModelDetails


@dataclass(frozen=True, eq=False, repr=False)
class DiagnoseResult(Result):
    """See :func:`VISTA3DCore.engine.diagnosis.diagnose`; ``problems`` are sentences for people."""

    system: dict[str, Any]
    torch: dict[str, Any] | None
    nvidia: tuple[dict[str, Any], ...]
    packages: dict[str, Any]
    models: dict[str, str]
    problems: tuple[str, ...]
