"""Requests to engine calls, and their results to messages: nothing but translation. Runs on the inference thread."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import VISTA3DCore
from VISTA3DCore.engine import model_management
from VISTA3DCore.engine.arrays import ArrayFolder, open_shared
from VISTA3DCore.engine.partial_results import Growing
from VISTA3DCore.engine.protocol import (
    PROTOCOL_VERSION,
    ArrayRef,
    ClaimInfo,
    ClaimsInfo,
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
    PartialInfo,
    ProbeParams,
    ProbeResult,
    ProtocolError,
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
from VISTA3DCore.engine.sessions import SessionRegistry, memory_of
from VISTA3DCore.errors import NotEnoughMemoryError, SlowerWarning, VistaError, runtime_errors
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    import torch

    from VISTA3DCore.imaging.segmentation import Partial, Segmentation
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.inference.session import Session
    from VISTA3DCore.models.claims import Claims

Answer = TypeVar("Answer")

_OUR_CODE = Path(VISTA3DCore.__file__).resolve().parent
_FREED = "Memory ran out; cached results were freed, and this request is tried once more."


def _ignore_partial(_partial: PartialInfo) -> None:
    """Ignore a partial result that was not asked for."""


class Handlers:
    """The engine as the protocol sees it.

    :param notify: shows people a sentence at once.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._registry = SessionRegistry(_load)
        self._device: torch.device | None = None
        self.directory: ArrayFolder | None = None
        self._computes = True
        self._base: tuple[tuple[ArrayRef, tuple[int, ...]], np.ndarray] | None = None
        self._report_partial: Callable[[PartialInfo], None] = _ignore_partial
        self._methods: dict[str, Callable[[Any, Progress], Result | None]] = {
            "initialize": self._initialize,
            "load": self._load_model,
            "probe": self._probe,
            "open": self._open,
            "segment": self._segment,
            "click": self._click,
            "warm": self._warm,
            "hit": self._hit,
            "suggest": self._suggest,
            "uncertainty": self._uncertainty,
            "close": self._close,
            **model_management.methods(),
        }

    @property
    def sessions(self) -> tuple[str, ...]:
        """Ids of the opened volumes; safe from any thread."""
        return self._registry.sessions

    def memory(self) -> Memory:
        """Return the memory of the host and of the device that ``auto`` means; safe from any thread."""
        return memory_of(self._device)

    def use_directory(self, path: str) -> None:
        """Take the directory for arrays.

        :raises InputError: if it is not ours alone.
        """
        self.directory = open_shared(path)

    @property
    def _folder(self) -> ArrayFolder:
        assert self.directory is not None  # initialize comes first
        return self.directory

    def call(
        self,
        method: str,
        params: Params,
        progress: Progress,
        report_partial: Callable[[PartialInfo], None] = _ignore_partial,
    ) -> Result | None:
        """Answer a request; our own warnings go into the result's notes, or become notices where it has none.

        :param report_partial: receives partial results, where the request asks for them.
        :raises VistaError: as the engine does. :raises ProtocolError: if it computes, and this engine does not.
        """
        if method in model_management.methods():
            return model_management.call(method, params, progress)
        if not self._computes and method != "initialize":
            raise ProtocolError(f"This engine was not started to compute, and '{method}' does.")
        self._report_partial = report_partial
        with _collected_warnings(self._notify) as notes, runtime_errors():
            result = self._with_room(lambda: self._methods[method](params, progress))
        if isinstance(result, OpenResult | SegmentResult):
            return replace(result, notes=tuple(notes))
        for sentence in notes:
            self._notify(sentence)
        return result

    def _with_room(self, action: Callable[[], Answer]) -> Answer:
        """Run an action; if memory runs out although the engine has stepped down, free all caches and try again."""
        try:
            return action()
        except Exception as error:
            if not _ran_out_of_memory(error):
                raise
        # Outside the handler: the traceback would keep the failed attempt's arrays alive.
        self._registry.free_caches()
        self._notify(_FREED)
        try:
            return action()
        except Exception as error:
            if isinstance(error, VistaError) or not _ran_out_of_memory(error):
                raise
            sentence = "There is not enough memory for this request; close other volumes or programs."
            raise NotEnoughMemoryError(sentence) from error

    # The engine and its models

    def _initialize(self, params: InitializeParams, _progress: Progress) -> InitializeResult:
        identity = PROTOCOL_VERSION, VISTA3DCore.__version__, os.getpid()
        self._computes = params.compute
        if not params.compute:
            return InitializeResult(*identity, "", "this engine only manages models", self.memory(), _known_models())
        from VISTA3DCore.backends.devices import choose_device

        choice = choose_device("auto")
        self._device = choice.device
        return InitializeResult(*identity, str(choice.device), choice.reason, self.memory(), _known_models())

    def _load_model(self, params: LoadParams, progress: Progress) -> LoadResult:
        segmenter = self._model(params, progress)
        return LoadResult(
            params.model,
            str(segmenter.device),
            segmenter.device_reason,
            segmenter.available,
            segmenter.config.click_branch,
            segmenter.config.label_set,
            segmenter.provenance,
            segmenter.runtime,
            segmenter.precision,
            segmenter.runtime_reason,
            segmenter.trained,
            _claims_info(segmenter.claims),
        )

    def _probe(self, params: ProbeParams, progress: Progress) -> ProbeResult:
        segmenter = self._model(params, progress)
        config = segmenter.config
        return ProbeResult(segmenter.window_ms(), config.window, config.spacing, str(segmenter.device))

    def _model(self, params: LoadParams | OpenParams | ProbeParams, progress: Progress) -> Segmenter:
        return self._registry.model(params.model, params.device, progress, params.runtime, params.precision)

    # Volumes

    def _open(self, params: OpenParams, progress: Progress) -> OpenResult:
        # The volume's file is mapped only as long as this call takes.
        array = self._folder.get(params.volume)
        if params.volume.affine is None:
            raise InvalidParamsError("The field 'volume.affine' is missing; a volume needs one.")
        segmenter = self._model(params, progress.part(0.0, 0.3))
        started = time.monotonic()
        volume = Volume(array, np.array(params.volume.affine), params.name, params.modality)
        opened = self._registry.open(volume, segmenter, progress.part(0.3, 1.0), params.grid)
        engine_ms = _since(started)
        config, shape = segmenter.config, opened.session.model_grid[0].shape
        return OpenResult(
            opened.id,
            shape,
            engine_ms=engine_ms,
            window=config.window,
            spacing=config.spacing,
            device=str(segmenter.device),
            label_set=config.label_set,
        )

    def _segment(self, params: SegmentParams, progress: Progress) -> SegmentResult:
        session, started = self._session(params.session), time.monotonic()
        asked = params.structures, params.preset, params.restoration, params.roi, progress, params.streaming

        def send(part: Partial) -> None:
            self._report_partial(PartialInfo(*self._written(part.segmentation(), progress), part.fraction))

        found = session.segment(
            *asked,
            body_crop=params.body_crop,
            localize=params.localize,
            cleanup=params.cleanup,
            on_partial=Growing(send) if params.partial else None,
            order_from=params.order_from,
        )
        engine_ms, kept = _since(started), session.keeps_features(params.preset, params.roi, params.body_crop)
        return SegmentResult(*self._written(found, progress), found.provenance, engine_ms=engine_ms, kept=kept)

    def _written(
        self, found: Segmentation, progress: Progress
    ) -> tuple[ArrayRef, dict[str, ArrayRef], tuple[int, ...]]:
        """Return the files of a segmentation's labels and masks, and its structures."""
        with self._results() as put:
            labels = put(found.labels, found.affine)
            masks = {str(index): put(mask) for index, mask in found.masks.items()}
            progress.check()
        return labels, masks, tuple(structure.index for structure in found.structures)

    def _close(self, params: CloseParams, _progress: Progress) -> None:
        self._base = None
        self._registry.close(params.session)

    # Clicks

    def _click(self, params: ClickParams, progress: Progress) -> ClickAnswer:
        session, base, started = self._session(params.session), self._mask(params.base), time.monotonic()
        options: dict[str, Any] = {"settled": params.settled, "policy": params.policy, "variant": params.variant}
        found = session.click(params.structure, params.clicks, base, progress=progress, **options)
        engine_ms = _since(started)
        with self._results() as put:
            patch = put(found.patch) if found.changed else None
        first, second, third = ((part.start, part.stop) for part in found.box)
        structure = None if found.structure is None else found.structure.index
        return ClickAnswer((first, second, third), patch, found.touched, found.encoded, structure, engine_ms)

    def _warm(self, params: WarmParams, progress: Progress) -> WarmResult:
        return WarmResult(self._session(params.session).warm(params.position, params.policy, progress))

    def _hit(self, params: HitParams, _progress: Progress) -> HitResult:
        return HitResult(self._session(params.session).hit(params.structure, params.position).index)

    def _suggest(self, params: SuggestParams, progress: Progress) -> SuggestResult:
        session, base = self._session(params.session), self._mask(params.base)
        options: dict[str, Any] = {"settled": params.settled, "progress": progress}
        found = session.suggest(params.structure, params.clicks, base, params.count, **options)
        return SuggestResult(tuple(SuggestionInfo(one.position, one.score, one.positive) for one in found))

    def _uncertainty(self, params: UncertaintyParams, progress: Progress) -> UncertaintyResult:
        session, base = self._session(params.session), self._mask(params.base)
        found = session.uncertainty(params.structure, params.clicks, base, progress=progress)
        with self._results() as put:
            return UncertaintyResult(put(found, session.model_grid[1]))

    # Help

    def _session(self, id_: str) -> Session:
        opened = self._registry.find(id_)
        self._registry.make_room(opened.segmenter, opened)
        return opened.session

    def _mask(self, ref: ArrayRef | None) -> np.ndarray | None:
        """Map a base mask; the last one stays mapped, because mapping a large one again takes milliseconds."""
        if ref is None:
            return None
        key = ref, self._folder.stamp(ref)
        if self._base is None or self._base[0] != key:
            self._base = key, self._folder.get(ref)
        return self._base[1]

    @contextlib.contextmanager
    def _results(self) -> Iterator[Callable[..., ArrayRef]]:
        """Hand out a function that writes result files; none of them stays if anything goes wrong."""
        written: list[str] = []

        def put(array: np.ndarray, affine: np.ndarray | None = None) -> ArrayRef:
            ref = self._folder.put(array, affine)
            written.append(ref.file)
            return ref

        try:
            yield put
        except BaseException:
            for name in written:
                self._folder.delete(name)
            raise


def _load(model: str, device: str, progress: Progress, runtime: str, precision: str) -> Segmenter:
    from VISTA3DCore.inference.segmenter import Segmenter

    return Segmenter.from_pretrained(model, device, progress, runtime, precision)


def _claims_info(claims: Claims | None) -> ClaimsInfo | None:
    if claims is None:
        return None
    figures = claims.structures.items()
    return ClaimsInfo(claims.threshold, {str(index): ClaimInfo(**asdict(claim)) for index, claim in figures})


def _known_models() -> tuple[ModelInfo, ...]:
    from VISTA3DCore.models.store import ModelStore

    store = ModelStore()
    return tuple(
        ModelInfo(
            entry.name,
            entry.title,
            store.status(entry.name).state in ("present", "verified"),
            entry.bundled,
            entry.licence,
        )
        for entry in store.entries()
    )


def _ran_out_of_memory(error: Exception) -> bool:
    if isinstance(error, NotEnoughMemoryError | MemoryError):
        return True
    from VISTA3DCore.backends.memory import is_out_of_memory

    return is_out_of_memory(error)


def _since(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 3)


@contextlib.contextmanager
def _collected_warnings(at_once: Callable[[str], None]) -> Iterator[list[str]]:
    """Collect our own warnings, each once; what slows the present request down is reported at once."""
    notes: list[str] = []

    def collect(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        sentence = str(message)
        if issubclass(category, SlowerWarning):
            at_once(sentence)
        elif issubclass(category, UserWarning) and _OUR_CODE in Path(filename).resolve().parents:
            notes.extend([sentence] if sentence not in notes else [])

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = collect
        yield notes
