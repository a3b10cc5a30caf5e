"""Requests about models and about this computer. None of them needs the network's runtime, except to check weights."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from VISTA3DCore.engine.protocol import (
    DiagnoseResult,
    DownloadParams,
    ImportParams,
    LicenceResult,
    ModelDetails,
    ModelParams,
    ModelResult,
    ModelsResult,
    NoParams,
    Params,
    Result,
)
from VISTA3DCore.errors import DeviceError, ModelError
from VISTA3DCore.models.claims import read_claims
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.models.store import ModelStore

Method = Callable[[Any, Progress], Result | None]


def methods() -> dict[str, Method]:
    """Return the requests that are answered here."""
    return {
        "models": _models,
        "licence": _licence,
        "download": _download,
        "import": _import,
        "verify": _verify,
        "delete": _delete,
        "diagnose": _diagnose,
    }


def call(method: str, params: Params, progress: Progress) -> Result | None:
    """Answer a request.

    :raises VistaError: as the model store does. :raises DeviceError: if a package is missing.
    """
    with _missing_packages():
        return methods()[method](params, progress)


def details(store: ModelStore, name: str) -> ModelDetails:
    """Return what is known of one model; cheap: nothing is hashed.

    :raises ModelError: if there is none of that name.
    """
    entry, status = store.entry(name), store.status(name)
    return ModelDetails(
        name=entry.name,
        title=entry.title,
        state=status.state,
        detail=status.detail,
        size=status.size,
        download_size=0 if entry.bundled else entry.size,
        path=None if status.path is None else str(status.path),
        licence=entry.licence,
        licence_url=entry.licence_url,
        bundled=entry.bundled,
        revision=entry.revision,
        label_set=entry.label_set,
        claimed=None if status.path is None else _claimed(status.path),
        cleanup=entry.cleanup,
    )


def _claimed(path: Path) -> int | None:
    with contextlib.suppress(ModelError):  # one damaged file must not hide the other models
        claims = read_claims(path)
        return None if claims is None else len(claims.claimed)
    return None


def _models(_params: NoParams, _progress: Progress) -> ModelsResult:
    store = _store()
    return ModelsResult(tuple(details(store, entry.name) for entry in store.entries()), str(store.home))


def _licence(params: ModelParams, _progress: Progress) -> LicenceResult:
    store = _store()
    entry = store.entry(params.model)
    return LicenceResult(entry.licence, entry.licence_url, store.licence_text(params.model))


def _download(params: DownloadParams, progress: Progress) -> ModelResult:
    store = _store()
    store.download(params.model, params.accept_licence, progress)
    return ModelResult(details(store, params.model))


def _import(params: ImportParams, progress: Progress) -> ModelResult:
    store = _store()
    status = store.import_file(Path(params.path), params.model, params.accept_licence, progress)
    return ModelResult(details(store, status.name))


def _verify(params: ModelParams, progress: Progress) -> ModelResult:
    store = _store()
    store.verify(params.model, progress)
    return ModelResult(details(store, params.model))


def _delete(params: ModelParams, _progress: Progress) -> None:
    _store().delete(params.model)


def _diagnose(_params: NoParams, _progress: Progress) -> DiagnoseResult:
    from VISTA3DCore.engine.diagnosis import diagnose, diagnose_apart

    report = diagnose() if "torch" in sys.modules else diagnose_apart()
    return DiagnoseResult(**{**report, "nvidia": tuple(report["nvidia"]), "problems": tuple(report["problems"])})


def _store() -> ModelStore:
    from VISTA3DCore.models.store import ModelStore

    return ModelStore()


@contextlib.contextmanager
def _missing_packages() -> Iterator[None]:
    """:raises DeviceError: instead of an ImportError that names a package of somebody else."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "VISTA3DCore"):
            raise
        sentence = f"The Python package '{package}' is missing; install what VISTA3D needs first."
        raise DeviceError(sentence) from error
