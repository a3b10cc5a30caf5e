# SPDX-License-Identifier: Apache-2.0
"""The automatic run: a volume and structures go in, segments come out; nothing is written unless all of it is there."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import Catalogue, Structure, catalogue
from VISTA3DCore.engine.protocol import SegmentParams, UnknownSessionError, WorkerGoneError, arrays_in
from VISTA3DCore.errors import InputError, OutputError, VistaError
from VISTA3DCore.imaging.geometry import to_region

from ..i18n import tr as _
from ..mrml.hiding import hidden_note
from ..mrml.names import name_of
from ..mrml.results import Written, write_in_steps
from ..mrml.segments import create_segmentation
from ..mrml.volumes import content_key
from .estimates import Forecast
from .last_run import LastRun
from .observers import watch_scene
from .preview import Preview
from .run_request import RunRequest
from .signals import Signal
from .stepping import Stepping
from .wording import names_of

if TYPE_CHECKING:
    from VISTA3DCore.engine.client import ProgressEvent
    from VISTA3DCore.engine.protocol import PartialInfo, SegmentResult

    from .engine import Engine, Pending
    from .settings import Settings
    from .volumes import OpenedVolumes

log = logging.getLogger("vista3d.slicer")
Value = TypeVar("Value")

# Which parts of the progress bar belong to opening the volume, and to what comes before writing.
_OPENING, _WRITING = 0.15, 0.97
# Longer runs show what is known in the meantime; for shorter ones that would be flicker.
_LONG_S = 10.0
# So many planes are looked at in a step.
_PLANES = 16


@dataclass(eq=False)
class _Run:
    """A run that is going on.

    :param content: of the volume when it began.
    :param names: of the volume and the segmentation: the nodes may be gone when they are needed.
    :param made: a new segmentation that is being written.
    :param preview: what the views show until then.
    """

    request: RunRequest
    content: Any
    names: tuple[str, str]
    preview: Preview
    pending: Pending | None = None
    session: str = ""
    made: slicer.vtkMRMLSegmentationNode | None = None


class AutomaticRun:
    """One run at a time.

    :param subject_hierarchy: where new segmentations get their place, if there is one.
    :param settings: where measured times are kept.

    Signals: ``started()``; ``progressed(fraction, text, remaining seconds or None)``; ``writing(segmentation node)``
    before an existing segmentation is changed, so that its state can be kept for undo; then exactly one of
    ``finished(segmentation node, ids of segments, notes for people)``, ``failed(sentence)``, ``cancelled()``. The first
    note tells how many structures were found. ``estimate_changed()``: :meth:`estimate` says something else now.

    :ivar last_run: undoes the run that was finished last.
    """

    def __init__(
        self,
        engine: Engine,
        volumes: OpenedVolumes,
        scene: slicer.vtkMRMLScene,
        subject_hierarchy: slicer.vtkMRMLSubjectHierarchyNode | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.started, self.progressed, self.writing = Signal(), Signal(), Signal()
        self.finished, self.failed, self.cancelled = Signal(), Signal(), Signal()
        self._engine, self._volumes, self._scene = engine, volumes, scene
        self._subject_hierarchy, self._forecast = subject_hierarchy, Forecast(engine, volumes, settings)
        self.estimate_changed = self._forecast.changed
        self.last_run = LastRun(scene, engine.call_later, self.writing)
        self._run: _Run | None = None
        self._observers: list[int] = []

    @property
    def running(self) -> bool:
        """Whether a run is going on."""
        return self._run is not None

    def start(self, request: RunRequest) -> None:
        """Start a run; what is wrong with the request is told by ``failed``.

        :raises InputError: if one is going on.
        """
        if self._run is not None:
            raise InputError(_("A run is in progress; cancel it first."))
        if sentence := request.problem():
            self.failed(sentence)
            return
        preview = Preview(self._engine, self._scene)
        run = self._run = _Run(request, content_key(request.volume), _names(request), preview)
        self._observe()
        self._forecast.stop()
        self.started()
        self.progressed(0.0, self._first_words(), None)
        run.pending = self._volumes.use(
            request.volume, request.model, request.device, self._on_opened, self._on_error, self._on_opening
        )

    def cancel(self) -> None:
        """Stop at once; nothing is written."""
        if self._drop():
            self.cancelled()

    def close(self) -> None:
        """Stop without a signal, e.g. because the application ends."""
        self._drop()
        self._forecast.stop()
        self.last_run.forget()

    def estimate(self, request: RunRequest) -> str | None:
        """Return how long a run would take, in words; None if nothing can be said, or nothing is asked for.

        What is not known is measured first, by one window of the network: ``estimate_changed`` tells when to ask again.
        """
        if request.problem() is not None:
            return None
        if self._run is None:
            self._forecast.probe(request)
        return self._forecast.in_words(request)

    # The course of a run

    def _on_opening(self, event: ProgressEvent) -> None:
        network_s = self._forecast.seconds(self._run.request)
        remaining = None if None in (network_s, event.remaining_s) else network_s + event.remaining_s
        self.progressed(_OPENING * event.fraction, _(event.stage), remaining)

    def _on_opened(self, session: str) -> None:
        request, self._run.session = self._run.request, session
        seconds = self._forecast.seconds(request)
        self.progressed(_OPENING, _("Segmenting"), seconds)
        options = request.preset, request.restoration, request.region
        growing = {"partial": seconds is None or seconds > _LONG_S, "order_from": request.looking_at}
        self._run.pending = self._engine.request(
            "segment",
            SegmentParams(session, request.structures, *options, cleanup=request.cleanup, **growing),
            self._on_result,
            self._on_error,
            self._on_segmenting,
        )

    def _on_segmenting(self, event: ProgressEvent) -> None:
        fraction = _OPENING + (_WRITING - _OPENING) * event.fraction
        self.progressed(fraction, _(event.stage), event.remaining_s)
        if event.partial is not None:
            self._show(event.partial)

    def _show(self, partial: PartialInfo) -> None:
        request = self._run.request
        opened = self._volumes.opened(request.volume, request.model, request.device)
        if opened is None:
            self._discard(partial)
        else:
            self._run.preview.show(partial, request.volume, catalogue(opened.label_set))

    def _on_result(self, result: SegmentResult) -> None:
        run, request = self._run, self._run.request
        opened = self._volumes.opened(request.volume, request.model, request.device)
        if opened is None or content_key(request.volume) != run.content:
            self._discard(result)
            sentence = _("'{name}' was changed during the run; nothing was written, start again.")
            self._fail(sentence.format(name=run.names[0]))
            return
        self._forecast.learn(request, run.session, result)
        self.progressed(_WRITING, _("Writing the segments"), 0.0)
        try:
            # Not in the first of the steps: a run that is cancelled before it would leave the files.
            arrays = self._engine.take_labels(result)
        except VistaError as error:
            self._on_error(error)
            return
        steps = _failing_in_words(self._written(run, catalogue(opened.label_set), opened.notes, result, *arrays))
        run.pending = Stepping(steps, self._engine.call_later, self._on_written, self._on_error)

    def _on_written(self, done: tuple[Written, list[str]]) -> None:
        (written, notes), change = done, done[0].change
        change.made_node, self._run.made = self._run.made is not None, None
        self._drop()
        self.last_run.keep(change)
        hidden = hidden_note(change.segmentation_node, written.ids)
        self.finished(change.segmentation_node, written.ids, [*notes, hidden] if hidden else notes)

    def _on_error(self, error: VistaError) -> None:
        request = self._run.request
        if isinstance(error, UnknownSessionError | WorkerGoneError):
            self._volumes.forget(request.volume)
        self._fail(str(error))

    def _written(
        self,
        run: _Run,
        label_set: Catalogue,
        notes: tuple[str, ...],
        result: SegmentResult,
        labels: np.ndarray,
        masks: Mapping[int, np.ndarray],
    ) -> Generator[None, None, tuple[Written, list[str]]]:
        """Write a result in steps; return what was written and what people should know.

        :raises VistaError: if it cannot be written; then nothing of it is in the scene.
        """
        request, structures = run.request, [label_set[index] for index in result.structures]
        present = yield from _present(labels, masks)
        node = request.segmentation
        if node is None:
            node = run.made = create_segmentation(
                self._scene, request.volume, subject_hierarchy=self._subject_hierarchy
            )
        else:
            self.writing(node)
        written = yield from write_in_steps(
            *(node, request.volume, labels, masks, structures, result.provenance),
            region=to_region(request.region),
            keep_corrected=request.keep_corrected,
            keep_empty=request.keep_empty,
        )
        sought = [one for one in structures if one not in written.kept]
        missing = [one for one in sought if one.index not in present]
        said = [*_found(len(sought), len(missing)), *_not_found(missing, request.region is not None)]
        return written, [*said, *_kept(written.kept), *notes, *result.notes]

    # Endings

    def _fail(self, sentence: str) -> None:
        if self._drop():
            self.failed(sentence)

    def _drop(self) -> bool:
        """End the run, if there is one, and hear nothing of it any more."""
        run, self._run = self._run, None
        for observer in self._observers:
            self._scene.RemoveObserver(observer)
        self._observers.clear()
        if run is None:
            return False
        if run.pending is not None:
            run.pending.drop()
        run.preview.remove()
        if run.made is not None and run.made.GetScene() is self._scene:
            self._scene.RemoveNode(run.made)
        return True

    def _discard(self, result: SegmentResult | PartialInfo) -> None:
        for ref in arrays_in(result):
            self._engine.delete_array(ref)

    def _observe(self) -> None:
        self._observers = watch_scene(self._scene, self._on_removed, self._on_closing)

    def _on_closing(self) -> None:
        self._fail(_("The scene was closed; the run was stopped."))

    def _on_removed(self, node: Any) -> None:
        run = self._run
        if run is None:
            return
        if node is run.request.volume:
            self._fail(_("The volume '{name}' was removed; the run was stopped.").format(name=run.names[0]))
        elif node is run.request.segmentation:
            self._fail(_("The segmentation '{name}' was removed; the run was stopped.").format(name=run.names[1]))

    def _first_words(self) -> str:
        return _("Opening the volume") if self._engine.state == "ready" else _("Starting the engine")


def _names(request: RunRequest) -> tuple[str, str]:
    segmentation = request.segmentation
    return name_of(request.volume), "" if segmentation is None else name_of(segmentation)


def _failing_in_words(steps: Generator[None, None, Value]) -> Generator[None, None, Value]:
    """:raises OutputError: instead of what is no error for people."""
    try:
        return (yield from steps)
    except VistaError:
        raise
    except Exception as error:
        log.exception("A result could not be written")
        sentence = _("The result could not be written into the scene; see the application's log for details.")
        raise OutputError(sentence) from error


def _present(labels: np.ndarray, masks: Mapping[int, np.ndarray]) -> Generator[None, None, frozenset[int]]:
    """Return the indices of the structures that have voxels; in steps."""
    seen = np.zeros(np.iinfo(labels.dtype).max + 1, dtype=bool)
    for start in range(0, labels.shape[2], _PLANES):
        for k in range(start, min(start + _PLANES, labels.shape[2])):
            seen[labels[:, :, k].T] = True
        yield
    return frozenset(np.flatnonzero(seen).tolist()) | {index for index, mask in masks.items() if mask.any()}


def _found(sought: int, missing: int) -> list[str]:
    """Return a sentence about how many structures were found; nothing to be found gives none."""
    if not sought:
        return []
    if missing:
        sentence = _("{found} of {count} structures were found.")
        return [sentence.format(found=sought - missing, count=sought)] if sought > 1 else []
    return [_("One structure was found.") if sought == 1 else _("{count} structures were found.").format(count=sought)]


def _not_found(missing: Sequence[Structure], in_region: bool) -> list[str]:
    """Return a sentence that names structures without voxels, if there are any."""
    if not missing:
        return []
    sentence = _("Not found in the region: {names}.") if in_region else _("Not found in the volume: {names}.")
    return [sentence.format(names=names_of(missing))]


def _kept(structures: Sequence[Structure]) -> list[str]:
    """Return a sentence about segments that were left alone, if there are any."""
    if not structures:
        return []
    return [_("Kept because you corrected them: {names}.").format(names=names_of(structures))]
