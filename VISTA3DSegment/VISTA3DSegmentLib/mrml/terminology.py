# SPDX-License-Identifier: Apache-2.0
"""Terminology of segments: standard codes from the catalogue, and the context file that shows them in Slicer.

Run ``python -m VISTA3DSegmentLib.mrml.terminology`` to write the file anew after a change of the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import slicer

from VISTA3DCore.anatomy.catalogue import Catalogue, Code, Structure, catalogue
from VISTA3DCore.anatomy.structure import TISSUE
from VISTA3DCore.errors import InputError

from ..i18n import tr as _

CONTEXT = "Segmentation category and type - VISTA3D"
FILE = Path(__file__).resolve().parents[2] / "Resources" / "Terminologies" / "VISTA3D.term.json"
#: The larger label set holds the smaller one.
LABEL_SET = "vista3d-ctmr"

# The one by which Slicer tells terminologies from other JSON files; it is not fetched.
_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/segment-context-schema.json#"
_GENERIC = f"{TISSUE.scheme}^{TISSUE.value}"

Codes = tuple[str, str, str, str, str]


def load_terminology(terminologies_logic: slicer.vtkSlicerTerminologiesModuleLogic) -> str:
    """Make Slicer know our codes and colors; return the terminology's name.

    :raises InputError: if the file is missing or damaged.
    """
    name = terminologies_logic.LoadTerminologyFromFile(str(FILE)) if FILE.is_file() else ""
    if not name:
        sentence = _("The terminology file '{name}' is missing or damaged; install the extension again.")
        raise InputError(sentence.format(name=FILE.name))
    return name


def codes_of(entry: str) -> Codes | None:
    """Return "scheme^value" of category, type, type modifier, region and region modifier of a terminology entry.

    :param entry: as Slicer serializes it into a segment's tag.
    :return: None for generic tissue, Slicer's default, and for other schemes than ours: these say nothing.
    """
    fields = [*entry.split("~"), *[""] * 7][:7]
    codes = tuple("^".join(fields[n].split("^")[:2]).strip("^ ") for n in (1, 2, 3, 5, 6))
    return codes if codes[1].startswith(f"{TISSUE.scheme}^") and codes[1] != _GENERIC else None


def coded_structure(codes: Codes, structures: Iterable[Structure]) -> Structure | None:
    """Return which structure has these codes; one that models know is preferred."""
    found = [one for one in structures if one.type is not None and codes_of(one.terminology_entry()) == codes]
    return min(found, key=lambda one: not one.supported, default=None)


def context_of(label_set: Catalogue) -> dict[str, Any]:
    """Return a label set as a terminology context of Slicer: categories, types, and sides as type modifiers."""
    categories: dict[Code, dict[Code, list[Structure]]] = {}
    for structure in label_set:
        if structure.supported and structure.type is not None:
            categories.setdefault(structure.category, {}).setdefault(structure.type, []).append(structure)
    coded = [_coded(code) | {"showAnatomy": _has_regions(types), "Type": [_type(*one) for one in types.items()]}
             for code, types in categories.items()]  # fmt: skip
    return {
        "SegmentationCategoryTypeContextName": CONTEXT,
        "@schema": _SCHEMA,
        "SegmentationCodes": {"Category": coded},
    }


def written(context: dict[str, Any]) -> str:
    """Return the text of the context's file."""
    return json.dumps(context, indent=1, ensure_ascii=True) + "\n"


def _has_regions(types: dict[Code, list[Structure]]) -> bool:
    return any(one.region is not None for structures in types.values() for one in structures)


def _type(code: Code, structures: list[Structure]) -> dict[str, Any]:
    """Return a type; its color is that of the structure without a side and region, or else of the first one."""
    plain = min(structures, key=lambda one: (one.type_modifier is not None, one.region is not None))
    sides = {one.type_modifier: one for one in structures if one.type_modifier is not None}
    described = _coded(code) | {"recommendedDisplayRGBValue": list(plain.color)}
    if plain.region is None:
        described["3dSlicerLabel"] = plain.name
    if sides:
        described["Modifier"] = [
            _coded(side) | {"recommendedDisplayRGBValue": list(one.color), "3dSlicerLabel": one.name}
            for side, one in sides.items()
        ]
    return described


def _coded(code: Code) -> dict[str, Any]:
    return {"CodeMeaning": code.meaning, "CodingSchemeDesignator": code.scheme, "CodeValue": code.value}


def main() -> None:
    """Write the context's file."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(written(context_of(catalogue(LABEL_SET))), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
