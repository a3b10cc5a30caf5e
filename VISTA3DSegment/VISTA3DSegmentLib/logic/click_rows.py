# SPDX-License-Identifier: Apache-2.0
"""Clicks as a list of clicks shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from VISTA3DCore.errors import VistaError

from ..mrml.clicks import ClickList, Position, StoredClick

if TYPE_CHECKING:
    from .clicked_segment import ClickedSegment


@dataclass(frozen=True)
class ClickRow:
    """A click as a list of clicks shows it.

    :param position: world RAS mm.
    :param outcome: whether it added or removed something; None: not known (yet).
    :param settled: whether it only tells what is meant, and adds and removes nothing any more.
    """

    position: Position
    positive: bool
    outcome: bool | None
    settled: bool


def rows_of(
    segment: ClickedSegment | None, click_list: ClickList, outcomes: Mapping[StoredClick, bool]
) -> list[ClickRow]:
    """Return the clicks of a segment, in the order in which they count.

    :param outcomes: whether clicks added or removed something, as far as that is known.
    """
    if segment is None:
        return []
    try:
        places = [segment.world_position(click) for click in click_list.clicks]
    except VistaError:  # under a transform that is not linear; a click tells it
        return []
    return [
        ClickRow(place, click.positive, outcomes.get(click), number < click_list.settled)
        for number, (place, click) in enumerate(zip(places, click_list.clicks, strict=True))
    ]
