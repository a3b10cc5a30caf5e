# SPDX-License-Identifier: Apache-2.0
"""Clicks as a list of clicks shows them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from VISTA3DCore.errors import VistaError

from ..i18n import tr as _
from ..mrml.clicks import EDITED, OLDER, TOO_LARGE, ClickList, Position

if TYPE_CHECKING:
    from .clicked_segment import ClickedSegment


@dataclass(frozen=True)
class ClickRow:
    """A click as a list of clicks shows it.

    :param position: world RAS mm.
    :param outcome: whether it added or removed something; None: not known (yet).
    :param settled: whether it only tells what is meant, and adds and removes nothing any more.
    :param reason: why it is settled: in a few words, and in a sentence; empty if it is not.
    """

    position: Position
    positive: bool
    outcome: bool | None
    settled: bool
    reason: tuple[str, str] = ("", "")


def rows_of(segment: ClickedSegment | None, click_list: ClickList) -> list[ClickRow]:
    """Return the clicks of a segment, in the order in which they count."""
    if segment is None:
        return []
    try:
        places = [segment.world_position(click) for click in click_list.clicks]
    except VistaError:  # under a transform that is not linear; a click tells it
        return []
    known = zip_longest(places, click_list.clicks, click_list.touched)
    return [
        ClickRow(place, click.positive, touched, True, _reason(click_list.reason))
        if number < click_list.settled
        else ClickRow(place, click.positive, touched, False)
        for number, (place, click, touched) in enumerate(known)
    ]


def _reason(reason: str) -> tuple[str, str]:
    """Return why clicks are settled, in a few words and in a sentence."""
    words, sentence = {
        EDITED: (
            _("older than an edit"),
            _("Something else has changed the segment after this click: another tool, or clicks on another segment."),
        ),
        OLDER: (_("from an older version"), _("An older version of VISTA3D stored it under another rule.")),
        TOO_LARGE: (
            _("older than the file"),
            _("The mask from before this click was too large to be stored with the scene (more than 256 kB)."),
        ),
    }.get(reason, (_("older than the mask"), _("The mask from before this click is no longer known.")))
    return words, sentence + " " + _("The click still shows what is meant, but no longer adds or removes anything.")
