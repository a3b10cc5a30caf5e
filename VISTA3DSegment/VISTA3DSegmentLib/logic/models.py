# SPDX-License-Identifier: Apache-2.0
"""Models: which there are, getting, checking and removing them; and what the chosen one knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from VISTA3DCore.engine.client import model_on_wire
from VISTA3DCore.engine.protocol import (
    DownloadParams,
    ImportParams,
    LicenceResult,
    LoadParams,
    LoadResult,
    ModelDetails,
    ModelParams,
    ModelResult,
    ModelsResult,
    Params,
)
from VISTA3DCore.errors import Cancelled, VistaError

from ..i18n import tr as _
from .signals import Signal
from .wording import short_title, title_of

if TYPE_CHECKING:
    from VISTA3DCore.engine.client import ProgressEvent

    from .engine import Engine, Pending
    from .housekeeping import Housekeeping


class ModelManager:
    """Does one thing at a time with the models on this computer.

    Signals: ``listed()`` look at :attr:`models` again; ``busy_changed(name of the model or "")``;
    ``progressed(fraction, text, remaining seconds or None)``; ``finished(sentence)``; ``failed(sentence)``.
    """

    def __init__(self, housekeeping: Housekeeping) -> None:
        self.listed, self.busy_changed, self.progressed = Signal(), Signal(), Signal()
        self.finished, self.failed = Signal(), Signal()
        self._housekeeping = housekeeping
        self._models: tuple[ModelDetails, ...] = ()
        self._folder = ""
        self._pending: Pending | None = None
        self._busy = ""

    @property
    def models(self) -> tuple[ModelDetails, ...]:
        """All models that can be had by name, as they were at the last look."""
        return self._models

    @property
    def folder(self) -> str:
        """Where models are kept; empty before the first look."""
        return self._folder

    @property
    def busy(self) -> str:
        """What is being worked on: a model's name, or the imported file; empty: nothing."""
        return self._busy

    def find(self, name: str) -> ModelDetails | None:
        """Return a model by name."""
        return next((model for model in self._models if model.name == name), None)

    def installed(self) -> tuple[ModelDetails, ...]:
        """Return the models that can be used."""
        return tuple(model for model in self._models if model.path is not None)

    def refresh(self) -> None:
        """Look again what is on this computer."""
        self._housekeeping.request("models", None, self._on_listed, self._on_failed)

    def licence(self, name: str, on_text: Callable[[LicenceResult], Any]) -> None:
        """Fetch a model's licence, to be shown before :meth:`download` or :meth:`import_file`."""
        self._housekeeping.request("licence", ModelParams(name), on_text, self._on_failed)

    def download(self, name: str, accept_licence: bool) -> None:
        """Download a model, going on where an earlier attempt stopped.

        :param accept_licence: the user has read the licence and agrees.
        """
        done = _("The model '{name}' is ready.")
        self._work("download", DownloadParams(name, accept_licence), name, done)

    def import_file(self, path: str, name: str | None, accept_licence: bool) -> None:
        """Take a model from a file, without a network.

        :param name: which model it is; None: the file says so itself.
        """
        done = _("The model '{name}' is ready.")
        self._work("import", ImportParams(str(Path(path).absolute()), name, accept_licence), name or path, done)

    def verify(self, name: str) -> None:
        """Compare a model's weights with the published hash."""
        self._work("verify", ModelParams(name), name, _("The model '{name}' is intact: {detail}."))

    def delete(self, name: str) -> None:
        """Remove a model from this computer."""
        self._work("delete", ModelParams(name), name, _("The model '{name}' was deleted."))

    def cancel(self) -> None:
        """Stop what is going on; a download keeps what has arrived."""
        if self._pending is not None:
            self._pending.cancel()

    def _work(self, method: str, params: Params, name: str, done: str) -> None:
        if self._busy:
            self.failed(_("'{name}' is in progress; wait for it, or cancel it.").format(name=title_of(self._busy)))
            return
        self._set_busy(name)
        self._pending = self._housekeeping.request(
            method, params, partial(self._on_done, name, done), self._on_work_failed, self._on_progress
        )

    def _on_listed(self, result: ModelsResult) -> None:
        self._models, self._folder = result.models, result.folder
        self.listed()

    def _on_progress(self, event: ProgressEvent) -> None:
        text = f"{event.stage}: {event.message}" if event.message else event.stage
        self.progressed(event.fraction, text, event.remaining_s)

    def _on_done(self, name: str, sentence: str, result: ModelResult | None) -> None:
        self._set_busy("")
        self.refresh()
        model = None if result is None else result.model
        title, detail = (title_of(name), "") if model is None else (short_title(model.title), model.detail)
        self.finished(sentence.format(name=title, detail=detail))

    def _on_work_failed(self, error: VistaError) -> None:
        self._set_busy("")
        self.refresh()
        if isinstance(error, Cancelled):
            self.finished(_("Stopped; the part that was downloaded is kept."))
        else:
            self._on_failed(error)

    def _on_failed(self, error: VistaError) -> None:
        self.failed(str(error))

    def _set_busy(self, name: str) -> None:
        self._busy, self._pending = name, None
        self.busy_changed(name)


class LoadedModel:
    """What the chosen model knows; asking loads it in the engine, ahead of its first use.

    Signals: ``loaded(LoadResult)``; ``progressed(fraction, text, remaining seconds or None)``; ``failed(sentence)``.
    """

    def __init__(self, engine: Engine) -> None:
        self.loaded, self.progressed, self.failed = Signal(), Signal(), Signal()
        self._engine = engine
        self._asked: LoadParams | None = None
        self._result: LoadResult | None = None
        self._pending: Pending | None = None
        engine.stopped.connect(self._forget)

    @property
    def result(self) -> LoadResult | None:
        """What the engine told of the model, None while it is not loaded."""
        return self._result

    def load(self, model: str, device: str = "auto") -> None:
        """Load a model, unless it is or is being loaded already; an earlier wish is forgotten."""
        params = LoadParams(model_on_wire(model), device)
        if params == self._asked:
            return
        self._forget()
        self._asked = params
        self._pending = self._engine.request("load", params, self._on_loaded, self._on_failed, self._on_progress)

    def _on_loaded(self, result: LoadResult) -> None:
        self._result, self._pending = result, None
        self.loaded(result)

    def _on_failed(self, error: VistaError) -> None:
        self._forget()
        self.failed(str(error))

    def _on_progress(self, event: ProgressEvent) -> None:
        self.progressed(event.fraction, event.stage, event.remaining_s)

    def _forget(self) -> None:
        if self._pending is not None:
            self._pending.drop()
        self._asked = self._result = self._pending = None
