# SPDX-License-Identifier: Apache-2.0
"""The clicks on a segment: what they are, how they are changed, and how a tag of the segment holds them.

The tag is the only place where clicks live. Slicer's undo restores a segment's mask and tags together, and both travel
in ``.seg.nrrd`` and ``.mrb`` files, so undo, redo and saving need nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import slicer

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click

from ..i18n import tr as _
from .boxes import Ranges
from .tags import TAG_PREFIX, get_tag, segment_of, set_tag

TAG = TAG_PREFIX + "Clicks"
#: Why clicks are settled: the mask was changed by something else; they were stored by an older version of the
#: extension; the mask from before them was too large to be stored; it cannot be found for another reason.
EDITED, OLDER, TOO_LARGE, LOST = "edited", "older", "too large", "lost"
#: More than anybody places; a longer list comes from something else.
MAX_CLICKS = 1000

# The first version computed masks by another rule, under which its clicks cannot be computed anew.
_VERSION = 2
# A millionth of a millimetre: the text stays short and reads back as the same number.
_DIGITS = 6

Position = tuple[float, float, float]


@dataclass(frozen=True)
class StoredClick:
    """A click as it is stored.

    :param position: millimetres in the coordinates of the segmentation node itself, so that it follows the node's
        parent transform.
    :param positive: whether the place belongs to the object.
    :raises InputError: if the position is not three finite numbers.
    """

    position: Position
    positive: bool = True

    def __post_init__(self) -> None:
        checked = Click(self.position, self.positive)
        object.__setattr__(self, "position", tuple(round(value, _DIGITS) for value in checked.position))
        object.__setattr__(self, "positive", checked.positive)

    def flipped(self) -> StoredClick:
        """Return a click of the other polarity at the same place."""
        return replace(self, positive=not self.positive)


@dataclass(frozen=True)
class Edit:
    """A change of a click list: one undo step.

    Clicks are named by what they are and not by their number, so an edit still fits after the list has changed.

    :param replaced: pairs of an old click and the one in its place, or None where it is deleted.
    :param added: new clicks, in order.
    """

    replaced: tuple[tuple[StoredClick, StoredClick | None], ...] = ()
    added: tuple[StoredClick, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.replaced or self.added)


@dataclass(frozen=True)
class ClickList:
    """All clicks on a segment, and what its mask was made of.

    :param clicks: in the order in which they count.
    :param structure: index of what is clicked in the catalogue ``label_set``; None for an object without a name.
    :param settled: how many of the clicks, the first ones, only tell what is meant: the mask from before them is lost,
        mostly because something else has changed the segment since.
    :param base: name of the mask from before the first click that is not settled; empty before the first click.
    :param base_empty: whether that mask holds nothing.
    :param mask: fingerprint of the mask after the last click was applied.
    :param box: voxels of the volume's grid outside of which this mask is the base; None: it is the base everywhere.
    :param exchange: name of what the clicks took from other segments, or gave to them; empty for nothing.
    :param reason: why clicks are settled: one of :data:`EDITED`, :data:`OLDER`, :data:`TOO_LARGE` and :data:`LOST`.
    :param touched: of the first clicks, whether each of them added or removed something; None: not known.
    :raises InputError: if there are too many clicks.
    """

    clicks: tuple[StoredClick, ...] = ()
    structure: int | None = None
    label_set: str = ""
    settled: int = 0
    base: str = ""
    mask: str = ""
    base_empty: bool = True
    box: Ranges | None = None
    exchange: str = ""
    reason: str = ""
    touched: tuple[bool | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.clicks) > MAX_CLICKS:
            raise InputError(_("A segment can have at most {count} clicks; delete some.").format(count=MAX_CLICKS))

    def __bool__(self) -> bool:
        return bool(self.clicks)

    def all_settled(self, reason: str) -> ClickList:
        """Return the list with clicks that only tell what is meant; those that were settled keep their reason."""
        if self.settled == len(self.clicks) and self.reason:
            return self
        return replace(self, settled=len(self.clicks), reason=reason)

    def apply(self, edit: Edit) -> ClickList:
        """Return the list after an edit; clicks that are not there any more are passed over.

        A settled click that was changed counts anew, as the last one. What clicks after a changed one do is not known.
        """
        clicks, settled, last = list(self.clicks), self.settled, []
        for old, new in edit.replaced:
            if old not in clicks:
                continue
            place = len(clicks) - 1 - clicks[::-1].index(old)
            if place < settled or new is None:
                settled -= place < settled
                del clicks[place]
                last += [] if new is None else [new]
            else:
                clicks[place] = new
        edited = (*clicks, *last, *edit.added)
        same = sum(1 for _pair in takewhile(lambda pair: pair[0] == pair[1], zip(self.clicks, edited, strict=False)))
        return replace(self, clicks=edited, settled=settled, touched=self.touched[:same])

    def to_json(self) -> str:
        """Return the value of the tag; it has no ``|``, which would end it in a file."""
        content = vars(self) | {"version": _VERSION}
        content["clicks"] = [[*click.position, int(click.positive)] for click in self.clicks]
        return json.dumps(content, separators=(",", ":")).replace("|", r"\u007c")

    @classmethod
    def from_json(cls, text: str) -> ClickList:
        """Return the list that a tag holds.

        :raises InputError: if it is damaged, or written by a later version of this extension.
        """
        content = _object(text)
        version = content.pop("version", None)
        if isinstance(version, int) and version > _VERSION:
            raise InputError(
                _("The segment's clicks were stored by a later version of VISTA3D; update the extension to use them.")
            )
        try:
            click_list = _checked(content)
            # Base and fingerprint go: its mask stays as it is, and is the base of all further clicks.
            is_older = version != _VERSION
            return replace(click_list.all_settled(OLDER), base="", mask="", box=None) if is_older else click_list
        except (KeyError, TypeError, ValueError, OverflowError, InputError) as error:
            raise _damaged() from error


def read_clicks(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> ClickList:
    """Return the clicks of a segment; an empty list if it has none.

    :raises InputError: if what is stored cannot be read.
    """
    text = stored_text(segmentation_node, segment_id)
    return ClickList.from_json(text) if text else ClickList()


def stored_text(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> str:
    """Return a segment's clicks as their tag holds them; empty if it has none."""
    return get_tag(segmentation_node, segment_id, TAG) or ""


def store_clicks(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, click_list: ClickList) -> None:
    """Store the clicks of a segment in its tag; without clicks, the tag goes.

    :raises InputError: if there is no such segment.
    """
    if click_list:
        set_tag(segmentation_node, segment_id, TAG, click_list.to_json())
    elif get_tag(segmentation_node, segment_id, TAG) is not None:
        segment_of(segmentation_node, segment_id).RemoveTag(TAG)


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if not isinstance(content, dict):
        raise _damaged()
    return content


def _damaged() -> InputError:
    return InputError(_("The clicks stored with the segment are damaged; new clicks begin from its present mask."))


def _checked(content: dict[str, Any]) -> ClickList:
    """Return the list that a JSON object describes.

    :raises TypeError, ValueError, KeyError: if it describes none.
    """
    clicks = tuple(_click(values) for values in content["clicks"])
    structure, settled = content["structure"], _whole(content["settled"])
    if structure is not None:
        _whole(structure)
    if settled > len(clicks):
        raise ValueError("more settled clicks than clicks")
    texts = [_text(content[name]) for name in ("label_set", "base", "mask")]
    box = content["box"]
    ranges = None if box is None else tuple(_range(ends) for ends in box)
    if ranges is not None and len(ranges) != 3:
        raise ValueError("a box has three ranges")
    label_set, base, mask = texts
    exchange, reason = (_text(content.get(name, "")) for name in ("exchange", "reason"))
    empty = bool(content["base_empty"])
    touched = tuple(_truth(value) for value in content.get("touched", ()))[: len(clicks)]
    return ClickList(clicks, structure, label_set, settled, base, mask, empty, ranges, exchange, reason, touched)


def _click(values: Iterable[float]) -> StoredClick:
    *position, positive = values
    return StoredClick(tuple(position), bool(positive))


def _range(ends: Iterable[int]) -> tuple[int, int]:
    start, stop = map(_whole, ends)
    if start > stop:
        raise ValueError("a range ends before it begins")
    return start, stop


def _truth(value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of something")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
