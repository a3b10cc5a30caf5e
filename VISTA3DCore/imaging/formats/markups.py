"""Clicks from 3D Slicer's markups files: point lists as ``.mrk.json`` and as the older ``.fcsv``.

What Slicer itself does with such files was looked up in its storage nodes (vtkMRMLMarkupsJsonStorageNode,
vtkMRMLMarkupsFiducialStorageNode) and is repeated here, except that doubtful files are refused.
"""

from __future__ import annotations

import csv
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.paths import expanded

POLARITIES = ("auto", "positive", "negative")
# A control point takes about 600 bytes; beyond these it is not a list that somebody clicked.
MAX_POINTS = 1000
_MAX_BYTES = 8 << 20

# Slicer's numbers for coordinate systems (vtkMRMLStorageNode), which Slicer 4.10 and older wrote; 2 is IJK.
_TO_RAS = {"RAS": (1.0, 1.0, 1.0), "0": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0), "1": (-1.0, -1.0, 1.0)}
_NEGATIVE = ("neg", "negative", "negatives", "background", "-", "\N{MINUS SIGN}")
_POSITIVE = ("pos", "positive", "positives", "foreground", "+")
# What a name begins with: a sign, or a word; the next word of "NegativePoints" begins at its capital.
_FIRST_WORD = re.compile(r"[-+\N{MINUS SIGN}]|[A-Z]+(?![a-z])|[^\W\d_][^\W\d_A-Z]*")
# vtkMRMLMarkupsNode::PositionDefined and the columns of a point's line in Slicer 5 (older files lack the last ones).
_DEFINED = "2"
_COLUMNS = ("id", *"xyz", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID", "status")


@dataclass(frozen=True)
class MarkupPoint:
    """A control point whose position is defined.

    :param position: RAS millimetres.
    :param label: its label, e.g. ``F-1``.
    :param description: its description, often empty.
    :param selected: whether it is selected; Slicer's modules pass over the points that are not.
    :param markup: the name of its point list: as the file says, else the file's name without suffix.
    """

    position: tuple[float, float, float]
    label: str = ""
    description: str = ""
    selected: bool = True
    markup: str = ""

    @property
    def positive(self) -> bool:
        """The polarity that its names tell; the label is asked before the list's name, and silence means positive.

        The first word counts, as a whole: ``neg``, ``negative``, ``background`` or a minus sign mean negative, ``pos``,
        ``positive``, ``foreground`` or a plus sign positive. So ``neg-1`` and ``Negative_2`` are negative, but
        ``negligible`` and ``posterior`` say nothing. Upper and lower case do not matter.
        """
        for name in (self.label, self.markup):
            found = _FIRST_WORD.match(name.strip())
            word = found[0].casefold() if found else ""
            if word in _NEGATIVE + _POSITIVE:
                return word in _POSITIVE
        return True


def read_clicks(path: str | PathLike[str], polarity: str = "auto") -> list[Click]:
    """Read the selected points of a markups file as clicks.

    :param polarity: ``positive``, ``negative``, or ``auto``: see :attr:`MarkupPoint.positive`.
    :return: clicks in RAS mm, in the file's order. Points that are not selected are left out, with a UserWarning.
    :raises InputError: as :func:`read_markups` does, or if there is no selected point or no such polarity.
    """
    if polarity not in POLARITIES:
        raise InputError(f"There is no polarity '{polarity}'; use one of: {', '.join(POLARITIES)}.")
    points = read_markups(path)
    selected = [point for point in points if point.selected]
    name = Path(path).name
    if not selected:
        raise InputError(f"No point of '{name}' is selected; select those that shall count as clicks.")
    if len(selected) < len(points):
        count = f"{len(points) - len(selected)} of the {len(points)} points in '{name}'"
        warnings.warn(f"Left out, because not selected: {count}.", UserWarning, stacklevel=2)
    fixed = None if polarity == "auto" else polarity == "positive"
    return [Click(point.position, point.positive if fixed is None else fixed) for point in selected]


def read_markups(path: str | PathLike[str]) -> list[MarkupPoint]:
    """Read the points of all point lists in a markups file (``.mrk.json``, ``.json`` or ``.fcsv``).

    Points without a defined position (previewed, unset, missing) are left out; other markups (curves, ROIs ...) too,
    with a UserWarning, because their points outline something rather than lie in it.

    :return: points in RAS mm, in the file's order; at least one.
    :raises InputError: if there is no usable point, or the file is damaged, too long, not in millimetres, or of an
        unknown coordinate system.
    """
    path = expanded(path)
    text = _text(path)
    json_like = text.lstrip().startswith(("{", "["))
    points = list(_json_points(text, path) if json_like else _fcsv_points(text, path))
    if not points:
        raise InputError(f"'{path.name}' holds no point whose position is defined; place one in Slicer.")
    if len(points) > MAX_POINTS:
        raise InputError(f"'{path.name}' holds {len(points):,} points; more than {MAX_POINTS:,} cannot be clicks.")
    return points


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"The markups file '{path}' does not exist.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"The markups file '{path}' cannot be opened; give an .mrk.json or .fcsv file.") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"'{path.name}' is larger than {_MAX_BYTES >> 20} MB, so it is not a list of clicks.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_markups(path) from error


def _not_markups(path: Path) -> InputError:
    return InputError(f"'{path.name}' is not a markups file of Slicer, or damaged; give an .mrk.json or .fcsv file.")


def _json_points(text: str, path: Path) -> Iterator[MarkupPoint]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_markups(path) from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise _not_markups(path)
    other = sorted({ascii(markup.get("type"))[:40] for markup in markups if markup.get("type") != "Fiducial"})
    if other:
        sentence = f"'{path.name}' holds markups of type {', '.join(other)}, whose points are no clicks"
        if all(markup.get("type") != "Fiducial" for markup in markups):
            raise InputError(f"{sentence}; place a point list (fiducials).")
        warnings.warn(f"{sentence}; they were left out.", UserWarning, stacklevel=2)
    for markup in markups:
        if markup.get("type") == "Fiducial":
            yield from _list_points(markup, path)


def _list_points(markup: dict[str, Any], path: Path) -> Iterator[MarkupPoint]:
    _check_units(markup.get("coordinateUnits", "mm"), path)
    signs = _signs(markup.get("coordinateSystem", "LPS"), path)  # LPS is the schema's default
    name = str(markup.get("name") or _stem(path))
    points = markup.get("controlPoints", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise _not_markups(path)
    for number, point in enumerate(points, 1):
        if point.get("positionStatus", "defined") == "defined":
            label, description = str(point.get("label") or ""), str(point.get("description") or "")
            position = _position(point.get("position"), signs, number, path)
            yield MarkupPoint(position, label, description, point.get("selected", True) is not False, name)


def _fcsv_points(text: str, path: Path) -> Iterator[MarkupPoint]:
    lines = text.splitlines()
    header = dict(_header_entry(line) for line in lines if line.startswith("#"))
    if "Markups fiducial file version" not in header:
        raise _not_markups(path)
    if "CoordinateSystem" not in header:
        raise InputError(f"'{path.name}' does not say its coordinate system; add the line '# CoordinateSystem = RAS'.")
    signs = _signs(header["CoordinateSystem"], path)
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    for number, row in enumerate(rows, 1):
        point = _fields(row, path)
        if point.get("status", _DEFINED) == _DEFINED:
            numbers = [_number(point.get(axis, "")) for axis in "xyz"]
            position = _position(numbers, signs, number, path)
            selected = point.get("sel", "1").strip() != "0"
            yield MarkupPoint(position, point.get("label", ""), point.get("desc", ""), selected, _stem(path))


def _header_entry(line: str) -> tuple[str, str]:
    key, _, value = line[1:].partition("=")
    return key.strip(), value.strip()


def _fields(row: str, path: Path) -> dict[str, str]:
    try:
        values = next(csv.reader([row]))
    except csv.Error as error:
        raise _not_markups(path) from error
    return dict(zip(_COLUMNS, values, strict=False))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _stem(path: Path) -> str:
    """Return what Slicer names the point list after."""
    name = path.name
    for suffix in (".mrk.json", ".json", ".fcsv"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _signs(system: object, path: Path) -> tuple[float, float, float]:
    """Return what turns coordinates of a system into RAS."""
    signs = _TO_RAS.get(system) if isinstance(system, str) else None
    if signs is None:
        raise InputError(f"'{path.name}' has the coordinate system {ascii(system)[:40]}; it must be 'LPS' or 'RAS'.")
    return signs


def _check_units(units: object, path: Path) -> None:
    """Check the unit: its UCUM code, or code, coding scheme and meaning."""
    coded = isinstance(units, list) and units[:2] == ["mm", "UCUM"]
    if not coded and units not in ("mm", ["mm"] * 3):
        raise InputError(f"'{path.name}' gives positions in {ascii(units)[:40]}; they must be in millimeters ('mm').")


def _position(values: object, signs: tuple[float, float, float], number: int, path: Path) -> tuple[float, float, float]:
    """Return three numbers in RAS mm.

    :param number: of the point, from 1, for the message.
    :raises InputError: if they are not three finite numbers.
    """
    numbers = values if isinstance(values, list) else []
    real = [value for value in numbers if isinstance(value, (int, float)) and not isinstance(value, bool)]
    try:
        position = tuple(sign * float(value) for sign, value in zip(signs, real, strict=True))
    except (ValueError, OverflowError):
        position = ()
    if len(real) != len(numbers) or len(position) != 3 or not all(map(math.isfinite, position)):
        raise InputError(f"The position of point {number} in '{path.name}' is not three finite numbers.")
    return position
