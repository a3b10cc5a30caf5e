"""The interactive half of a session: which structure is meant, what it was before, and where to click next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from VISTA3DCore.anatomy.catalogue import Catalogue
from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.backends.devices import free_memory
from VISTA3DCore.errors import InputError, ModelError
from VISTA3DCore.imaging.clicks import Click, positions_of
from VISTA3DCore.inference.automatic.feature_map import AutomaticBackend
from VISTA3DCore.inference.clicks.cache import ClickCache
from VISTA3DCore.inference.clicks.fold import ClickRequest, ClickResult, Interaction
from VISTA3DCore.inference.clicks.history import Shown
from VISTA3DCore.inference.clicks.resample_to_input import ParallelGrids
from VISTA3DCore.inference.clicks.scores import ClickBackend, ClickEncoder, ScoreMap
from VISTA3DCore.inference.clicks.suggestions import Suggestion, suggestions, uncertainty_of
from VISTA3DCore.inference.clicks.windows import lattice_window, nearest_voxel, window_image
from VISTA3DCore.inference.preprocessing import ModelGrid
from VISTA3DCore.inference.windows import Shape
from VISTA3DCore.progress import Progress

# Shares of the free memory that encoded windows may take: on a GPU the network needs the rest.
_DEVICE_SHARE = 0.25
_HOST_SHARE = 0.1


class Backend(AutomaticBackend, ClickBackend, Protocol):
    """A runtime for both branches."""


Target = str | int | Structure | None


def click_cache(device: torch.device, budget: int | None) -> ClickCache:
    """Return a cache with a budget in bytes for the device and for the host, or with shares of what is free now."""
    if budget is not None:
        return ClickCache(device, budget, budget)
    on_host = int(_HOST_SHARE * free_memory(torch.device("cpu")))
    return ClickCache(device, int(_DEVICE_SHARE * free_memory(device)), on_host)


class Clicking:
    """Clicks on one opened volume.

    :param backend: runs the network.
    :param catalogue: gives meaning to names; :param trained: the classes that the model was trained for.
    :param grid: what the network sees of the volume.
    :param target_affine: of the input grid; :param target_shape: its shape.
    :param cache: keeps encoded windows, in ``dtype``.
    :raises ModelError: if the model has no interactive branch.
    """

    def __init__(
        self,
        backend: Backend,
        catalogue: Catalogue,
        trained: tuple[int, ...],
        grid: ModelGrid,
        target_affine: np.ndarray,
        target_shape: Shape,
        cache: ClickCache,
        dtype: torch.dtype,
    ) -> None:
        if not backend.config.click_branch:
            facts = {"model": backend.config.name}
            raise ModelError("The model '{model}' was not trained for clicks", hint="choose-click-model", facts=facts)
        self._backend, self._catalogue, self._trained, self._grid = backend, catalogue, trained, grid
        grids = ParallelGrids(target_affine, target_shape, grid.affine, grid.shape)
        self.interaction = Interaction(ClickEncoder(backend, grid.image, cache, dtype), grids)
        self._hits: dict[tuple, Structure] = {}

    def click(self, structure: Target, request: ClickRequest, progress: Progress) -> ClickResult:
        """Answer clicks; see :meth:`VISTA3DCore.inference.session.Session.click`."""
        request.check(self.interaction.grids)
        target = self._target(structure, request.clicks)
        before = self.interaction.encoder.encoded
        result = self.interaction.fold(request, *self._kind(target), progress).result
        return replace(result, encoded=self.interaction.encoder.encoded - before, structure=target)

    def uncertainty(self, structure: Target, request: ClickRequest, progress: Progress) -> np.ndarray:
        """Return the doubt on the model grid, float32 [i, j, k] in 0..1; 0 where no window answered."""
        request.check(self.interaction.grids)
        score_map, _ = self._answer(self._target(structure, request.clicks), request, progress)
        doubt = np.zeros(self._grid.shape, dtype=np.float32)
        inner, outer = _overlap(score_map, doubt.shape)
        doubt[outer] = uncertainty_of(score_map.scores[inner], score_map.known[inner])
        return doubt

    def suggest(
        self, structure: Target, request: ClickRequest, count: int, progress: Progress
    ) -> tuple[Suggestion, ...]:
        """Return the places that are most worth the next clicks."""
        request.check(self.interaction.grids)
        score_map, shown = self._answer(self._target(structure, request.clicks), request, progress)
        return self.suggest_from(score_map, shown, request.clicks, count)

    def suggest_from(
        self, score_map: ScoreMap, shown: np.ndarray | Shown, clicks: Sequence[Click], count: int
    ) -> tuple[Suggestion, ...]:
        """Return suggestions from scores and the mask [i, j, k] of the input grid that the user sees."""
        grid = self._grid
        inner, outer = _overlap(score_map, grid.shape)
        if any(part.stop == part.start for part in outer):  # the windows lie in the air that was cut off
            return ()
        start = tuple(part.start for part in outer)
        inside = ScoreMap(start, score_map.scores[inner], score_map.known[inner])
        mask = self.interaction.grids.mask_on_model(shown, outer)
        return suggestions(inside, mask, grid.crop(outer).affine, positions_of(clicks), count)

    def hit(self, structure: Target, position: Sequence[float]) -> Structure:
        """Return which structure a click at a place means: of a group, the member that the automatic branch sees there.

        :raises InputError: if the place lies outside the volume, or none of the group's members is in the model.
        """
        ClickRequest((Click(position),)).check(self.interaction.grids)
        members = self._catalogue.resolve(structure)
        if len(members) == 1:
            return members[0]
        known = tuple(one for one in members if one.index in self._trained)
        if not known:
            raise InputError(f"None of the structures of '{structure}' is in the model '{self._backend.config.name}'.")
        key = (tuple(one.index for one in known), tuple(position))
        if key not in self._hits:
            self._hits[key] = known[int(self._class_scores(known, position).argmax())]
        return self._hits[key]

    def _target(self, structure: Target, clicks: Sequence[Click]) -> Structure | None:
        """Return the structure that clicks are for; the first positive one decides among the members of a group."""
        if structure is None:
            return None
        deciding = next((click for click in clicks if click.positive), clicks[0])
        return self.hit(structure, deciding.position)

    def _kind(self, target: Structure | None) -> tuple[bool, bool]:
        """Return what the network is told of a structure: whether it needs special tokens, and whether it is new."""
        # A structure of the catalogue that this model never saw is as new to it as any other object.
        zero_shot = target is None or target.index not in self._trained
        return target is not None and target.special_click_tokens and not zero_shot, zero_shot

    def _answer(self, target: Structure | None, request: ClickRequest, progress: Progress) -> tuple[ScoreMap, Shown]:
        """Return the network's answer to the last click, and the mask after it."""
        kind = self._kind(target)
        fold = self.interaction.fold(request, *kind, progress.part(0.0, 0.5))
        answer = self.interaction.answer(request, *kind, progress.part(0.5, 1.0), fold.before, fold.newest)
        return answer, fold.shown

    def _class_scores(self, structures: Sequence[Structure], position: Sequence[float]) -> torch.Tensor:
        """Return the automatic scores [K] at a place, from one window around it."""
        place = self.interaction.grids.to_model(np.asarray(position, dtype=np.float64))
        window = self._backend.config.window
        start = lattice_window(place, self._grid.shape, window)
        patch, encoder = window_image(self._grid.image, start, window), self.interaction.encoder
        features = encoder.attempt(lambda: encoder.backend.automatic_features(patch).cpu())
        voxel = np.clip(np.subtract(nearest_voxel(place), start), 0, np.subtract(window, 1))
        vectors = self._backend.class_matrix([one.index for one in structures]).cpu()
        return vectors @ features[(slice(None), *voxel)]


def _overlap(score_map: ScoreMap, shape: Shape) -> tuple[tuple, tuple]:
    """Return where a score map and the model grid overlap, in the indices of each; empty slices where they do not."""
    starts = [min(max(part.start, 0), size) for part, size in zip(score_map.box, shape, strict=True)]
    stops = [max(min(part.stop, size), start) for part, size, start in zip(score_map.box, shape, starts, strict=True)]
    outer = tuple(map(slice, starts, stops))
    inner = tuple(
        slice(part.start - first, part.stop - first) for part, first in zip(outer, score_map.start, strict=True)
    )
    return inner, outer
