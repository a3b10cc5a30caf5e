"""Reading a label set from its data file (the format is described in Documentation/anatomy.md)."""

from __future__ import annotations

from typing import Any

from VISTA3DCore.anatomy.structure import TISSUE, Code, Structure

_CATEGORIES = {
    "anatomical": Code("123037004", "SCT", "Anatomical Structure"),
    "altered": Code("49755003", "SCT", "Morphologically Altered Structure"),
    "tissue": TISSUE,
}
_SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}


def load(filename: str) -> tuple[dict[str, Any], tuple[Structure, ...]]:
    """Return a label set's header and its structures ordered by index.

    :param filename: a data file of this folder.
    """
    header, entries = _entries(filename)
    default_run = frozenset(next(iter(header["everything"].values())))
    structures = [_structure(entry, entry["index"] in default_run) for entry in entries]
    return header, tuple(sorted(structures, key=lambda structure: structure.index))


def _entries(filename: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return header and raw entries; a set that extends another gives only what differs, and what is new."""
    import json  # here, so that importing the catalogue costs nothing until a label set is read
    from pathlib import Path

    header = json.loads(Path(__file__).with_name(filename).read_text(encoding="utf-8"))
    entries = header.pop("structures")
    if not (parent := header.get("extends")):
        return header, entries
    base, inherited = _entries(parent)
    merged = {entry["index"]: entry for entry in inherited}
    for entry in entries:
        merged[entry["index"]] = {**merged.get(entry["index"], {}), **entry}
    header["groups"] = {**base["groups"], **header["groups"]}
    return header, list(merged.values())


def _structure(entry: dict[str, Any], in_everything: bool) -> Structure:
    return Structure(
        index=entry["index"],
        name=entry["name"],
        display_name=entry["display"],
        group=entry["group"],
        color=tuple(entry["color"]),
        laterality=entry.get("side"),
        synonyms=tuple(entry.get("synonyms", ())),
        keywords=tuple(entry.get("keywords", ())),
        category=_CATEGORIES.get(entry.get("category", "")),
        type=_code(entry.get("type")),
        type_modifier=_SIDES.get(entry.get("type_side", "")),
        region=_code(entry.get("region")),
        region_modifier=_SIDES.get(entry.get("region_side", "")),
        in_everything=in_everything,
        overlapping=entry.get("overlapping", False),
        special_click_tokens=entry.get("special_click_tokens", False),
        members=tuple(entry.get("members", ())),
        supported=entry.get("supported", True),
        modalities=tuple(entry["modalities"]),
        advice=entry.get("advice", ""),
    )


def _code(pair: list[str] | None) -> Code | None:
    return Code(value=pair[0], scheme="SCT", meaning=pair[1]) if pair else None
