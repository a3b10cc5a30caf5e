# SPDX-License-Identifier: Apache-2.0
"""Choose a volume and structures, press Segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from VISTA3DCore.errors import VistaError

from ..logic.choice import offered_devices, offered_models
from ..logic.settings import QUALITIES
from ..logic.signals import Signal
from ..logic.wording import short_title
from ..parameters import SLICE_VIEW
from .chosen_label import ChosenLabel
from .message import MessageBar
from .region_row import RegionRow
from .run_controls import RunControls
from .run_questions import RunQuestions
from .structure_selector import StructureSelector
from .ui import check, chosen, fill, load, plain_tip, show_row

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import ModelDetails

    from ..logic.automatic import AutomaticRun, RunRequest
    from ..logic.choice import ChosenModel
    from ..logic.settings import Settings
    from ..logic.structures import StructureChoice

_ESTIMATE_PAUSE_MS = 150
_MOST_WORDS, _NAMED = 12, 2


class AutomaticPanel:
    """The upper part of the module's panel.

    :param run: the automatic run.
    :param choice: the structures.
    :param settings: what the user chose last.
    :param chosen_model: what everything is computed with.
    :param on_link: gets the address of a link in a message.
    """

    def __init__(
        self,
        run: AutomaticRun,
        choice: StructureChoice,
        settings: Settings,
        chosen_model: ChosenModel,
        on_link: Callable[[str], None] = lambda _address: None,
    ) -> None:
        self.widget, self.ui = load("AutomaticPanel")
        self.run, self.choice, self._settings = run, choice, settings
        self._chosen_model = chosen_model
        self._setup_problem: str | None = None
        self._models: dict[str, ModelDetails] = {}
        self.message = MessageBar(on_link)
        self.questions = RunQuestions(self.widget, choice, settings, self.message)
        self.ui.segmentSection.layout().addWidget(self.message.widget)
        self._fill()
        self.selector = StructureSelector(self.ui.structuresSelector, choice, self.choose_in_view)
        self._words = ChosenLabel(self.ui.chosenLabel, lambda index: choice.check([index], False))
        self.region_changed = Signal()
        self.region = RegionRow(self.ui, self.region_changed)
        self.region_changed.connect(self.refresh)
        self.controls = RunControls(self.ui.segmentButton, self.ui.progressBar, run, self.start)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_ESTIMATE_PAUSE_MS)
        self._timer.connect("timeout()", self._estimate)
        self._connect()
        self._show_structures()

    def _fill(self) -> None:
        qualities = {"standard": _("Standard"), "smooth": _("Smooth surfaces"), "best": _("Best (slower)")}
        fill(self.ui.qualitySelector, qualities.items(), self._settings.quality)
        self.show_devices()
        fill(self.ui.modelSelector, [("", _("Looking for models…"))])
        check(self.ui.keepBox, self._settings.keep_corrected is not False)
        check(self.ui.keepEmptyBox, self._settings.keep_empty)

    def _connect(self) -> None:
        for selector in (self.ui.volumeSelector, self.ui.segmentationSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self.refresh())
        self.ui.modelSelector.connect("currentIndexChanged(int)", lambda _index: self._on_model())
        self.ui.deviceSelector.connect("currentIndexChanged(int)", lambda _index: self._on_device())
        self.ui.qualitySelector.connect("currentIndexChanged(int)", lambda _index: self._on_quality())
        self.ui.cleanupBox.connect("toggled(bool)", self._on_cleanup)
        self.ui.keepBox.connect("toggled(bool)", self._on_keep)
        self.ui.keepEmptyBox.connect("toggled(bool)", self._on_keep_empty)
        self._settings.changed.connect(self._on_setting)
        self._chosen_model.changed.connect(self._show_chosen)
        self.choice.changed.connect(self._show_structures)
        self.run.started.connect(self._on_started)
        self.run.estimate_changed.connect(self.refresh)
        self.run.failed.connect(self._on_failed)
        self.run.cancelled.connect(self._on_cancelled)

    def cleanup(self) -> None:
        """Leave nothing behind; a run goes on."""
        self._timer.stop()
        self.choice.changed.disconnect(self._show_structures)
        self._settings.changed.disconnect(self._on_setting)
        self._chosen_model.changed.disconnect(self._show_chosen)
        self.run.started.disconnect(self._on_started)
        self.run.estimate_changed.disconnect(self.refresh)
        self.run.failed.disconnect(self._on_failed)
        self.run.cancelled.disconnect(self._on_cancelled)
        self.controls.cleanup()
        self.selector.cleanup()

    def set_scene(self, scene: Any) -> None:
        """Offer the nodes of a scene; None offers none."""
        for selector in (self.ui.volumeSelector, self.ui.segmentationSelector, self.ui.roiSelector):
            selector.setMRMLScene(scene)

    def set_models(self, models: Sequence[ModelDetails]) -> None:
        """Offer models."""
        self._models = {one.name: one for one in models}
        if not models:
            return
        first, titles = self._chosen_model.model, {one.name: _title(one) for one in models}
        fill(self.ui.modelSelector, offered_models(titles, first), first)
        for model in models:
            row = self.ui.modelSelector.findData(model.name)
            self.ui.modelSelector.setItemData(row, plain_tip(model.title), qt.Qt.ToolTipRole)
        self._show_cleanup()
        self.refresh()

    def show_devices(self, found: str = "") -> None:
        """Offer the devices of this computer.

        :param found: what the engine uses by itself; empty: it has not said so yet.
        """
        self._found_device, device = found, self._chosen_model.device
        fill(self.ui.deviceSelector, offered_devices(found, device), device)

    def set_setup_problem(self, sentence: str | None) -> None:
        """Keep the user from starting while something is missing."""
        self._setup_problem = sentence
        self.refresh()

    @property
    def model(self) -> str:
        """The chosen model's name."""
        return chosen(self.ui.modelSelector)

    @property
    def device(self) -> str:
        """Where to compute."""
        return chosen(self.ui.deviceSelector)

    @property
    def model_is_here(self) -> bool:
        """Whether the chosen model is on this computer."""
        model = self._models.get(self.model)
        return Path(self.model).is_file() if model is None else model.path is not None

    @property
    def volume(self) -> Any:
        """The chosen volume node, or None."""
        return self.ui.volumeSelector.currentNode()

    # Starting

    def request(self) -> RunRequest:
        """Return what the user asks for.

        :raises InputError: if the region misses the volume.
        """
        from ..logic.automatic import RunRequest
        from ..mrml.views import center_of

        preset, restoration = QUALITIES[chosen(self.ui.qualitySelector)]
        return RunRequest(
            volume=self.volume,
            structures=tuple(self.choice.checked),
            model=self.model,
            device=self.device,
            preset=preset,
            restoration=restoration,
            cleanup=self.ui.cleanupBox.checked,
            region=None if self.volume is None else self.region.region(self.volume),
            segmentation=self.ui.segmentationSelector.currentNode(),
            keep_corrected=self.ui.keepBox.checked,
            keep_empty=self.ui.keepEmptyBox.checked,
            looking_at=center_of(self.region.slice_nodes()),
        )

    def start(self) -> None:
        """Start the run, or say why it cannot start."""
        try:
            request = self.request()
        except VistaError as error:
            self.message.show(str(error))
            return
        self.message.clear()
        self.questions.ask(request, self.run.start)

    def problem(self) -> str | None:
        """Return what is still to be chosen or installed before anything can be started, in a sentence, or None."""
        if self._setup_problem:
            return self._setup_problem
        if not self._models:
            return _("Looking for models…")
        if not self.model_is_here:
            return _("This model is not downloaded yet; download it in Setup.")
        if self.volume is None:
            return _("Load a CT volume, or choose one.")
        if not self.choice.checked:
            return _("Choose at least one structure.")
        return self.region.problem()

    def refresh(self) -> None:
        """Look again, in a moment, what can be started and how long it will take."""
        self._timer.start()

    def choose_in_view(self) -> None:
        """Choose the structures of the segmentation that the slice views show; without any, all in the first view."""
        segmentation, views = self.ui.segmentationSelector.currentNode(), self.region.slice_nodes()
        try:
            seen = self.choice.check_in_view(segmentation, views)
        except VistaError as error:
            self.message.show(str(error))
            return
        if not seen:
            self.region.show(SLICE_VIEW, self.region.view)

    # What is shown

    def _show_structures(self) -> None:
        chips = self.choice.chips(_MOST_WORDS)
        # The drop-down itself names one or two.
        words = [(structure.index, structure.display_name) for structure in chips] if len(chips) > _NAMED else []
        show_row(bool(words), self.ui.chosenSpace)
        self._words.show(words)
        self.refresh()

    def _estimate(self) -> None:
        problem = self.problem()
        self.controls.forbid(problem)
        text = problem or self._outlook()
        self.ui.estimateLabel.text = text or ""
        self.ui.estimateLabel.setVisible(bool(text) and not self.run.running)

    def _outlook(self) -> str | None:
        """Return how long it will take, or what is wrong with what was chosen.

        The button stays usable all the same: a box or a view may have been moved since.
        """
        try:
            request = self.request()
        except VistaError as error:
            return str(error)
        return request.problem() or self.run.estimate(request)

    def _on_model(self) -> None:
        if self.model:
            self._settings.model = self.model
        self._show_cleanup()
        self.refresh()

    def _on_device(self) -> None:
        self._settings.device = self.device
        self.refresh()

    def _on_quality(self) -> None:
        self._settings.quality = chosen(self.ui.qualitySelector)
        self.refresh()

    def _show_chosen(self) -> None:
        """Follow a choice that was made elsewhere, e.g. by a script."""
        if self.device != self._chosen_model.device:
            self.show_devices(self._found_device)
        if self.model != self._chosen_model.model:
            self.set_models(tuple(self._models.values()))

    def _on_cleanup(self, wanted: bool) -> None:
        self._settings.set_cleanup(self.model, wanted)

    def _on_keep(self, wanted: bool) -> None:
        self._settings.keep_corrected = wanted

    def _on_keep_empty(self, wanted: bool) -> None:
        self._settings.keep_empty = wanted

    def _on_setting(self, name: str) -> None:
        if name == "keep_corrected":
            check(self.ui.keepBox, self._settings.keep_corrected is not False)

    def _show_cleanup(self) -> None:
        """Show what was chosen for this model, else its default."""
        model = self._models.get(self.model)
        if model is not None:
            check(self.ui.cleanupBox, self._settings.cleanup(model.name, model.cleanup))

    def _on_started(self) -> None:
        self.message.clear()
        self.choice.note_use()
        self.ui.estimateLabel.setVisible(False)

    def _on_failed(self, sentence: str) -> None:
        self.message.show(sentence)
        self.refresh()

    def _on_cancelled(self) -> None:
        self.message.show(_("Canceled; nothing was changed."), "note")
        self.refresh()


def _title(model: ModelDetails) -> str:
    """Return a model's title, short enough for the panel; the whole one is its tool tip."""
    short = short_title(model.title)
    return short if model.path is not None else _("{title} (not downloaded)").format(title=short)
