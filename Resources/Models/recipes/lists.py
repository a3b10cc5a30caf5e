"""Write a data list that the small model learns from: cases of mini.json, with the files of shared data folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from VISTA3DCore.evaluation.data_list import DataItem, read_data_list
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.training.packaged import packaged_case


def write_list(cases: Iterable[dict[str, Any]], shared: Path, output: Path) -> None:
    """Write a data list in MONAI's layout, with absolute paths.

    :param cases: as in mini.json.
    :param shared: holds the folders ``data``, ``anatomies`` and ``pseudo``, each with an ``index.json``.
    """
    cases = list(cases)
    items = {room: _training_items(shared / room) for room in {case["from"] for case in cases} - {"packages"}}
    entries = []
    for case in cases:
        entry = _packaged() if case["from"] == "packages" else _entry(items[case["from"]][case["id"]])
        entries.append({"name": case["id"], **entry, "weight": case["weight"], "fold": case["fold"]})
    content = json.dumps({"name": output.stem, "training": entries}, indent=1)
    output.write_text(content + "\n", encoding="utf-8")


def _training_items(folder: Path) -> dict[str, DataItem]:
    data = read_data_list(folder)
    return {one.name: one for section in ("training", "unlabelled") for one in data.sections.get(section, ())}


def _entry(item: DataItem) -> dict[str, object]:
    meaning = {str(value): list(ids) if ids else item.names[value] for value, ids in item.classes.items()}
    files = {"image": item.image, "label": item.label}
    paths = {key: str(path.resolve()) for key, path in files.items() if path is not None}
    return {**paths, "labels": meaning, "complete": item.complete}


def _packaged() -> dict[str, object]:
    case = packaged_case(user_data_dir() / "samples")
    meaning = {str(value): list(ids) for value, ids in case.classes.items()}
    return {"image": str(case.image), "label": str(case.label), "labels": meaning, "complete": True}
