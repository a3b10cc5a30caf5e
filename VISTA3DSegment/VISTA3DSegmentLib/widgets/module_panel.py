# SPDX-License-Identifier: Apache-2.0
"""The module's panel: choose and segment, refine, results, setup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from ..logic.editing import segmentation_to_edit
from ..logic.setup import READY
from ..logic.structures import StructureChoice
from ..logic.trouble import EngineTrouble
from ..mrml.belonging import belongs, segmentation_for
from .automatic_panel import AutomaticPanel
from .refine_panel import RefinePanel
from .results_panel import ResultsPanel
from .setup_panel import SetupPanel
from .ui import load, scroll_to

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import LoadResult

    from ..application import Services
    from ..parameters import PanelParameters

_SETUP = "setup"
# What messages are about.
_ENGINE, _MODELS = "engine", "models"
_LOADING_MS = 500


class ModulePanel:
    """Puts the parts together: each of them knows only its own logic.

    :param services: of the application.
    :param scene: the scene of the application.
    """

    def __init__(self, services: Services, scene: slicer.vtkMRMLScene) -> None:
        self.widget, self.ui = load("VISTA3DSegment")
        self._services, self._scene = services, scene
        self._parameters: PanelParameters | None = None
        self._volume: slicer.vtkMRMLScalarVolumeNode | None = None
        self._gui_tag: int | None = None
        self._observation: int | None = None
        self._entered = self._advised = False
        self._trouble = EngineTrouble(services.engine, services.automatic.finished, services.refinement.answered)
        self.choice = StructureChoice(services.settings)
        self.automatic = AutomaticPanel(
            services.automatic, self.choice, services.settings, services.chosen_model, self._on_link
        )
        self.refine, self.results = RefinePanel(), ResultsPanel(services.automatic)
        self.setup = SetupPanel(services.setup, services.models, services.doctor, services.settings)
        self._arrange()
        self._connect()

    def _arrange(self) -> None:
        self.widget.layout().insertWidget(0, self.automatic.widget)
        self.ui.refineSection.layout().addWidget(self.refine.widget)
        self.ui.resultsSection.layout().addWidget(self.results.widget)
        self.ui.setupSection.layout().addWidget(self.setup.widget)
        self.widget.minimumWidth = self.refine.least_width  # so that it does not jump when Refine is opened
        self.automatic.set_scene(self._scene)
        self.refine.set_scene(self._scene)
        layout = slicer.app.layoutManager()
        if layout is not None:
            views = list(layout.sliceViewNames())
            self.automatic.region.set_views(views, lambda name: layout.sliceWidget(name).mrmlSliceNode())
        self._show_devices()
        self._show_models()

    def _connect(self) -> None:
        self.ui.refineSection.connect("contentsCollapsed(bool)", self._on_refine_folded)
        self.ui.setupSection.connect("contentsCollapsed(bool)", lambda folded: None if folded else self.setup.open())
        self.automatic.ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._on_volume())
        self.automatic.ui.segmentationSelector.connect(
            "currentNodeChanged(vtkMRMLNode*)", lambda _node: self._show_result()
        )
        self.automatic.ui.volumeSelector.connect("nodeAdded(vtkMRMLNode*)", self._on_volume_added)
        self._listeners = [
            (self._services.automatic.writing, self.refine.keep_for_undo),
            (self._services.automatic.finished, self._on_finished),
            (self._services.automatic.last_run.undone, self._on_undone),
            (self._trouble.began, self._on_reported),
            (self._trouble.ended, lambda: self.automatic.message.settle(_ENGINE)),
            (self._services.engine.noticed, self._on_noticed),
            (self._services.engine.state_changed, self._on_engine_state),
            (self._services.setup.changed, self._on_setup_changed),
            (self._services.models.listed, self._show_models),
            (self._services.chosen_model.changed, self._load_model),
            (self._services.loaded_model.loaded, self._on_model_loaded),
            (self.choice.changed, self._store_structures),
            (self.automatic.region_changed, self._store_region),
            (self.refine.segmentation_chosen, self._on_segmentation_chosen),
            (self._services.models.failed, self._on_models_failed),
        ]
        for signal, listener in self._listeners:
            signal.connect(listener)

    def cleanup(self) -> None:
        """Leave nothing behind; the services go on."""
        self.set_parameters(None)
        for signal, listener in self._listeners:
            signal.disconnect(listener)
        self._trouble.close()
        for part in (self.automatic, self.refine, self.results, self.setup):
            part.cleanup()
        self.automatic.set_scene(None)

    # Life

    def enter(self) -> None:
        """The module is shown: get everything ready in the background."""
        self._entered = True
        self._choose_volume()
        self._on_setup_changed()
        if not self._services.models.models:
            self._services.models.refresh()
        if self._services.setup.state().kind == READY:
            self._services.engine.start()
        if self._is_refining:
            self._open_editor()
        qt.QTimer.singleShot(0, self._resume_setup)  # once the module is on the screen

    def exit(self) -> None:
        """Another module is shown."""
        self._entered = False
        if not self.ui.refineSection.collapsed:
            self.refine.exit()

    def scene_closing(self) -> None:
        """The scene is about to be emptied."""
        self.refine.scene_closing()
        self.results.show(None, None)
        self.automatic.message.clear()

    def scene_closed(self) -> None:
        """The scene was emptied, or another one loaded."""
        self.refine.scene_closed()
        self.automatic.refresh()

    # The scene's parameters

    @property
    def has_parameters(self) -> bool:
        """Whether the choices of a scene are shown."""
        return self._parameters is not None

    def set_parameters(self, parameters: PanelParameters | None) -> None:
        """Show the choices of a scene, and keep them in it from now on; None lets go of them."""
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
            self._parameters.RemoveObserver(self._observation)
        self._parameters = None
        if parameters is None:
            return
        self._parameters = parameters
        self._volume = parameters.volume  # what a scene was saved with stays chosen
        self._choose_volume()
        self._choose_segmentation()
        self._show_parameters()
        self._gui_tag = parameters.connectGui(self.automatic.ui)
        self._observation = parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self._show_result()
        if self._is_refining:
            self.refine.activate()

    def _choose_volume(self) -> None:
        """Choose a volume if none is."""
        if self._parameters is not None and self._parameters.volume is None:
            self._parameters.volume = self._first_volume()

    def _first_volume(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """Return the volume that the user most probably means: the one in the slice views, else the first."""
        from ..mrml.volumes import usable_volumes

        shown = slicer.app.applicationLogic().GetSelectionNode()
        usable = usable_volumes(self._scene)
        identity = None if shown is None else shown.GetActiveVolumeID()
        return next((one for one in usable if one.GetID() == identity), usable[0] if usable else None)

    def _on_parameters(self, _caller: Any, _event: Any) -> None:
        """Somebody, perhaps a script, has changed the choices."""
        self._choose_segmentation()
        self._show_parameters()
        self.automatic.refresh()

    def _choose_segmentation(self) -> None:
        """Choose the segmentation that belongs to the volume, if another one was chosen, else a new one."""
        volume, former = self._parameters.volume, self._volume
        if volume is None or volume is former:
            return
        self._volume = volume
        self._parameters.segmentation = segmentation_for(volume, self._parameters.segmentation)

    def _show_parameters(self) -> None:
        self.choice.check_only(list(self._parameters.structures))
        self.automatic.region.show(self._parameters.region, self._parameters.view)

    def _store_structures(self) -> None:
        if self._parameters is not None and list(self._parameters.structures) != list(self.choice.checked):
            self._parameters.structures = list(self.choice.checked)

    def _store_region(self) -> None:
        row = self.automatic.region
        if self._parameters is not None and (self._parameters.region, self._parameters.view) != (row.kind, row.view):
            modifying = self._parameters.StartModify()
            self._parameters.region, self._parameters.view = row.kind, row.view
            self._parameters.EndModify(modifying)

    # What happens elsewhere

    def _on_finished(
        self, segmentation: slicer.vtkMRMLSegmentationNode, segment_ids: Sequence[str], notes: Sequence[str]
    ) -> None:
        # Another volume may have been chosen meanwhile, with a segmentation of its own.
        if self._parameters is not None and belongs(segmentation, self._parameters.volume):
            self._parameters.segmentation = segmentation
        self._show_result()
        if self._is_refining and self._parameters is not None and segmentation is self._parameters.segmentation:
            self.refine.activate(segment_ids)
        self.results.report(notes)
        self.ui.resultsSection.collapsed = False
        self.automatic.refresh()

    def _on_undone(self, segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
        if segmentation is None and self._parameters is not None:
            self._parameters.segmentation = segmentation_for(self._parameters.volume)
        self._show_result()
        self.results.say(_("The last run was undone."))
        self.automatic.refresh()

    def _on_reported(self, sentence: str) -> None:
        self.automatic.message.show(sentence, "error", (_SETUP, _("Open Setup")), _ENGINE)

    def _on_noticed(self, sentence: str) -> None:
        self.automatic.message.show(sentence, "note")

    def _on_engine_state(self, state: str) -> None:
        if state == "ready":
            self._show_devices()
            self._show_models()

    def _show_devices(self) -> None:
        info = self._services.engine.info
        self.automatic.show_devices("" if info is None else info.device)

    def _on_setup_changed(self) -> None:
        state = self._services.setup.state()
        self.automatic.set_setup_problem(None if state.kind == READY else state.text)
        if state.kind != READY:
            self.ui.setupSection.collapsed = False

    def _resume_setup(self) -> None:
        if self._entered:
            self._services.setup.resume()

    def open_setup(self) -> None:
        """Unfold the section Setup, and scroll to it."""
        self.ui.setupSection.collapsed = False
        qt.QTimer.singleShot(0, lambda: scroll_to(self.ui.setupSection))  # once it has its size

    def _on_link(self, address: str) -> None:
        if address == _SETUP:
            self.open_setup()

    def _on_refine_folded(self, folded: bool) -> None:
        if self._entered:
            self.refine.exit() if folded else self._open_editor()

    def _open_editor(self) -> None:
        self.refine.enter()
        if self._parameters is not None and self._parameters.segmentation is None:  # one may have been made elsewhere
            self._parameters.segmentation = segmentation_for(self._parameters.volume)
        self._ensure_segmentation()
        self._show_result()
        self.refine.activate()

    @property
    def _is_refining(self) -> bool:
        """Whether the Segment Editor is shown."""
        return self._entered and not self.ui.refineSection.collapsed

    def _ensure_segmentation(self) -> None:
        """Give the Segment Editor something to add segments to."""
        if self._is_refining and self._parameters is not None and not self._services.automatic.running:
            chosen, volume = self._parameters.segmentation, self._parameters.volume
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)
            self._parameters.segmentation = segmentation_to_edit(volume, chosen, hierarchy)

    def _on_segmentation_chosen(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        """Follow a script, or another editor on the same node."""
        if self._parameters is not None:
            self._parameters.segmentation = segmentation

    def _on_volume_added(self, _node: Any) -> None:
        # Its image comes a moment later.
        qt.QTimer.singleShot(_LOADING_MS, self._choose_volume)

    def _on_volume(self) -> None:
        self._show_result()
        self._load_model()

    def _show_result(self) -> None:
        segmentation = self.automatic.ui.segmentationSelector.currentNode()
        self.results.show(segmentation, self.automatic.volume)
        if self._is_refining:
            self.refine.show_segmentation(segmentation, self.automatic.volume)
            if segmentation is None:
                qt.QTimer.singleShot(0, self._ensure_segmentation)  # not while nodes are being removed

    def _show_models(self) -> None:
        self.automatic.message.settle(_MODELS)
        self.automatic.set_models(self._services.models.models)
        self._advise()
        self._load_model()

    def _advise(self) -> None:
        """Say once that there is a better model than the one that came with the extension."""
        installed = self._services.models.installed()
        if installed and all(one.bundled for one in installed) and not self._advised:
            self._advised = True
            sentence = _("Only the small demonstration model is installed; download the full one in Setup.")
            self.automatic.message.show(sentence, "note", (_SETUP, _("Open Setup")))

    def _load_model(self) -> None:
        """Load the chosen model ahead of its first use, once there is a volume to use it on."""
        wanted = self._entered and self.automatic.volume is not None and self.automatic.model_is_here
        if wanted and self._services.setup.state().kind == READY:
            self._services.loaded_model.load(self.automatic.model, self.automatic.device)

    def _on_models_failed(self, sentence: str) -> None:
        if not self._services.models.models:
            self.automatic.message.show(sentence, "error", (_SETUP, _("Open Setup")), _MODELS)

    def _on_model_loaded(self, result: LoadResult) -> None:
        """Offer what the model does; say so if something chosen is not part of it."""
        former, catalogue = self.choice.checked, self.choice.catalogue
        self.choice.use_model(result.label_set, result.available, result.claims)
        lost = [catalogue[index].display_name for index in former if index not in self.choice.checked]
        if lost:
            text = _("This model does not offer: {names}. Their check marks were removed.")
            self.automatic.message.show(text.format(names=", ".join(lost)), "note")
