"""The report of clicking opens again and holds the numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from VISTA3DCore.errors import InputError, OutputError
from VISTA3DCore.evaluation.report import write_click_report
from VISTA3DCore.evaluation.results import CLICK_COLUMNS, Row
from VISTA3DCore.evaluation.summary import summarize_clicks
from VISTA3DCore.imaging.clicks import Click


def _row(case: str, structure: str, protocol: str, curve: tuple[float, ...], seconds: tuple[float, ...]) -> Row:
    clicks = tuple(Click((1, 2, 3)) for _ in seconds)
    figures = ("both", curve[-1], None, None, 0.0, 1.0, 1.0)
    return Row(
        "", case, structure, None, protocol, "honest", *figures, len(clicks), sum(seconds), curve, clicks, seconds
    )


ROWS = [
    _row("a", "liver", "clicks", (0.5, 0.75, 0.7), (0.2, 0.1)),
    _row("a", "spleen", "clicks", (0.7, 1.0, 1.0), (0.3,)),
    _row("b", "new object", "clicks-zero-shot", (0.0, 0.25, 0.4), (0.5, 0.5)),
]


def test_csv_has_a_row_per_case_structure_and_number_of_clicks(tmp_path: Path) -> None:
    write_click_report(ROWS, "", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert tuple(rows[0]) == CLICK_COLUMNS
    assert len(rows) == 9
    assert [row["dice"] for row in rows[:3]] == ["0.5000", "0.7500", "0.7000"]
    assert [row["seconds"] for row in rows[3:6]] == ["", "0.3000", ""]  # the second click was not needed
    assert {row["clicks_used"] for row in rows[3:6]} == {"1"}
    assert (rows[8]["case"], rows[8]["start"], rows[8]["zero_shot"], rows[8]["clicks"]) == ("b", "nothing", "1", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_summary_is_the_mean_of_each_protocol_and_start() -> None:
    automatic, nothing = summarize_clicks(ROWS)
    assert (automatic.count, nothing.count) == (2, 1)
    assert automatic.mean == pytest.approx((0.6, 0.875, 0.85))
    assert automatic.lower == pytest.approx((0.55, 0.8125, 0.775))
    assert automatic.upper == pytest.approx((0.65, 0.9375, 0.925))
    assert automatic.seconds == pytest.approx(0.2)
    assert "automatic" in automatic.title
    assert "class unknown" in nothing.title
    assert [automatic.holds(row) for row in ROWS] == [True, True, False]


def test_picture_opens_and_shows_a_line_for_each_start(tmp_path: Path) -> None:
    write_click_report(ROWS, "Two organs", tmp_path / "out.csv", tmp_path / "out.png")
    picture = imread(tmp_path / "out.png")[..., :3]
    assert min(picture.shape[:2]) > 500
    for color in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0)):
        assert np.count_nonzero(np.abs(picture - np.array(color) / 255).max(axis=-1) < 0.01) > 200
    write_click_report(ROWS[:1], "", tmp_path / "one.csv", tmp_path / "one.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.csv", "one.png", "out.csv", "out.png"]


def test_nothing_to_draw_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no curve"):
        write_click_report([], "", tmp_path / "out.csv", tmp_path / "out.png")
    with pytest.raises(OutputError, match="does not exist"):
        write_click_report(ROWS, "", tmp_path / "missing" / "out.csv")
    assert list(tmp_path.iterdir()) == []
