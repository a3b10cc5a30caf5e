"""What people read in Slicer is natural American English, in the panel's words, and foreign text is shown as it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from gui_code import MODULE, UiFile, python_files, ui_files

from VISTA3DCore.errors import ModelError, VistaError
from VISTA3DCore.hints import HINTS
from VISTA3DCore.models.registry import REGISTRY
from VISTA3DSegmentLib.logic.wording import panel_sentence, title_of

CORE = MODULE.parent / "VISTA3DCore"
#: Rooms whose sentences reach Slicer, and those among them that know the command line's words.
ROOMS = ("anatomy", "imaging", "inference", "network", "models", "backends", "engine")
SPEAKING = ("inference", "network", "models", "backends", "engine")
BRITISH = re.compile(
    r"\b\w*(colour|centre\b|neighbour|behaviour|favour|tumour|millimetre|normalis|initialis|optimis|recognis|licence"
    r"|cancelled|labelled|\bgrey)\w*",
    re.IGNORECASE,
)
UNNATURAL = re.compile(
    r"on a stick|not here|goes? on (on|from)|being worked on|can be had|tells? more|any more|\banew\b|got short"
    r"|broke off|keeps house|take over|\bis not there\b|are little"
)
# Names that stay as they are: commands, options, fields.
NAMES = re.compile(r"`[^`]*`|--[\w-]+|\w*_\w*|\{[^{}]*\}")


def sentences(path: Path) -> Iterator[str]:
    """Yield the texts of a Python file that have several words, without docstrings; X stands for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    skipped |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in skipped and " " in str(node.value).strip():
            yield str(node.value)


def shown_by_designer_files() -> Iterator[str]:
    for path in ui_files():
        yield from (one.text for one in UiFile(path).root.iter("string") if one.text)


def engine_files(rooms: tuple[str, ...]) -> list[Path]:
    found = [path for room in rooms for path in sorted((CORE / room).rglob("*.py"))]
    return [*found, CORE / "errors.py"]


@pytest.mark.parametrize("pattern", [BRITISH, UNNATURAL], ids=["spelling", "words"])
def test_panel_and_engine_speak_natural_american_english(pattern: re.Pattern[str]) -> None:
    texts = [text for path in (*python_files(), *engine_files(ROOMS)) for text in sentences(path)]
    texts += shown_by_designer_files()
    assert len(texts) > 500
    assert not [text for text in texts if pattern.search(NAMES.sub("", unescape(text)))]


def test_an_ellipsis_is_one_character() -> None:
    texts = [text for path in python_files() for text in sentences(path)] + list(shown_by_designer_files())
    assert not [text for text in texts if "..." in text]


COMMANDS = re.compile(r"`|--\w|\bpip install|VISTA3D_HOME|TMPDIR|HTTPS_PROXY|HF_TOKEN")


def test_no_command_of_the_engine_reaches_the_panel() -> None:
    spoken = [text for path in engine_files(SPEAKING) for text in sentences(path) if COMMANDS.search(text)]
    assert not [text for text in spoken if text.endswith(".")]


@pytest.mark.parametrize("hint", HINTS)
def test_every_hint_has_words_in_the_panel(hint: str) -> None:
    facts = {"model": "mini", "models": ["mini", "vista3d-ct"], "url": "http://x.y", "path": "f", "full_model": "mini"}
    error = VistaError("Something is wrong", hint=hint, facts={**facts, "packages": "a b"})
    words = panel_sentence(error)
    assert words.startswith("Something is wrong")
    assert len(words) > len("Something is wrong.")
    assert words.endswith(".")
    assert not COMMANDS.search(words)
    assert not re.search(r"[{}]|'(auto|cpu|mini|vista3d-ct)'", words)
    assert "{" not in str(error)


def test_models_have_titles() -> None:
    assert title_of("mini") == "Small demonstration model"
    assert title_of("/some/folder/mine.safetensors") == "mine.safetensors"
    for name, entry in REGISTRY.items():
        words = panel_sentence(ModelError("The model '{model}' was not trained for clicks.", facts={"model": name}))
        assert words == f"The model '{title_of(name)}' was not trained for clicks."
        assert entry.title.startswith(title_of(name))


# Foreign text


def _widget_code() -> Iterator[ast.AST]:
    for path in (MODULE / "VISTA3DSegmentLib" / "widgets").glob("*.py"):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_labels_that_are_written_to_say_how_they_show_text() -> None:
    """Otherwise Qt guesses, and ``<img src=...>`` in the name of a node is a picture."""
    targets = [node for node in _widget_code() if isinstance(node, ast.Attribute) and node.attr == "text"]
    written = {
        node.value.attr for node in targets if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Attribute)
    }
    labels = {
        one.get("name"): {setting.findtext("enum") for setting in one.findall("property")}
        for path in ui_files()
        for one in UiFile(path).root.iter("widget")
        if one.get("class") == "QLabel" and one.get("name") in written
    }
    assert {"summaryLabel", "estimateLabel", "modelLabel"} <= labels.keys()
    assert not [name for name, enums in labels.items() if not enums & {"Qt::PlainText", "Qt::RichText"}]


def test_tool_tips_with_foreign_text_are_escaped() -> None:
    """Tool tips have no format of their own: Qt guesses."""
    tips = [node.value for node in _widget_code() if isinstance(node, ast.Assign) and _is_tip(node.targets[0])]
    calls = [node for node in _widget_code() if isinstance(node, ast.Call)]
    tips += [node.args[-1] for node in calls if getattr(node.func, "attr", "") == "setToolTip"]
    assert len(tips) > 5
    assert not [ast.unparse(tip) for tip in tips if not _is_safe(tip)]


def _is_tip(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and target.attr == "toolTip"


def _is_safe(tip: ast.expr) -> bool:
    name = tip.func.id if isinstance(tip, ast.Call) and isinstance(tip.func, ast.Name) else ""
    return name == "plain_tip" or (name == "_" and isinstance(tip.args[0], ast.Constant))
