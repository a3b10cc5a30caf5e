"""Write the data list that the small model learns from: mini.json, with the files of shared data folders.

python lists.py SHARED OUTPUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from VISTA3DCore.evaluation.data_list import DataItem, read_data_list
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.training.packaged import packaged_case

CASES = Path(__file__).with_name("mini.json")


def data_list(shared: Path) -> dict[str, object]:
    """Return a data list in MONAI's layout, with absolute paths.

    :param shared: holds the folders ``data``, ``anatomies`` and ``pseudo``, each with an ``index.json``.
    """
    wanted = json.loads(CASES.read_text(encoding="utf-8"))["cases"]
    rooms = sorted({case["from"] for case in wanted} - {"packages"})
    items = {room: {one.name: one for one in read_data_list(shared / room).section("train")} for room in rooms}
    entries = []
    for case in wanted:
        entry = _packaged() if case["from"] == "packages" else _entry(items[case["from"]][case["id"]])
        entries.append({"name": case["id"], **entry, "weight": case["weight"], "fold": case["fold"]})
    return {"name": "mini", "training": entries}


def _entry(item: DataItem) -> dict[str, object]:
    meaning = {str(value): list(ids) if ids else item.names[value] for value, ids in item.classes.items()}
    files = {"image": item.image, "label": item.label}
    paths = {key: str(path.resolve()) for key, path in files.items() if path is not None}
    return {**paths, "labels": meaning, "complete": item.complete}


def _packaged() -> dict[str, object]:
    case = packaged_case(user_data_dir() / "samples")
    meaning = {str(value): list(ids) for value, ids in case.classes.items()}
    return {"image": str(case.image), "label": str(case.label), "labels": meaning, "complete": True}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(data_list(Path(sys.argv[1])), indent=1), encoding="utf-8")
