"""From clicks to a changed mask: for each click in turn, prompt the network with all clicks up to it, bring the answer
to the input grid, and apply Algorithm 1 with this click to the mask that was shown before it.

So relative to what a user sees, a positive click only adds and a negative one only removes. A click that the mask
serves already, such as a negative one outside of it, changes nothing and asks nothing; it prompts the answers to later
clicks. Only a box of the input grid is computed: the components of the answer that a positive click touches, or the
part of the mask in which a negative one may remove something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click, positions_of
from VISTA3DCore.imaging.components import Component, ComponentsOnDemand, bounding_box
from VISTA3DCore.imaging.geometry import coverage, spacing_of
from VISTA3DCore.inference.clicks.history import Change, ClickHistory, Shown, moved
from VISTA3DCore.inference.clicks.prompt_selection import thinned
from VISTA3DCore.inference.clicks.propagation import answer_clicks
from VISTA3DCore.inference.clicks.reach import NEAR, reach_mm, within
from VISTA3DCore.inference.clicks.refinement import TOLERANCE_MM, VARIANTS, refine
from VISTA3DCore.inference.clicks.resample_to_input import ParallelGrids, answered_mask
from VISTA3DCore.inference.clicks.results import ClickResult
from VISTA3DCore.inference.clicks.scores import ClickEncoder, Prompt, ScoreMap
from VISTA3DCore.inference.clicks.windows import find_policy
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape
from VISTA3DCore.models.registry import clicks_near
from VISTA3DCore.progress import Progress

__all__ = ["CLICK_VARIANTS", "ClickRequest", "ClickResult", "Interaction", "default_variant"]

PAPER = "paper"
CLICK_VARIANTS = (*VARIANTS, NEAR)
"""Those of :func:`refine`, and ``near``: as ``paper``, within the reach of each click (:mod:`click_reach`)."""


def default_variant(model: str) -> str:
    """Return what a click may change unless the user chooses otherwise.

    :param model: the name in its configuration.
    """
    return NEAR if clicks_near(model) else PAPER


@dataclass(frozen=True)
class ClickRequest:
    """One question of a user; see :meth:`VISTA3DCore.inference.session.Session.click` for the meaning."""

    clicks: tuple[Click, ...]
    base: np.ndarray | None = None
    settled: int = 0
    policy: str = "reuse"
    variant: str = PAPER

    @property
    def steps(self) -> list[slice]:
        """Which clicks change the mask together: each by itself; in the variant of the reference, all of them."""
        if self.variant == "reference":
            return [slice(self.settled, len(self.clicks))] if self.settled < len(self.clicks) else []
        return [slice(number, number + 1) for number in range(self.settled, len(self.clicks))]

    def check(self, grids: ParallelGrids) -> None:
        """:raises InputError: with one sentence, if the request cannot be answered."""
        find_policy(self.policy)
        if self.variant not in CLICK_VARIANTS:
            raise InputError(f"There is no variant '{self.variant}'; use one of: {', '.join(CLICK_VARIANTS)}.")
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
            voxel = _voxel_at(grids, place)
            if polarity.setdefault(voxel, click.positive) != click.positive:
                raise InputError(
                    f"A positive and a negative click lie on one voxel, at {_mm(click)}; remove one of them."
                )


class Interaction:
    """Answers the clicks on one opened volume.

    :param encoder: of the volume's image on the model grid.
    """

    def __init__(self, encoder: ClickEncoder, grids: ParallelGrids) -> None:
        self.encoder, self.grids, self.history = encoder, grids, ClickHistory()

    def clear(self) -> None:
        """Forget the encoded windows and the former answers."""
        self.encoder.clear()
        self.history.clear()

    def warm(self, position: Sequence[float], policy: str, progress: Progress) -> int:
        """Encode the window that a click at a place would use; return how many windows that took (0 or 1)."""
        ClickRequest((Click(position),), policy=policy).check(self.grids)
        before = self.encoder.encoded
        place = self.grids.to_model(np.asarray(position, dtype=np.float64))
        (start,) = find_policy(policy)([place], self.grids.model_shape, self.encoder.window)
        self.encoder.encode(start, progress)
        return self.encoder.encoded - before

    def answer(
        self,
        request: ClickRequest,
        special: bool,
        zero_shot: bool,
        progress: Progress,
        shown: Shown | None = None,
        newest: int | None = None,
    ) -> ScoreMap:
        """Return the network's scores for all clicks of a checked request, on the model grid.

        :param shown: the mask before the newest clicks; None: the base.
        :param newest: how many of the clicks, the last ones, are about to change it; None: all.
        """
        shown = self._base(request) if shown is None else shown
        grow = request.policy == "reuse"
        clicks = thinned(request.clicks) if grow else request.clicks
        prompt = Prompt(
            self.grids.to_model(positions_of(clicks)),
            tuple(click.positive for click in clicks),
            special,
            zero_shot,
            newest,
        )
        return answer_clicks(
            self.encoder,
            prompt,
            find_policy(request.policy),
            self.grids.model_shape,
            None if shown.is_empty else partial(self.grids.mask_on_model, shown),
            progress,
            grow=grow,
        )

    def fold(self, request: ClickRequest, special: bool, zero_shot: bool, progress: Progress) -> Fold:
        """Return what the clicks of a checked request make of the base, one after the other.

        Steps that are remembered of a former request cost nothing.
        """
        base, steps = self._base(request), request.steps
        options = special, zero_shot, request.policy, request.variant, request.settled
        clicks = request.clicks[: request.settled], *(request.clicks[step] for step in steps)
        keys = self.history.keys(request.base, options, clicks)
        changes, shown = self.history.recall(base, keys)
        for number in range(len(changes), len(steps)):
            part = progress.part(number / len(steps), (number + 1) / len(steps))
            changes.append(self._change(shown, request, steps[number], (special, zero_shot), part))
            shown = shown.changed_by(changes[-1:])
            self.history.keep(keys[number + 1], changes[-1], shown)
        return Fold(base, shown, tuple(changes), request.settled)

    def _base(self, request: ClickRequest) -> Shown:
        return Shown(request.base, self.grids.target_shape)

    def _change(
        self, shown: Shown, request: ClickRequest, step: slice, kind: tuple[bool, bool], progress: Progress
    ) -> Change:
        """Return what the clicks of a step change in the mask shown."""
        clicks = request.clicks[step]
        if request.variant in (PAPER, NEAR) and self._serves(shown, clicks[0]):
            return Change((False,))
        so_far = replace(request, clicks=request.clicks[: step.stop])
        score_map = self.answer(so_far, *kind, progress, shown, len(clicks))
        return self._refined(shown, clicks, score_map, request.variant)

    def _serves(self, shown: Shown, click: Click) -> bool:
        """Return whether a mask is at a click's voxel as the click says."""
        return shown.holds(_voxel_of(self.grids, click)) == click.positive

    def _refined(self, shown: Shown, clicks: Sequence[Click], score_map: ScoreMap, variant: str) -> Change:
        """Apply Algorithm 1 with some clicks to the mask shown, on the input grid."""
        box = _working_box(score_map, self.grids, shown, clicks)
        if box is None:
            return Change((False,) * len(clicks))
        positive, known = answered_mask(score_map, self.grids, box, shown.order)
        if variant == NEAR:
            known &= within(reach_mm(shown, self.grids, clicks[0]), self.grids, clicks[0], box)
        mask = shown[box]
        interactive = np.where(known, positive, mask)
        rule = PAPER if variant == NEAR else variant
        refined = refine(mask, interactive, clicks, _box_affine(self.grids, box), variant=rule)
        return Change.of(refined.added | refined.removed, [part.start for part in box], refined.touched)


@dataclass(frozen=True, eq=False)
class Fold:
    """What clicks made of a base.

    :param shown: the mask after the last step. :param changes: of each step.
    :param settled: how many clicks came before the first step.
    """

    base: Shown
    shown: Shown
    changes: tuple[Change, ...]
    settled: int

    @property
    def before(self) -> Shown:
        """The mask before the last step."""
        return self.base.changed_by(self.changes[:-1])

    @property
    def newest(self) -> int:
        """How many clicks the last step has."""
        return len(self.changes[-1].touched) if self.changes else 0

    @property
    def result(self) -> ClickResult:
        touched = (False,) * self.settled + sum((change.touched for change in self.changes), ())
        return ClickResult(self.base.base, self.base.shape, *self.shown.difference(), touched)


def _working_box(score_map: ScoreMap, grids: ParallelGrids, shown: Shown, clicks: Sequence[Click]) -> Box | None:
    """Return the box of the input grid outside of which the clicks can change nothing, or None."""
    boxes = [_around(grids, click) for click in clicks]
    positive = [click for click in clicks if click.positive]
    boxes += _added_boxes(score_map, grids, positive) if positive else []
    if not shown.is_empty and len(positive) < len(clicks):
        answered = grids.target_box(score_map.box)
        inner = bounding_box(shown[answered])
        if inner is not None:
            boxes.append(moved(inner, [part.start for part in answered]))
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
    return [grids.target_box(moved(box, score_map.start)) for box in boxes if box is not None]


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
    box = moved(inner, [part.start for part in outer])
    return tuple(slice(part.start - more, part.stop + more) for part, more in zip(box, margin.tolist(), strict=True))


def _widen(mask: np.ndarray, axis: int, steps: int) -> None:
    """Dilate a mask in place along one axis."""
    lines = np.moveaxis(mask, axis, 0)
    for _ in range(steps):
        before = lines.copy()
        lines[1:] |= before[:-1]
        lines[:-1] |= before[1:]


def _voxel_of(grids: ParallelGrids, click: Click) -> Shape:
    return _voxel_at(grids, grids.to_target(np.array(click.position)))


def _voxel_at(grids: ParallelGrids, place: np.ndarray) -> Shape:
    """Return the input voxel of a fractional index; the outer voxels reach to the volume's border."""
    return tuple(np.clip(np.floor(place + 0.5), 0, np.array(grids.target_shape) - 1).astype(int).tolist())


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
