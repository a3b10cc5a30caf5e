"""What a real Slicer shows to Python, from ``slicer_api_excerpt.json``, and where the whole list may be found."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXCERPT = Path(__file__).with_name("slicer_api_excerpt.json")
_VARIABLE = "VISTA3D_SLICER_API"


def whole_list() -> Path | None:
    """Return the file that describes all of Slicer's classes, if this computer has it."""
    data = os.environ.get("VISTA3D_TEST_DATA")
    candidates = [os.environ.get(_VARIABLE), data and Path(data).parent / "reference/slicer_api.json"]
    return next((Path(one) for one in candidates if one and Path(one).is_file()), None)


def excerpt_of(whole: dict[str, Any], used: set[str]) -> dict[str, Any]:
    """Return the facts about some classes: names only, and what all widgets share only once.

    :param whole: the whole list.
    :param used: classes, e.g. ``qt.QLabel``; what is not in the list is left out.
    """
    classes = whole["classes"]
    facts = {shared: _own(classes[shared]) for shared in _SHARED.values()}
    facts[_WIDGET]["properties"] = _shared_properties(classes.values())
    for name in sorted(used & set(classes) - set(facts)):
        known = set(facts[_WIDGET]["properties"])
        own = _own(classes[name])
        own["properties"] = [one for one in own["properties"] if one not in known]
        facts[name] = {"extends": _SHARED.get(classes[name]["kind"])} | own
    return {"application": whole["application"], "functions": _functions(whole["functions"]), "classes": facts}


def written(excerpt: dict[str, Any]) -> str:
    """Return the text of the excerpt's file: one line for each class and each group of functions."""
    head = {key: value for key, value in excerpt.items() if key not in _PARTS}
    parts = [f' "{part}": {{\n{_lines(excerpt[part])}\n }}' for part in _PARTS]
    return ",\n".join([json.dumps(head)[:-1], *parts]) + "}\n"


def _lines(part: dict[str, Any]) -> str:
    return ",\n".join(f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in part.items())


_PARTS = ("functions", "classes")
_WIDGET = "qt.QWidget"
#: What the list leaves out of a class because its base has it.
_SHARED = {"QWidget": _WIDGET, "QObject": "qt.QObject"}
_KEYS = ("members", "properties", "signals")


def _functions(groups: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the signatures of Slicer's functions; groups of which only names are known are left out."""
    found = {}
    for group, functions in groups.items():
        if isinstance(functions, dict) and not group.endswith("ScriptedLoadableModuleTest"):  # unittest's own
            found[group] = {name: re.sub(r" at 0x[0-9a-f]+", "", text) for name, text in functions.items()}
    return found


def _own(facts: dict[str, Any]) -> dict[str, list[str]]:
    return {key: sorted(_names(facts, key)) for key in _KEYS}


def _shared_properties(classes: Iterable[dict[str, Any]]) -> list[str]:
    """Return the properties of all widgets; the list has none for the base class itself."""
    widgets = [one for one in classes if one["kind"] == "QWidget" and one.get("properties")]
    return sorted(set.intersection(*(_names(one, "properties") for one in widgets)))


def _names(facts: dict[str, Any], key: str) -> set[str]:
    """Return members as they are, properties without their type, signals with their arguments."""
    found = facts.get(key, [])
    if key != "properties":
        return set(found)
    return {one.partition(":")[0] + (" (read only)" if one.endswith("(read only)") else "") for one in found}


@dataclass(frozen=True)
class SlicerFacts:
    """Questions about the excerpt."""

    classes: dict[str, dict[str, Any]]
    functions: dict[str, dict[str, str]]

    @classmethod
    def read(cls) -> SlicerFacts:
        """Return the committed facts."""
        read = json.loads(EXCERPT.read_text(encoding="utf-8"))
        return cls(read["classes"], read["functions"])

    def has_class(self, name: str) -> bool:
        """Whether Slicer shows a class such as ``qt.QLabel``."""
        return name in self.classes

    def has_member(self, name: str, member: str) -> bool:
        """Whether objects of a class have an attribute; Slicer's ``name`` stands for ``objectName``."""
        return member in self._all(name, "members") or member == "name" or self.has_property(name, member)

    def has_property(self, name: str, member: str) -> bool:
        """Whether a property is known to exist."""
        return bool({member, f"{member} (read only)"} & self._all(name, "properties"))

    def can_set(self, name: str, member: str) -> bool:
        """Whether a property can be assigned; classes of which no object could be made tell their members alone."""
        if self.classes[name]["properties"]:
            return member in self._all(name, "properties") or member == "name"
        return self.has_member(name, member)

    def has_signal(self, name: str, signature: str) -> bool:
        """Whether a signal exists, ``clicked(bool)`` or only its name."""
        signals = self._all(name, "signals")
        if not self.classes[name]["signals"]:
            return self.has_member(name, signature.partition("(")[0])
        return signature in signals or signature in {one.partition("(")[0] for one in signals}

    def _all(self, name: str, key: str) -> set[str]:
        facts = self.classes[name]
        base = facts.get("extends")
        return {*facts[key], *(self._all(base, key) if base else ())}
