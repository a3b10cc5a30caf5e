"""One automatic run: from wanted structures and options to labels and masks on the input grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import Region, apply_affine
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.imaging.resampling import restore_nearest
from VISTA3DCore.inference.automatic.cleanup import Cleanup, remove_specks
from VISTA3DCore.inference.automatic.feature_cache import FeatureStore
from VISTA3DCore.inference.automatic.feature_map import AutomaticBackend, Block
from VISTA3DCore.inference.automatic.labels import ClassScores
from VISTA3DCore.inference.automatic.localize import locator_for, painter_for, reaches_cut, warn_of_unsure
from VISTA3DCore.inference.automatic.progressive import Preview, Watched
from VISTA3DCore.inference.automatic.resample_to_input import RESTORERS, Grids, NearestRestorer, Restorer
from VISTA3DCore.inference.automatic.scope import Scope, scope_of, whole
from VISTA3DCore.inference.preprocessing import Box, ModelGrid
from VISTA3DCore.inference.region import cut_to_region
from VISTA3DCore.inference.windows import Preset, WindowLayout
from VISTA3DCore.progress import Progress

# How much of a localised run the coarse look is, for the progress bar.
_COARSE_SHARE = 0.1

Results = tuple[np.ndarray, BitMasks]


@dataclass(frozen=True, eq=False)
class PartialResult:
    """What is known of a result in mid-run.

    :param fraction: the windows that have run, of all; 0: only coarse labels so far.
    """

    fraction: float
    _restore: Callable[[], Results]

    def results(self) -> Results:
        """Return labels and masks on the input grid as they are now; takes about as long as writing them."""
        return self._restore()


@dataclass(frozen=True, eq=False)
class AutomaticRequest:
    """What was asked for.

    :param structures: in the order asked for.
    :param rivals: further structures that a voxel may belong to: they compete for it, and the result leaves them out.
    :param restoration: one of :data:`VISTA3DCore.inference.automatic.resample_to_input.RESTORERS`.
    :param region: nothing is segmented outside.
    :param streaming: see :meth:`VISTA3DCore.inference.automatic.feature_cache.FeatureStore.blocks`.
    :param body_crop: leave out table and air, see :func:`VISTA3DCore.inference.automatic.body.find_body`.
    :param localize: work only around the structures, see :mod:`VISTA3DCore.inference.automatic.localize`.
    :param cleanup: removes specks from the final result; partial results keep them.
    :param on_partial: is given each :class:`PartialResult`.
    :param order_from: RAS mm; with ``on_partial``, windows near this place run first.
    :raises InputError: if there is no such restoration, or the place is none.
    """

    structures: tuple[Structure, ...]
    preset: Preset
    restoration: str = "nearest"
    region: Region | None = None
    streaming: bool | None = None
    body_crop: bool = False
    localize: bool = False
    cleanup: Cleanup | None = None
    on_partial: Callable[[PartialResult], None] | None = None
    order_from: Sequence[float] | None = None
    rivals: tuple[Structure, ...] = ()

    def __post_init__(self) -> None:
        if self.restoration not in RESTORERS:
            known = ", ".join(RESTORERS)
            raise InputError(f"There is no restoration '{self.restoration}'; use one of: {known}.")
        if self.order_from is not None:
            place = np.asarray(self.order_from, dtype=float)
            if place.shape != (3,) or not np.all(np.isfinite(place)):
                raise InputError("The place to begin from needs three finite numbers: R A S in millimeters.")

    @property
    def provenance(self) -> dict[str, str]:
        """What a result tells of the options; the ones that save work only where they were used."""
        used = {name: "yes" for name in ("body_crop", "localize") if getattr(self, name)}
        cleanup = "no" if self.cleanup is None else str(self.cleanup)
        return {"preset": self.preset.name, "restoration": self.restoration, "cleanup": cleanup, **used}


class AutomaticRuns:
    """The automatic branch on one opened volume.

    :param grid: what the network sees of the volume.
    :param affine: of the input grid; :param shape: its shape.
    :param dtype: in which features are retained.
    """

    def __init__(
        self,
        backend: AutomaticBackend,
        grid: ModelGrid,
        affine: np.ndarray,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
    ) -> None:
        self._backend, self._grid = backend, grid
        self._affine, self._shape = affine, shape
        self._grids: dict[bytes, Grids] = {}
        self.features = FeatureStore(backend, grid, dtype)

    def segment(self, request: AutomaticRequest, progress: Progress) -> Results:
        """Return labels (uint16) and masks on the input grid.

        :raises InputError: if the region lies outside the volume.
        :raises Cancelled: if ``progress`` was cancelled.
        """
        scope = scope_of(request.region, request.body_crop, *self._place, self._backend.config)
        if scope is not None and request.localize:
            results = self._localized(request, scope, progress)
        elif scope is not None:
            results = self._labelled(request, scope, progress)[1]
        else:
            results = self._nothing(request)
        results = self._cut(request, *results)
        if request.cleanup is not None:
            remove_specks(*results, request.structures, self._affine, request.cleanup, progress)
        return results

    def keeps_features(self, preset: Preset, region: Region | None, body_crop: bool) -> bool:
        """Return whether the features of a part of the volume are retained, so that no network pass is needed."""
        scope = scope_of(region, body_crop, *self._place, self._backend.config)
        return scope is None or self.features.has(scope.box, scope.layout(self._backend.config.window, preset))

    def blocks(self, preset: Preset, progress: Progress) -> Iterator[Block]:
        """Hand out the features of the whole model grid."""
        scope = Scope(whole(self._grid.shape))
        layout = scope.layout(self._backend.config.window, preset)
        return self.features.blocks(scope.box, layout, None, progress)

    @property
    def _place(self) -> tuple[ModelGrid, np.ndarray, tuple[int, int, int]]:
        return self._grid, self._affine, self._shape

    def _localized(self, request: AutomaticRequest, scope: Scope, progress: Progress) -> Results:
        """Work around the structures; in the whole scope where the coarse look missed one of them, or a part."""
        locator = locator_for(self._backend, request.structures)
        found = locator.find(request.structures, self._grid, progress.part(0.0, _COARSE_SHARE))
        narrow = None if found is None else scope.narrowed(found, self._backend.config.window)
        if narrow is None:
            warn_of_unsure("A coarse look did not find every structure")
        else:
            restorer, results = self._labelled(request, narrow, progress.part(_COARSE_SHARE, 1.0))
            if not reaches_cut(request.structures, restorer.map, narrow.box, scope.box):
                return results
            warn_of_unsure("A structure continues where a coarse look saw its end")
        return self._labelled(request, scope, progress.part(_COARSE_SHARE, 1.0))[1]

    def _labelled(self, request: AutomaticRequest, scope: Scope, progress: Progress) -> tuple[Restorer, Results]:
        grid = self._grid.crop(scope.box)
        grids = self._grids_of(grid)
        scores = ClassScores(self._backend, (*request.structures, *request.rivals))
        # Where the labels on the model grid are asked for afterwards, they have to be on the host.
        on_host = request.localize and request.restoration == "nearest"
        restorer = NearestRestorer(scores, grids) if on_host else RESTORERS[request.restoration](scores, grids)
        layout, watched = scope.layout(self._backend.config.window, request.preset), None
        if request.on_partial is not None and not self.features.has(scope.box, layout):
            preview = self._preview(request, grid, scores, progress.part(0.0, _COARSE_SHARE))
            watched = self._watched(request, preview, grids, layout)
            progress = progress.part(_COARSE_SHARE, 1.0)
        windows = progress.part(0.0, 0.95)
        planes = request.restoration == "smooth"
        for block in self.features.blocks(scope.box, layout, request.streaming, windows, watched, planes):
            restorer.take(block, progress)
            del block  # or the last one keeps all features in memory while the result is made
        return restorer, restorer.result(progress.part(0.95, 1.0))

    def _grids_of(self, grid: ModelGrid) -> Grids:
        """Return where a part of the model grid lies in the input grid."""
        key = grid.affine.tobytes() + bytes(str(grid.shape), "ascii")
        return self._grids.setdefault(key, Grids(grid.affine, grid.shape, self._affine, self._shape))

    def _preview(self, request: AutomaticRequest, grid: ModelGrid, scores: ClassScores, progress: Progress) -> Preview:
        locator, known = painter_for(self._backend, request.structures)
        labels, found = locator.labels(known, grid, progress)
        masks = {index: found[index] if index in found else np.zeros_like(labels, bool) for index in scores.overlapping}
        return Preview(scores, labels, masks)

    def _watched(self, request: AutomaticRequest, preview: Preview, grids: Grids, layout: WindowLayout) -> Watched:
        """Tell of the coarse labels, and return how to tell of each window."""

        def restore() -> Results:
            place = grids.model_affine, grids.target_affine, grids.target_shape
            labels = restore_nearest(preview.labels, *place)
            masks = BitMasks(list(preview.masks), grids.target_shape)
            for index, mask in preview.masks.items():
                masks[index] = restore_nearest(mask, *place)
            return self._cut(request, labels, masks)

        def watch(box: Box, features: torch.Tensor) -> None:
            preview.paint(box, features)
            # Windows that ran out of memory run, and are painted, once more.
            request.on_partial(PartialResult(min(preview.done / len(layout.windows), 1.0), restore))

        request.on_partial(PartialResult(0.0, restore))
        # The smooth restoration goes from plane to plane.
        if request.order_from is None or request.restoration != "nearest":
            return Watched(watch)
        place = apply_affine(np.linalg.inv(grids.model_affine), np.asarray(request.order_from, dtype=float))
        return Watched(watch, float(place[layout.slab_axis]))

    def _cut(self, request: AutomaticRequest, labels: np.ndarray, masks: BitMasks) -> Results:
        if request.rivals:
            table = np.arange(np.iinfo(labels.dtype).max + 1, dtype=labels.dtype)
            table[[rival.index for rival in request.rivals]] = 0
            for k in range(labels.shape[2]):
                labels[:, :, k] = table[labels[:, :, k]]
        if request.region is not None:
            cut_to_region(request.region, self._affine, [labels, *masks.bytes])
        return labels, masks

    def _nothing(self, request: AutomaticRequest) -> Results:
        """Labels and masks where there is air only."""
        masks = BitMasks([one.index for one in request.structures if one.overlapping], self._shape)
        return np.zeros(self._shape, dtype=np.uint16, order="F"), masks
