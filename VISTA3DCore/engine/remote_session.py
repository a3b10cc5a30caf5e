"""An opened volume in the engine process, with the methods of :class:`VISTA3DCore.inference.session.Session`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.client import plain_target, segment_params
from VISTA3DCore.engine.protocol import (
    ArrayRef,
    ClickParams,
    CloseParams,
    HitParams,
    LoadResult,
    OpenResult,
    ProtocolError,
    SuggestParams,
    UncertaintyParams,
    WarmParams,
)
from VISTA3DCore.errors import InputError, VistaError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import Region
from VISTA3DCore.inference.clicks.results import EMPTY_BOX, ClickResult, Suggestion, is_frozen

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.engine.blocking_client import BlockingClient
    from VISTA3DCore.engine.client import ProgressEvent, Target
    from VISTA3DCore.engine.messages import Position
    from VISTA3DCore.engine.protocol import PartialInfo, SegmentResult
    from VISTA3DCore.imaging.segmentation import Partial, Segmentation
    from VISTA3DCore.inference.session import ProgressLike, Structures


class RemoteSession:
    """An opened volume in the engine process; as :class:`VISTA3DCore.inference.session.Session`.

    Not for use by several threads at once.
    """

    def __init__(
        self,
        client: BlockingClient,
        loaded: LoadResult,
        opened: OpenResult,
        affine: np.ndarray,
        shape: tuple[int, int, int],
    ) -> None:
        from VISTA3DCore.anatomy.catalogue import catalogue

        self._client, self._shared, self._id = client, client.shared, opened.session
        self._affine, self._shape = affine, shape
        self._base = _SentBase(client.shared)
        self._closed = False
        self.model, self.model_shape = loaded, opened.model_shape
        self._catalogue = catalogue(loaded.label_set)

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the session; harmless if it is closed, or if the engine process has ended."""
        if not self._closed:
            self._closed = True
            self._base.clear()
            with contextlib.suppress(VistaError):
                self._client.call("close", CloseParams(self._id))

    def segment(  # noqa: PLR0913 - each parameter is an option
        self,
        structures: Structures,
        preset: str = "bundle",
        restoration: str = "nearest",
        roi: Region | Sequence[float] | None = None,
        progress: ProgressLike = None,
        streaming: bool | None = None,
        *,
        body_crop: bool = False,
        localize: bool = False,
        cleanup: bool | None = None,
        on_partial: Callable[[Partial], None] | None = None,
        order_from: Sequence[float] | None = None,
    ) -> Segmentation:
        """As :meth:`VISTA3DCore.inference.session.Session.segment`.

        :param on_partial: is called from this thread every few seconds, not after each window.
        """
        options: dict[str, Any] = {
            "body_crop": bool(body_crop),
            "localize": bool(localize),
            "partial": on_partial is not None,
        }
        options["cleanup"] = cleanup
        if order_from is not None:
            options["order_from"] = _position(order_from)
        params = segment_params(self._session, structures, preset, restoration, roi, streaming, **options)
        shown = None if on_partial is None else partial(self._show, on_partial)
        found = self._client.call("segment", params, progress, on_partial=shown)
        emit_notes(found.notes)
        return self._segmentation(found, found.provenance)

    def _show(self, on_partial: Callable[[Partial], None], event: ProgressEvent) -> None:
        from VISTA3DCore.imaging.segmentation import Partial

        assert event.partial is not None  # what on_partial is called for
        found = self._segmentation(event.partial, {})
        on_partial(Partial(event.partial.fraction, lambda: found))

    def _segmentation(self, found: SegmentResult | PartialInfo, provenance: Mapping[str, str]) -> Segmentation:
        from VISTA3DCore.imaging.segmentation import Segmentation

        labels, *masks = self._take(found.labels, *found.masks.values())
        return Segmentation(
            labels,
            dict(zip(map(int, found.masks), masks, strict=True)),
            tuple(self._catalogue[index] for index in found.structures),
            self._affine.copy(),
            dict(provenance),
        )

    def click(
        self,
        structure: Target,
        clicks: Sequence[Click],
        base: np.ndarray | None = None,
        *,
        settled: int = 0,
        policy: str = "reuse",
        variant: str | None = None,
        progress: ProgressLike = None,
    ) -> ClickResult:
        """As :meth:`VISTA3DCore.inference.session.Session.click`.

        A base that equals the last one is not sent again. Comparing takes some time for a large one, unless it is the
        same array and read-only (``base.flags.writeable = False``).
        """
        arguments = plain_target(structure), tuple(clicks), self._base.ref(base)
        params = ClickParams(self._session, *arguments, int(settled), policy, variant)
        answer = self._client.call("click", params, progress)
        if answer.patch is None:
            box, patch = EMPTY_BOX, np.zeros((0, 0, 0), dtype=bool)
        else:
            first, second, third = (slice(*ends) for ends in answer.box)
            box, (patch,) = (first, second, third), self._take(answer.patch)
        target = None if answer.structure is None else self._catalogue[answer.structure]
        return ClickResult(base, self._shape, box, patch, answer.touched, answer.encoded, target)

    def warm(self, position: Sequence[float], policy: str = "reuse", progress: ProgressLike = None) -> int:
        """As :meth:`VISTA3DCore.inference.session.Session.warm`."""
        params = WarmParams(self._session, _position(position), policy)
        return self._client.call("warm", params, progress).encoded

    def hit(self, structure: Target, position: Sequence[float]) -> Structure:
        """As :meth:`VISTA3DCore.inference.session.Session.hit`."""
        params = HitParams(self._session, cast("str | int", plain_target(structure)), _position(position))
        return self._catalogue[self._client.call("hit", params).structure]

    def uncertainty(
        self,
        structure: Target,
        clicks: Sequence[Click],
        base: np.ndarray | None = None,
        *,
        progress: ProgressLike = None,
    ) -> np.ndarray:
        """As :meth:`VISTA3DCore.inference.session.Session.uncertainty`."""
        params = UncertaintyParams(self._session, plain_target(structure), tuple(clicks), self._base.ref(base))
        (doubt,) = self._take(self._client.call("uncertainty", params, progress).uncertainty)
        return doubt

    def suggest(
        self,
        structure: Target,
        clicks: Sequence[Click],
        base: np.ndarray | None = None,
        count: int = 1,
        *,
        settled: int = 0,
        progress: ProgressLike = None,
    ) -> tuple[Suggestion, ...]:
        """As :meth:`VISTA3DCore.inference.session.Session.suggest`."""
        arguments = plain_target(structure), tuple(clicks), self._base.ref(base), int(count), int(settled)
        found = self._client.call("suggest", SuggestParams(self._session, *arguments), progress)
        return tuple(Suggestion(one.position, one.score, one.positive) for one in found.suggestions)

    @property
    def _session(self) -> str:
        if self._closed:
            raise InputError("The session is closed; open the volume again.")
        return self._id

    def _take(self, *refs: ArrayRef) -> list[np.ndarray]:
        """Take results; no file stays, even if one of them is damaged."""
        try:
            return [self._shared.take(ref) for ref in refs]
        finally:
            for ref in refs:
                with contextlib.suppress(ProtocolError):
                    self._shared.delete(ref.file)


class _SentBase:
    """The mask that was sent last, which stays in the shared directory while clicks are asked about it."""

    def __init__(self, shared: SharedDirectory) -> None:
        self._shared = shared
        self._ref: ArrayRef | None = None
        self._content: np.ndarray | None = None
        self._array: np.ndarray | None = None

    def ref(self, base: np.ndarray | None) -> ArrayRef | None:
        """Return the reference to a base, which is sent unless it is there.

        :raises OutputError: if it cannot be written.
        """
        if base is None:
            return None
        if not self._holds(base):
            self.clear()
            self._ref = self._shared.put(base)
            self._content = self._shared.get(self._ref)
        self._array = base
        return self._ref

    def clear(self) -> None:
        """Delete the file."""
        ref, self._ref, self._content, self._array = self._ref, None, None, None
        if ref is not None:
            self._shared.delete(ref.file)

    def _holds(self, base: np.ndarray) -> bool:
        if self._content is None:
            return False
        if base is self._array and is_frozen(base):
            return True
        base = np.asarray(base)
        return base.dtype == self._content.dtype and np.array_equal(base, self._content)


def _position(position: Sequence[float]) -> Position:
    """:raises InputError: if it is not three finite numbers."""
    return Click(cast("Position", tuple(position))).position  # Click checks how many there are


def emit_notes(notes: Sequence[str]) -> None:
    """Turn the notes of a result into warnings, as the engine in-process does."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=1)
