"""The paper's table: published numbers, and one's own beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.paper_table import paper_rows, paper_table, paper_tasks, template
from VISTA3DCore.evaluation.results import Row


def test_the_published_averages_come_out() -> None:
    rows = paper_rows()
    assert len(rows) == 14
    published = {"Auto3DSeg": 0.706, "nnU-Net": 0.718, "auto": 0.711, "point": 0.760, "auto+point": 0.792}
    for name, average in published.items():
        assert fmean(row.published[name] for row in rows) == pytest.approx(average, abs=6e-4)
    assert [row.name for row in rows if row.favoured] == ["TotalSegV2"]


def test_the_rows_name_structures_of_the_model() -> None:
    known = catalogue()
    names = {row.name: [known[index].name for index in row.structures] for row in paper_rows()}
    assert names["MSD07 pancreatic tumor"] == ["pancreatic tumor"]
    assert names["Airway (AeroPath)"] == ["airway"]
    assert len(names["BTCV-Abdomen"]) == 13
    assert (len(names["VerSe"]), len(names["AMOS22"]), len(names["TotalSegV2"])) == (24, 15, 117)
    assert all(known[index].supported for row in paper_rows() for index in row.structures)
    assert all(set(row.structures) <= set(row.labels.values()) for row in paper_rows())


def test_a_filled_template_gives_the_cases(write_list: Callable, tmp_path: Path) -> None:
    write_list("spleens", 2)
    filled = template()
    filled["MSD09 spleen"] = {"list": "spleens/dataset.json", "root": "spleens"}
    (tmp_path / "table.json").write_text(json.dumps(filled))
    (found,) = paper_tasks(tmp_path / "table.json")
    assert found.classes == ("spleen",)
    assert [task.dataset for task in found.tasks] == ["MSD09 spleen"] * 2
    item = found.tasks[0].item
    assert item.classes == {1: (3,)}  # the dataset's values, not those of the list
    assert item.image == (tmp_path / "spleens" / "ct0.nii.gz").resolve()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "no template"),
        ({"MSD99": {}}, "names 'MSD99'; the rows of the table are: MSD03"),
        ({"VerSe": {"list": "a.json", "root": None}}, "names no folder"),
        ({"Bone lesion": {"list": None, "root": "bones"}}, "no list of cases"),
        ({"VerSe": {"list": "a.json", "root": "x"}}, "cannot be read"),
    ],
)
def test_a_wrong_template_is_one_sentence(tmp_path: Path, content: object, word: str) -> None:
    (tmp_path / "table.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=word):
        paper_tasks(tmp_path / "table.json")


def test_the_table_has_our_numbers_beside_the_published_ones() -> None:
    rows = [_row("VerSe", f"vertebrae L{n}", protocol, 0.5 + 0.1 * n) for n in (1, 2) for protocol in ("auto", "point")]
    rows.append(_row("MSD09 spleen", "spleen", "auto", 0.9, "honest"))
    lines = {line.split(" | ")[0].strip("| "): line for line in paper_table(rows).splitlines() if line.startswith("|")}
    assert (
        "ours: automatic (paper) | ours: click (paper) | ours: auto+point (paper) | ours: automatic (honest)"
        in lines["Dice"]
    )
    assert lines["VerSe"].endswith("| 0.825 | 0.896 | 0.906 | 0.650 | 0.650 | – | – | – | – | 2 |")
    assert "0.942†" in lines["TotalSegV2"]
    assert "| 0.711 | 0.760 | 0.792 | –" in lines["Average"]
    assert len([line for line in lines.values() if line.startswith("| Average")]) == 2


def _row(dataset: str, structure: str, protocol: str, dice: float, variant: str = "paper") -> Row:
    return Row(
        dataset, f"case of {structure}", structure, 1, protocol, variant, "both", dice, dice, 1.0, 0.0, 10.0, 10.0
    )
