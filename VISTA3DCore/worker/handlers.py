"""Requests to engine calls, and their results to messages: nothing but translation. Runs on the inference thread."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import VISTA3DCore
from VISTA3DCore.errors import DeviceError, NotEnoughMemoryError, SlowerWarning, VistaError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress
from VISTA3DCore.worker.arrays import ArrayFolder, open_shared
from VISTA3DCore.worker.protocol import (
    PROTOCOL_VERSION,
    ArrayRef,
    ClickAnswer,
    ClickParams,
    CloseParams,
    HitParams,
    HitResult,
    InitializeParams,
    InitializeResult,
    InvalidParamsError,
    LoadParams,
    LoadResult,
    Memory,
    ModelInfo,
    OpenParams,
    OpenResult,
    Params,
    Result,
    SegmentParams,
    SegmentResult,
    SuggestionInfo,
    SuggestParams,
    SuggestResult,
    UncertaintyParams,
    UncertaintyResult,
    WarmParams,
    WarmResult,
)
from VISTA3DCore.worker.sessions import Holdings, Opened, memory_of

log = logging.getLogger("vista3d.worker")

Answer = TypeVar("Answer")

_FREED = "Memory ran out; what was kept for other requests was freed, and the request is tried once more."
_OUR_CODE = Path(VISTA3DCore.__file__).resolve().parent


class Handlers:
    """The engine as the protocol sees it.

    :param notify: tells people a sentence at once.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._holdings = Holdings(_load)
        self._device: Any = None
        self.directory: ArrayFolder | None = None
        self._base: tuple[ArrayRef, tuple[int, ...], np.ndarray] | None = None
        self._methods: dict[str, Callable[[Any, Progress], Result | None]] = {
            "initialize": self._initialize,
            "load": self._model,
            "open": self._open,
            "segment": self._segment,
            "click": self._click,
            "warm": self._warm,
            "hit": self._hit,
            "suggest": self._suggest,
            "uncertainty": self._uncertainty,
            "close": self._close,
        }

    @property
    def sessions(self) -> tuple[str, ...]:
        """Ids of the opened volumes; safe from any thread."""
        return self._holdings.sessions

    def memory(self) -> Memory:
        """Return the memory of the host and of the device that ``auto`` means; safe from any thread."""
        return memory_of(self._device)

    def use_directory(self, path: str) -> None:
        """Take the directory for arrays.

        :raises InputError: if it is not ours alone.
        """
        self.directory = open_shared(path)

    def call(self, method: str, params: Params, progress: Progress) -> Result | None:
        """Answer a request.

        :raises VistaError: as the engine does.
        """
        with _told_warnings(self._notify) as self._notes:
            try:
                return self._methods[method](params, progress)
            except ModuleNotFoundError as error:
                raise missing_runtime(error) from error

    # The engine and its models

    def _initialize(self, params: InitializeParams, progress: Progress) -> InitializeResult:
        from VISTA3DCore.inference.devices import choose_device

        choice = choose_device("auto")
        self._device = choice.device
        about_engine = PROTOCOL_VERSION, VISTA3DCore.__version__, os.getpid()
        return InitializeResult(*about_engine, str(choice.device), choice.reason, self.memory(), _models())

    def _model(self, params: LoadParams, progress: Progress) -> LoadResult:
        _, segmenter = self._with_room(None, lambda: self._holdings.model(params.model, params.device, progress))
        config = segmenter.config
        return LoadResult(
            config.name,
            str(segmenter.device),
            segmenter.device_reason,
            segmenter.available,
            config.click_branch,
            config.label_set,
            segmenter.provenance,
        )

    # Volumes

    def _open(self, params: OpenParams, progress: Progress) -> OpenResult:
        started = time.monotonic()
        opened = self._with_room(None, lambda: self._open_volume(params, progress))
        shape = opened.session.model_grid[0].shape
        return OpenResult(opened.id, shape, tuple(self._notes), _since(started))
