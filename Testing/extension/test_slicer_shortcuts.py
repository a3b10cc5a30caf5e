"""The effect's keys collide with none of Slicer's, of the Segment Editor's or of the views'."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from VISTA3DSegmentLib.logic.click_keys import KEYS

UI = Path(__file__).resolve().parents[2] / "VISTA3DSegment/Resources/UI/ClickPanel.ui"

# Read from Slicer's sources (5.13); the same list in words is in click_keys.py.
SEGMENT_EDITOR = [*"1234567890", *(f"Shift+{one}" for one in "1234567890"), "Esc", "Space", "Z", "Y", "Q", "W", "/",
                  "*", ",", ".", "<", ">", "I", "Ctrl+Z", "Ctrl+Y", "Ctrl+Shift+Z"]  # fmt: skip
SLICE_VIEWS = ["Left", "Right", "Up", "Down", "F", "B", "V", "Shift+V", "R", "G", "T", "[", "]", "{", "}"]
THREE_D_VIEWS = ["Left", "Right", "Up", "Down", "+", "-", "R", "Home", "End", "PgDown", "Ins", "Ctrl+B",
                 *(f"Shift+{one}" for one in ("Left", "Right", "Up", "Down", "Home", "End", "PgDown"))]  # fmt: skip
VTK_VIEWS = ["3", "E", "F", "J", "P", "R", "S", "T", "U", "W"]
CONTROL_POINTS = ["S", "Del", "Shift+Del", "Backspace"]
MAIN_WINDOW = [f"Ctrl+{one}" for one in [*"OSWZYXCVFH0123456`", "Left", "Right"]]
MARKUPS_TOOLBAR = ["Ctrl+Shift+A", "Ctrl+Shift+T", "Ctrl+Shift+Space"]
OTHER_EXTENSIONS = [*"PBSLTERV"]
TAKEN = {
    "Segment Editor": SEGMENT_EDITOR,
    "slice views": SLICE_VIEWS,
    "3D views": THREE_D_VIEWS,
    "VTK": VTK_VIEWS,
    "control points": CONTROL_POINTS,
    "main window": MAIN_WINDOW,
    "Markups toolbar": MARKUPS_TOOLBAR,
    "other extensions": OTHER_EXTENSIONS,
}


@pytest.mark.parametrize(("owner", "keys"), TAKEN.items(), ids=TAKEN)
def test_keys_are_free(owner, keys):
    assert not set(KEYS.values()) & set(keys)


def test_each_key_does_one_thing():
    assert len(set(KEYS.values())) == len(KEYS)


@pytest.mark.parametrize(
    ("action", "button"),
    [("positive", "Add"), ("negative", "Remove"), ("suggest", "Suggest next click"), ("unlock", "Move")],
)
def test_the_panel_names_the_right_keys(action, button):
    assert re.search(rf"<string>{button} \({KEYS[action]}\)</string>", UI.read_text(encoding="utf-8"))
