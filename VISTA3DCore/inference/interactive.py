"""From clicks to a changed mask: prompt the network, bring its answer to the input grid, apply Algorithm 1 there.

Only a box of the input grid is computed: the components of the answer that positive clicks touch, and the part of the
base in which negative clicks may remove something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click, positions_of
from VISTA3DCore.imaging.geometry import coverage, spacing_of
from VISTA3DCore.inference.answers import EMPTY_BOX, ClickResult
from VISTA3DCore.inference.click_growth import answer_clicks
from VISTA3DCore.inference.click_restoration import ParallelGrids, answered_mask
from VISTA3DCore.inference.click_scores import ClickEncoder, Prompt, ScoreMap
from VISTA3DCore.inference.click_windows import find_policy
from VISTA3DCore.inference.components import Component, ComponentsOnDemand, bounding_box, memory_order
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.refinement import TOLERANCE_MM, VARIANTS, refine
from VISTA3DCore.progress import Progress

__all__ = ["ClickRequest", "ClickResult", "Interaction"]


@dataclass(frozen=True)
class ClickRequest:
    """One question of a user; see :meth:`VISTA3DCore.inference.session.Session.click` for the meaning."""

    clicks: tuple[Click, ...]
    base: np.ndarray | None = None
    settled: int = 0
    policy: str = "reuse"
    variant: str = "paper"

    def check(self, grids: ParallelGrids) -> None:
        """:raises InputError: with one sentence, if the request cannot be answered."""
        find_policy(self.policy)
        if self.variant not in VARIANTS:
            raise InputError(f"There is no variant '{self.variant}'; use one of: {', '.join(VARIANTS)}.")
        if not 0 <= self.settled <= len(self.clicks):
            raise InputError(f"{self.settled} settled clicks were announced, but there are {len(self.clicks)} clicks.")
        self.check_base(grids)
        if not self.clicks:
            raise InputError("There is no click; place at least one.")
        if self.base is None and not any(click.positive for click in self.clicks):
            raise InputError("Negative clicks need a mask to take from; place a positive click or give a base mask.")
        self._check_places(grids)

    def check_base(self, grids: ParallelGrids) -> None:
        """:raises InputError: if the base is no mask of the input grid, or empty."""
        if self.base is None:
            return
        shape = grids.target_shape
        if not isinstance(self.base, np.ndarray) or self.base.dtype != bool:
            raise InputError("The base mask must be a bool array; compare a label map with its value first.")
        if self.base.shape != shape:
            raise InputError(
                f"The base mask has {_by(self.base.shape)} voxels, the volume {_by(shape)}; resample the mask onto the "
                "volume's grid first."
            )
        if not self.base.any():
            raise InputError("The base mask is empty; leave it out to begin from nothing.")

    def _check_places(self, grids: ParallelGrids) -> None:
        places = grids.to_target(positions_of(self.clicks))
        polarity: dict[tuple[int, ...], bool] = {}
        for click, place in zip(self.clicks, places, strict=True):
            # Half a voxel belongs to the outer voxels; a ten-thousandth more is rounding.
            if np.any(place < -0.5001) or np.any(place > np.array(grids.target_shape) - 0.4999):
                inside = coverage(grids.target_affine, grids.target_shape)
                raise InputError(f"The click at {_mm(click)} lies outside the volume, which covers {inside}.")
            voxel = tuple(np.clip(np.floor(place + 0.5), 0, np.array(grids.target_shape) - 1).astype(int).tolist())
            if polarity.setdefault(voxel, click.positive) != click.positive:
                raise InputError(
                    f"A positive and a negative click lie on one voxel, at {_mm(click)}; remove one of them."
                )


class Interaction:
    """Answers the clicks on one opened volume.

    :param encoder: of the volume's image on the model grid.
    """

    def __init__(self, encoder: ClickEncoder, grids: ParallelGrids) -> None:
        self.encoder, self.grids = encoder, grids

    def warm(self, position: Sequence[float], policy: str, progress: Progress) -> int:
        """Encode the window that a click at a place would use; return how many windows that took (0 or 1)."""
        ClickRequest((Click(position),), policy=policy).check(self.grids)
        before = self.encoder.encoded
        place = self.grids.to_model(np.asarray(position, dtype=np.float64))
        (start,) = find_policy(policy)([place], self.grids.model_shape, self.encoder.window)
        self.encoder.encode(start, progress)
        return self.encoder.encoded - before

    def answer(self, request: ClickRequest, special: bool, zero_shot: bool, progress: Progress) -> ScoreMap:
        """Return the network's scores for a checked request, on the model grid."""
        prompt = Prompt(
            self.grids.to_model(positions_of(request.clicks)),
            tuple(click.positive for click in request.clicks),
            special,
            zero_shot,
        )
        return answer_clicks(
            self.encoder,
            prompt,
            find_policy(request.policy),
            self.grids.model_shape,
            None if request.base is None else partial(self.grids.mask_on_model, request.base),
            progress,
            grow=request.policy == "reuse",
        )

    def apply(self, request: ClickRequest, score_map: ScoreMap) -> ClickResult:
        """Apply Algorithm 1 to the base with the network's scores, on the input grid."""
        selecting = request.clicks[request.settled :]
        box = _working_box(score_map, self.grids, request.base, selecting)
        idle = (False,) * request.settled
        if box is None:
            untouched = idle + (False,) * len(selecting)
            return ClickResult(request.base, self.grids.target_shape, EMPTY_BOX, np.zeros((0, 0, 0), bool), untouched)
        base = None if request.base is None else request.base[box]
        order = (0, 1, 2) if base is None else memory_order(base)
        positive, known = answered_mask(score_map, self.grids, box, order)
        base = np.zeros_like(positive) if base is None else base
        interactive = np.where(known, positive, base)
        refined = refine(base, interactive, selecting, _box_affine(self.grids, box), variant=request.variant)
        changed = bounding_box(refined.added | refined.removed)
        if changed is None:
            return ClickResult(
                request.base, self.grids.target_shape, EMPTY_BOX, np.zeros((0, 0, 0), bool), idle + refined.touched
            )
        place = _moved(changed, [part.start for part in box])
        return ClickResult(
            request.base, self.grids.target_shape, place, refined.mask[changed].copy(), idle + refined.touched
        )


def _working_box(
    score_map: ScoreMap, grids: ParallelGrids, base: np.ndarray | None, clicks: Sequence[Click]
) -> Box | None:
    """Return the box of the input grid outside of which the clicks can change nothing, or None."""
    boxes = [_around(grids, click) for click in clicks]
    positive = [click for click in clicks if click.positive]
    boxes += _added_boxes(score_map, grids, positive) if positive else []
    if base is not None and len(positive) < len(clicks):
        answered = grids.target_box(score_map.box)
        inner = bounding_box(base[answered])
        if inner is not None:
            boxes.append(_moved(inner, [part.start for part in answered]))
    boxes = [box for box in boxes if all(part.start < part.stop for part in box)]
    if not boxes:
        return None
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )


def _added_boxes(score_map: ScoreMap, grids: ParallelGrids, clicks: Sequence[Click]) -> list[Box]:
    """Return boxes that hold whatever positive clicks could add.

    Interpolated scores are positive only within one model voxel of a positive score; positive scores are widened by
    that, and by the input's voxels where these are larger, so that no component of the input grid is cut. Components
    are searched among blocks of 2^3 voxels, for speed: some that are apart may count as one, which costs only time.
    """
    positive = score_map.scores > 0
    steps = np.array([int(np.ceil((abs(grids.line(axis)[1]) + 1) / 2)) for axis in range(3)])
    blocks = _halved(positive)
    for axis in range(3):
        _widen(blocks, axis, -(-int(steps[axis]) // 2))
    components = ComponentsOnDemand(blocks)
    reach = int(np.ceil(TOLERANCE_MM / spacing_of(grids.model_affine).min())) + 1
    found: dict[int, Component] = {}
    for place in grids.to_model(positions_of(clicks)):
        voxel = np.rint(place).astype(int) - score_map.start
        low = np.clip((voxel - reach) // 2, 0, blocks.shape)
        high = np.clip((voxel + reach) // 2 + 1, low, blocks.shape)
        near = np.argwhere(blocks[tuple(map(slice, low, high))])
        found |= {id(component): component for component in components.of_each(low + near)}
    boxes = (_tight(positive, one.box, steps) for one in found.values())
    return [grids.target_box(_moved(box, score_map.start)) for box in boxes if box is not None]


def _halved(mask: np.ndarray) -> np.ndarray:
    """Return whether a mask holds anything in each block of 2^3 voxels."""
    for axis in range(3):
        lines = np.moveaxis(mask, axis, 0)
        halved = lines[::2].copy(order="K")
        halved[: len(lines) // 2] |= lines[1::2]
        mask = np.moveaxis(halved, 0, axis)
    return mask


def _tight(mask: np.ndarray, blocks: Box, margin: np.ndarray) -> Box | None:
    """Return the box of what a mask holds in a box of blocks, and a margin around it; None if that is nothing."""
    outer = tuple(slice(2 * part.start, 2 * part.stop) for part in blocks)
    inner = bounding_box(mask[outer])
    if inner is None:
        return None
    box = _moved(inner, [part.start for part in outer])
    return tuple(slice(part.start - more, part.stop + more) for part, more in zip(box, margin.tolist(), strict=True))


def _moved(box: Box, by: Sequence[int]) -> Box:
    return tuple(slice(part.start + step, part.stop + step) for part, step in zip(box, by, strict=True))


def _widen(mask: np.ndarray, axis: int, steps: int) -> None:
    """Dilate a mask in place along one axis."""
    lines = np.moveaxis(mask, axis, 0)
    for _ in range(steps):
        before = lines.copy()
        lines[1:] |= before[:-1]
        lines[:-1] |= before[1:]


def _around(grids: ParallelGrids, click: Click) -> Box:
    """Return the input voxels within the tolerance of a click."""
    place = grids.to_target(np.array(click.position))
    reach = TOLERANCE_MM / spacing_of(grids.target_affine) + 1
    low = np.clip(np.floor(place - reach), 0, grids.target_shape).astype(int)
    high = np.clip(np.ceil(place + reach) + 1, low, grids.target_shape).astype(int)
    return tuple(map(slice, low.tolist(), high.tolist()))


def _box_affine(grids: ParallelGrids, box: Box) -> np.ndarray:
    affine = grids.target_affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return affine


def _mm(click: Click) -> str:
    return "R {:.1f}, A {:.1f}, S {:.1f} mm".format(*click.position)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
