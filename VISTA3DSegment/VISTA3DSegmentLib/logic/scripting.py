# SPDX-License-Identifier: Apache-2.0
"""What scripts call: each function waits for its result, reports progress, and raises what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.engine.client import ProgressEvent, model_on_wire
from VISTA3DCore.engine.model_management import details
from VISTA3DCore.engine.protocol import LoadParams
from VISTA3DCore.errors import Cancelled, InputError, VistaError

from ..i18n import tr as _
from ..mrml.clicks import Edit, Position
from ..mrml.markups import positions_of
from ..mrml.segments import has_segment
from ..mrml.volumes import why_unusable
from ..mrml.writing import EditorLogicWriter
from .refinement import Refinement
from .regions import roi_box
from .run_request import RunRequest
from .settings import QUALITIES
from .signals import Signal
from .waiting import OnProgress, Outcome, Reporting

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import LoadResult, ModelDetails

    from .automatic import AutomaticRun
    from .choice import ChosenModel
    from .engine import Engine, Pending
    from .volumes import OpenedVolumes

#: What a click means that has no name in the catalogue.
NEW_OBJECT = "new object"


class Scripting:
    """The blocking side of the logic, with the same engine, opened volumes and choices as the panel.

    :param run: the automatic run; one at a time, the panel's included.
    :param refinement: the panel's; masks from before clicks are kept in common.
    :param chosen: the model and the device where a call names none.
    :param needed: says what is still to be installed, in a sentence, or None.
    :param wait: lets the application handle events for a moment.
    """

    def __init__(
        self,
        run: AutomaticRun,
        engine: Engine,
        volumes: OpenedVolumes,
        refinement: Refinement,
        chosen: ChosenModel,
        needed: Callable[[], str | None],
        wait: Callable[[], None],
    ) -> None:
        self._run, self._engine, self._volumes, self._others = run, engine, volumes, refinement
        self._chosen, self._needed, self._wait = chosen, needed, wait
        self.notes: tuple[str, ...] = ()

    def segment(
        self,
        volume_node: slicer.vtkMRMLScalarVolumeNode,
        structures: str | int | Iterable[str | int],
        model: str | None = None,
        roi_node: slicer.vtkMRMLMarkupsROINode | None = None,
        segmentation_node: slicer.vtkMRMLSegmentationNode | None = None,
        progress: OnProgress | None = None,
        **options: Any,
    ) -> slicer.vtkMRMLSegmentationNode:
        """Segment structures of a volume, and return the segmentation; sentences about the result are in ``notes``.

        :param structures: names, indices or groups of the catalogue, or ``everything``.
        :param model: a name, or the path of a weights file; None: the chosen one.
        :param roi_node: limits the work to its box.
        :param segmentation_node: where the segments go; None: a new one is made.
        :param options: ``device``, ``quality`` (a key of :data:`QUALITIES`), ``removeSpecks``, ``keepCorrected``,
            ``acceptMismatch``; see :class:`RunRequest`.
        :raises VistaError: a sentence; then nothing in the scene is changed. :raises Cancelled: if it was stopped.
        """
        self._check(volume_node=volume_node, roi_node=roi_node, segmentation_node=segmentation_node)
        request = RunRequest(
            volume=volume_node,
            structures=(structures,) if isinstance(structures, str | int) else tuple(structures),
            model=self._chosen.model if model is None else str(model),
            region=None if None in (roi_node, volume_node) else roi_box(roi_node, volume_node),
            segmentation=segmentation_node,
            **{"device": self._chosen.device, **_run_options(options)},
        )
        outcome = Outcome(finished=self._run.finished, failed=self._run.failed, cancelled=self._run.cancelled)
        with outcome, Reporting(self._run.progressed, progress) as reporting:
            self._run.start(request)  # raises if one is going on
            self._until(lambda: outcome.name, reporting, self._run.cancel)
        node, _identities, notes = outcome.result("finished")
        self.notes = tuple(notes)
        return node

    def click(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        segment_id: str,
        volume_node: slicer.vtkMRMLScalarVolumeNode,
        points: slicer.vtkMRMLMarkupsFiducialNode | Sequence[Position],
        positive: bool | Sequence[bool] = True,
        progress: OnProgress | None = None,
        **options: Any,
    ) -> tuple[bool, ...]:
        """Add clicks to a segment, as the effect does, in one step; other segments stay as they are.

        :param points: places in world RAS mm, or a point list whose selected points are taken.
        :param positive: whether a click adds; one value for all, or one for each.
        :param options: ``model`` and ``device``, as for :meth:`segment`; ``structure``: what is clicked, a name or an
            index of the catalogue, or :data:`NEW_OBJECT`; by default what the segment stands for.
        :return: of each click of the segment, the earlier ones included, whether it added or removed something.
        :raises VistaError: a sentence; then the segment is as it was. :raises Cancelled: if it was stopped.
        """
        self._check(volume_node=volume_node, segmentation_node=segmentation_node)
        _refuse_unknown(options, ("structure", "model", "device"))
        if segmentation_node is None or not has_segment(segmentation_node, segment_id):
            raise InputError(_("The segmentation has no segment '{id}'.").format(id=segment_id))
        if sentence := why_unusable(volume_node):
            raise InputError(sentence)
        clicks = _clicks(points, positive)
        if self._others.busy:
            raise InputError(_("A click in the Segment Editor is being answered; wait for it."))
        computed = options.get("model") or self._chosen.model, options.get("device") or self._chosen.device
        self._answer(lambda *callbacks: self._volumes.use(volume_node, *computed, *callbacks), progress)
        label_set = self._label_set(volume_node, *computed)
        with _Clicking(self._engine, self._volumes, self._others, segmentation_node, segment_id) as clicking:
            refinement = clicking.refinement
            refinement.set_target(segmentation_node, segment_id, volume_node, *computed, label_set)
            if (structure := options.get("structure")) is not None:
                index = None if structure == NEW_OBJECT else label_set.find(structure).index
                self._change(refinement, lambda: refinement.set_structure(index))
            added = tuple(refinement.segment.stored_click(*click) for click in clicks)
            return self._change(refinement, lambda: refinement.edit(Edit(added=added)))

    def structures(self, model: str | None = None, progress: OnProgress | None = None) -> list[str]:
        """Return the names of the structures that a model offers; it is loaded if need be.

        :raises VistaError: a sentence, if the model cannot be loaded.
        """
        self._check()
        name = self._chosen.model if model is None else str(model)
        params = LoadParams(model_on_wire(name), self._chosen.device)
        result: LoadResult = self._answer(
            lambda on_done, on_error, on_progress: self._engine.request("load", params, on_done, on_error, on_progress),
            progress,
        )
        known = None if result.available is None else frozenset(result.available)
        offered = (one for one in catalogue(result.label_set) if one.supported and not one.is_group)
        return [one.name for one in offered if known is None or one.index in known]

    def models(self) -> tuple[ModelDetails, ...]:
        """Return the models that can be had by name; those with a ``path`` are on this computer."""
        from VISTA3DCore.models.store import ModelStore

        store = ModelStore()
        return tuple(details(store, entry.name) for entry in store.entries())

    # Waiting

    def _change(self, refinement: Refinement, change: Callable[[], None]) -> tuple[bool, ...]:
        """Change clicks; return of each whether it added or removed something."""
        outcome = Outcome(answered=refinement.answered, failed=refinement.failed)
        with outcome:
            change()
            self._until(lambda: not refinement.busy, None, refinement.set_target)
        return tuple(outcome.result("answered")[2]) if outcome.name else ()

    def _answer(self, ask: Callable[..., Pending], progress: OnProgress | None) -> Any:
        """Ask for something, and return the answer."""
        answered, failed, progressed = Signal(), Signal(), Signal()
        outcome = Outcome(answered=answered, failed=failed)
        with outcome, Reporting(progressed, progress) as reporting:
            pending = ask(answered, failed, lambda event: progressed(*_in_words(event)))
            self._until(lambda: outcome.name, reporting, pending.drop)
        return outcome.result("answered")[0]

    def _until(self, done: Callable[[], Any], reporting: Reporting | None, stop: Callable[[], Any]) -> None:
        """Let the application work until something is done; whatever ends the waiting early ends the work."""
        try:
            while not done():
                if self._engine.state == "closed":
                    raise Cancelled(_("The application ends; the work was stopped."))
                if reporting is not None:
                    reporting.check()
                self._wait()
        except BaseException:
            stop()
            raise

    def _check(self, **nodes: Any) -> None:
        """:raises VistaError: if something must be installed first, or what was given is no node of the right class."""
        if sentence := self._needed():
            raise VistaError(sentence)
        for name, node in nodes.items():
            kind = _CLASSES[name]
            if node is not None and not (hasattr(node, "IsA") and node.IsA(kind)):
                sentence = _("'{value}' is no {kind}; give a node of the scene.")
                raise InputError(sentence.format(value=node, kind=kind))

    def _label_set(self, node: slicer.vtkMRMLScalarVolumeNode, model: str, device: str) -> Any:
        opened = self._volumes.opened(node, model, device)
        told = "" if opened is None else opened.label_set
        return catalogue(told) if told else self._chosen.choice().label_set


# What scripts call the fields of a RunRequest.
_OPTIONS = {
    "device": "device",
    "removeSpecks": "cleanup",
    "keepCorrected": "keep_corrected",
    "acceptMismatch": "mismatch_accepted",
}
_CLASSES = {
    "volume_node": "vtkMRMLScalarVolumeNode",
    "roi_node": "vtkMRMLMarkupsROINode",
    "segmentation_node": "vtkMRMLSegmentationNode",
}


class _Clicking:
    """Clicks beside those of the effect, through a Segment Editor of its own that changes no other segment."""

    def __init__(self, engine: Engine, volumes: OpenedVolumes, others: Refinement, node: Any, segment_id: str) -> None:
        self.refinement = Refinement(engine, volumes, others.bases)
        self._scene, self._logic = node.GetScene(), slicer.vtkSlicerSegmentEditorLogic()
        self._editor = slicer.vtkMRMLSegmentEditorNode()
        self._editor.SetHideFromEditors(True)
        self._editor.SetSaveWithScene(False)
        self._editor.SetOverwriteMode(self._editor.OverwriteNone)
        self._node, self._segment_id = node, segment_id

    def __enter__(self) -> _Clicking:
        self._scene.AddNode(self._editor)
        self._logic.SetMRMLScene(self._scene)
        self._logic.SetSegmentEditorNode(self._editor)
        self._logic.SetSegmentationNode(self._node)
        self._logic.SetCurrentSegmentID(self._segment_id)
        self.refinement.writer = EditorLogicWriter(self._logic)
        return self

    def __exit__(self, *_error: object) -> None:
        self.refinement.set_target()
        self._logic.SetSegmentEditorNode(None)
        self._logic.SetMRMLScene(None)
        if self._editor.GetScene() is not None:
            self._scene.RemoveNode(self._editor)


def _clicks(points: Any, positive: bool | Sequence[bool]) -> list[tuple[Position, bool]]:
    """Return places, world RAS mm, each with its polarity.

    :raises InputError: if these are no places, or not as many polarities.
    """
    places = _places(points)
    polarities = [positive] * len(places) if isinstance(positive, bool) else [bool(one) for one in positive]
    if len(polarities) != len(places):
        raise InputError(_("Give one polarity for all points, or one for each."))
    return list(zip(places, polarities, strict=True))


def _places(points: slicer.vtkMRMLMarkupsFiducialNode | Sequence[Position]) -> tuple[Position, ...]:
    """Return places, world RAS mm, of a point list or of numbers.

    :raises InputError: if there is none, or these are no places.
    """
    if hasattr(points, "GetNumberOfControlPoints"):
        return positions_of(points)
    try:
        places = np.asarray(points, dtype=float).reshape(-1, 3)
    except (TypeError, ValueError):
        places = np.empty((0, 3))
    if not len(places) or not np.isfinite(places).all():
        raise InputError(_("Give points as a point list, or as three numbers each: R, A and S in mm."))
    return tuple(map(tuple, places.tolist()))


def _in_words(event: ProgressEvent) -> tuple[float, str]:
    return event.fraction, _(event.stage)


def _run_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a script as fields of a :class:`RunRequest`.

    :raises InputError: if there is none of that name, or no such quality.
    """
    _refuse_unknown(options, ("quality", *_OPTIONS))
    quality = options.get("quality", "standard")
    if quality not in QUALITIES:
        names = ", ".join(QUALITIES)
        raise InputError(_("There is no quality '{name}'; use one of {names}.").format(name=quality, names=names))
    preset, restoration = QUALITIES[quality]
    given = {field: options[name] for name, field in _OPTIONS.items() if options.get(name) is not None}
    return {"preset": preset, "restoration": restoration, **given}


def _refuse_unknown(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """:raises InputError: if there is an option that is not known."""
    known = tuple(known)
    for name in options:
        if name not in known:
            sentence = _("There is no option '{name}'; use {names}.")
            raise InputError(sentence.format(name=name, names=", ".join(known)))
