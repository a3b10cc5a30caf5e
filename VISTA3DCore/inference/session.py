"""An opened volume: what people ask of it. The model comes from :mod:`VISTA3DCore.inference.segmenter`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.backends.forking import check_process
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import Region
from VISTA3DCore.imaging.segmentation import Partial, Segmentation
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic.cleanup import Cleanup
from VISTA3DCore.inference.automatic.labels import score_block
from VISTA3DCore.inference.automatic.predictor import AutomaticRequest, AutomaticRuns, Results
from VISTA3DCore.inference.clicks.click_session import Clicking, Target, click_cache
from VISTA3DCore.inference.clicks.fold import ClickRequest, ClickResult, default_variant
from VISTA3DCore.inference.clicks.scores import ScoreMap
from VISTA3DCore.inference.clicks.suggestions import Suggestion, uncertainty_of
from VISTA3DCore.inference.preprocessing import ModelGrid
from VISTA3DCore.inference.region import to_region
from VISTA3DCore.inference.segmenter import ProgressLike, Segmenter
from VISTA3DCore.inference.storage_order import StorageOrder
from VISTA3DCore.inference.windows import find_preset
from VISTA3DCore.models.offer import listed
from VISTA3DCore.progress import Progress

Structures = str | int | Structure | Iterable[str | int | Structure]


class Session:
    """One opened volume: preprocessed once, with the features of the runs so far.

    Features are kept for each preset (and region) while they fit
    (:mod:`VISTA3DCore.inference.automatic.feature_cache`); then every further structure needs no network.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        grid: ModelGrid,
        volume: Volume,
        feature_dtype: torch.dtype,
        click_dtype: torch.dtype,
        click_cache_bytes: int | None,
        order: StorageOrder | None = None,
    ) -> None:
        self._segmenter, self._grid, self._order = segmenter, grid, order
        self._click_dtype, self._click_cache_bytes = click_dtype, click_cache_bytes
        self._affine, self._shape = volume.affine, volume.shape
        self._automatic = AutomaticRuns(segmenter.backend, grid, volume.affine, volume.shape, feature_dtype)
        self._closed = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def free_caches(self) -> None:
        """Drop the features and the encoded windows; what needs them computes them anew, with the same result."""
        self._automatic.features.clear()
        if "_first_clicking" in self.__dict__:
            self._first_clicking.interaction.clear()

    def close(self) -> None:
        """Free the image and the features; the session cannot be used any more."""
        self.free_caches()
        self.__dict__.pop("_first_clicking", None)
        self._grid = ModelGrid(np.zeros((0, 0, 0), dtype=np.float32), self._grid.affine)
        self._automatic = AutomaticRuns(self._segmenter.backend, self._grid, self._affine, self._shape, torch.float32)
        self._closed = True

    @property
    def model_grid(self) -> tuple[np.ndarray, np.ndarray]:
        """The preprocessed image [i, j, k] (RAS order, float32, [0, 1]) and its affine to RAS mm."""
        return self._grid.image, self._grid.affine

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
        cleanup: bool | Cleanup | None = None,
        on_partial: Callable[[Partial], None] | None = None,
        order_from: Sequence[float] | None = None,
    ) -> Segmentation:
        """Segment structures; one network pass per preset and region, none while its features are retained.

        :param structures: names, synonyms, indices, groups, or ``everything``; a warning says which members of a group
            are left out because the model does not claim them.
        :param preset: ``bundle`` (overlap 0.25, constant blending) or ``paper`` (0.625, gaussian).
        :param restoration: ``nearest`` (labels by nearest neighbour, as the reference) or ``smooth`` (winner of the
            trilinearly interpolated scores on the input grid).
        :param roi: a box in RAS mm to which the work is limited, with some context around it; nothing is
            segmented outside.
        :param streaming: True never retains features, False always does; by default they are retained if they fit.
        :param body_crop: leave out table and air around the body; labels near the sides of windows may differ, see
            Documentation/performance.md.
        :param localize: look for the structures coarsely and work only around them; the whole volume is segmented
            where a coarse look does not suffice (a warning says so).
        :param cleanup: whether specks are removed from the result, or what counts as one; None: as is the default of
            the model (yes for the small one).
        :param on_partial: is called with coarse labels first, then after each window, from this thread; the final
            result is the same as without it. Not called where the features are retained.
        :param order_from: a place (RAS mm); with ``on_partial``, windows around its slice run first.
        :raises UnknownStructureError: if a structure is unknown, or the model does not offer it.
        :raises InputError: if an option is unknown or the region lies outside the volume.
        :raises Cancelled: if ``progress`` was cancelled; the session is as before.
        """
        self._require_open()
        items = listed(structures)
        wanted = self._segmenter.offer.resolve(items)
        if not wanted:
            raise InputError("No structure was asked for; name at least one, or 'everything'.")
        for sentence in self._segmenter.offer.left_out(items):
            warnings.warn(sentence, UserWarning, stacklevel=2)
        shown = on_partial and (lambda part: on_partial(Partial(part.fraction, lambda: made(part.results(), partial))))
        request = AutomaticRequest(
            wanted,
            find_preset(preset),
            restoration,
            to_region(roi),
            streaming,
            body_crop=body_crop,
            localize=localize,
            cleanup=Cleanup.chosen(cleanup, self._segmenter.config.name),
            on_partial=shown,
            order_from=order_from,
            rivals=self._rivals(wanted),
        )

        partial = replace(request, cleanup=None)

        def made(results: Results, request: AutomaticRequest) -> Segmentation:
            about_grid = {} if self._order is None else {"grid": "patient"}
            provenance = {**self._segmenter.provenance, **about_grid, **request.provenance}
            found = Segmentation(*results, wanted, self._affine.copy(), provenance)
            return found if self._order is None else self._order.segmentation(found)

        return made(self._automatic.segment(request, Progress.of(progress)), request)

    def keeps_features(
        self, preset: str = "bundle", roi: Region | Sequence[float] | None = None, body_crop: bool = False
    ) -> bool:
        """Return whether :meth:`segment` with these options needs no network pass, because features are retained."""
        return self._automatic.keeps_features(find_preset(preset), to_region(roi), body_crop)

    def _rivals(self, wanted: Sequence[Structure]) -> tuple[Structure, ...]:
        """Return what else competes for voxels: all that the model was trained for, if it tells all of that apart.

        Without them, a structure would take the voxels of neighbors that were not asked for.
        """
        if not self._segmenter.competing:
            return ()
        asked = {structure.index for structure in wanted}
        trained = (self._segmenter.catalogue[index] for index in self._segmenter.trained)
        return tuple(one for one in trained if one.index not in asked and not one.overlapping)

    def scores(
        self, structure: str | int | Structure, preset: str = "bundle", progress: ProgressLike = None
    ) -> np.ndarray:
        """Return a structure's scores (logits, float32) on the model grid, see :attr:`model_grid`.

        Claims do not apply: scores are for clicks and for experts.

        :raises InputError: if several structures are meant, e.g. by a group.
        """
        self._require_open()
        wanted = self._segmenter.catalogue.resolve(structure, self._segmenter.trained)
        if len(wanted) != 1:
            raise InputError(f"Scores are given for one structure at a time; '{structure}' means {len(wanted)}.")
        vector = self._segmenter.backend.class_matrix([wanted[0].index])[0]
        result = np.empty(self._grid.shape, dtype=np.float32)
        for block in self._automatic.blocks(find_preset(preset), Progress.of(progress)):
            result[block.box] = score_block(block, vector)
        return result

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
        """Segment or correct one object by clicks.

        The result is a fold over the list: relative to the mask that the clicks before it made of the base, a positive
        click only adds and a negative one only removes, in the component that it touches. It depends on the arguments
        alone. So to undo, remove, move or flip a click, ask again with the changed list: the result is as if it had
        been so from the start. What is new of a list costs answers; no window is encoded again.

        :param structure: a name, index or structure of the catalogue (of a group, the click goes to the member that it
            hits), or None for an object without a class.
        :param clicks: all clicks on the object, in the order in which they were placed.
        :param base: bool [i, j, k] of the input grid, the mask from before the first click; None for an empty one.
        :param settled: how many of the clicks, the first ones, were placed before the base was last edited by hand.
            They still tell the network what is meant, but no longer add or remove anything.
        :param policy: ``reuse`` answers a click in an earlier click's window if it lies deep enough in it, and asks
            further windows while the object touches a window's side; ``centred`` uses one window around each click, as
            the reference does.
        :param variant: of Algorithm 1, see :func:`VISTA3DCore.inference.clicks.refinement.refine`; or ``near``: within
            the reach of each click (:mod:`VISTA3DCore.inference.clicks.reach`). None: ``near`` for the small model,
            else ``paper``.
        :raises UnknownStructureError: if the structure is unknown or a dead class.
        :raises InputError: if the clicks or the base cannot be used. :raises ModelError: if the model takes no clicks.
        :raises Cancelled: if ``progress`` was cancelled; nothing has changed.
        """
        request = self._asked(ClickRequest(tuple(clicks), base, settled, policy, variant or self._variant))
        found = self._clicking.click(structure, request, Progress.of(progress))
        return found if self._order is None else self._order.click_result(found, base)

    def warm(self, position: Sequence[float], policy: str = "reuse", progress: ProgressLike = None) -> int:
        """Encode the window for a click at a place (RAS mm) ahead of it; return how many windows that took (0 or 1)."""
        return self._clicking.interaction.warm(position, policy, Progress.of(progress))

    def hit(self, structure: Target, position: Sequence[float]) -> Structure:
        """Return the structure that a click at a place (RAS mm) means; of a group, the member seen there."""
        return self._clicking.hit(structure, position)

    def uncertainty(
        self,
        structure: Target,
        clicks: Sequence[Click],
        base: np.ndarray | None = None,
        *,
        progress: ProgressLike = None,
    ) -> np.ndarray:
        """Return how unsure the network is, float32 on the model grid: 1 where the score is 0, 0 where it is sure.

        As for :meth:`click`. Without clicks, the automatic branch answers.
        """
        progress = Progress.of(progress)
        if not clicks:
            scores = self._automatic_answer(structure, progress).scores
            return uncertainty_of(scores, np.ones(scores.shape, dtype=bool))
        request = self._asked(ClickRequest(tuple(clicks), base, variant=self._variant))
        return self._clicking.uncertainty(structure, request, progress)

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
        """Return the places (RAS mm) that are most worth the next clicks, the best first; fewer if there are fewer.

        Arguments and errors as for :meth:`click`. Without clicks, the automatic branch's doubt about the base decides.
        """
        progress = Progress.of(progress)
        if clicks:
            request = self._asked(ClickRequest(tuple(clicks), base, settled, variant=self._variant))
            return self._clicking.suggest(structure, request, count, progress)
        if base is None:
            raise InputError("Without clicks and without a mask there is nothing to suggest; place a first click.")
        request = self._asked(ClickRequest((), base))
        request.check_base(self._clicking.interaction.grids)
        return self._clicking.suggest_from(self._automatic_answer(structure, progress), request.base, (), count)

    def _asked(self, request: ClickRequest) -> ClickRequest:
        return request if self._order is None else self._order.request(request)

    @property
    def _variant(self) -> str:
        """The default variant of Algorithm 1 for this model."""
        return default_variant(self._segmenter.config.name)

    @property
    def _clicking(self) -> Clicking:
        self._require_open()
        return self._first_clicking

    @cached_property
    def _first_clicking(self) -> Clicking:
        segmenter = self._segmenter
        cache = click_cache(segmenter.device, self._click_cache_bytes)
        place = self._grid, self._affine, self._shape
        return Clicking(segmenter.backend, segmenter.catalogue, segmenter.trained, *place, cache, self._click_dtype)

    def _automatic_answer(self, structure: Target, progress: Progress) -> ScoreMap:
        if structure is None:
            raise InputError("A new object is known by its clicks alone; place a first click.")
        scores = self.scores(structure, progress=progress)
        return ScoreMap((0, 0, 0), scores, np.ones(scores.shape, dtype=bool))

    def _require_open(self) -> None:
        if self._closed:
            raise InputError("The session is closed; open the volume again.")
        check_process()
