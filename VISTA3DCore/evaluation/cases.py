"""Hold one opened image with its reference, and what a protocol makes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.evaluation.references import Reference, Target
from VISTA3DCore.evaluation.settings import Settings
from VISTA3DCore.imaging.clicks import Click

if TYPE_CHECKING:
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.inference.session import Session


@dataclass(frozen=True, eq=False)
class Result:
    """What a protocol made of one structure.

    :param mask: bool [i, j, k] on the input grid.
    :param clicks: how many were set.
    :param seconds: of computing.
    :param curve: Dice after each click, where they were set one after another; so are the next two.
    :param placed: the clicks, in order.
    :param click_seconds: of computing, for each click.
    """

    target: Target
    mask: np.ndarray
    clicks: int = 0
    seconds: float = 0.0
    curve: tuple[float, ...] = ()
    placed: tuple[Click, ...] = ()
    click_seconds: tuple[float, ...] = ()


@dataclass(eq=False)
class OpenCase:
    """One image and its reference; the image is opened when a protocol first asks for its session.

    :param volume: the image.
    :param targets: structures that the reference holds and the model knows.
    :param missing: structures that the dataset labels and the model knows, but this reference does not hold; their
        automatic result is measured, too.
    :param objects: everything that the reference holds, as objects of which the model is told nothing.
    """

    segmenter: Segmenter
    volume: Volume
    reference: Reference
    targets: Sequence[Target]
    missing: Sequence[Target]
    objects: Sequence[Target]
    settings: Settings

    @property
    def affine(self) -> np.ndarray:
        """4x4, voxel index -> RAS mm."""
        return self.volume.affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the input grid."""
        return self.volume.shape

    @cached_property
    def session(self) -> Session:
        """The opened image."""
        return self.segmenter.open(self.volume)

    def close(self) -> None:
        """Free what was opened."""
        if "session" in self.__dict__:
            self.session.close()

    def mask(self, target: Target) -> np.ndarray:
        """Return a target's voxels in the reference, bool [i, j, k]."""
        return self.reference.mask(target) if target.values else np.zeros(self.shape, dtype=bool)

    @cached_property
    def automatic(self) -> tuple[Segmentation, float]:
        """The automatic result for all targets, as a user gets it, and the seconds that it took."""
        started = time.perf_counter()
        structures = [target.known for target in (*self.targets, *self.missing)]
        settings = self.settings
        result = self.session.segment(structures, settings.preset, settings.restoration, streaming=True)
        return result, time.perf_counter() - started
