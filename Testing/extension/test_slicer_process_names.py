"""The engine process over ``QProcess``: a whole transport, of methods and signals that Slicer has."""

from __future__ import annotations

import ast
import inspect

import pytest
from gui_code import MODULE, CodeFile
from slicer_facts import SlicerFacts

from VISTA3DCore.engine.transports import Transport

FACTS = SlicerFacts.read()
PROCESS = MODULE / "VISTA3DSegmentLib/process.py"


def _methods(class_name: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(PROCESS.read_text(encoding="utf-8"))
    one = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    return {node.name: node for node in one.body if isinstance(node, ast.FunctionDef)}


def test_it_is_a_transport():
    wanted = {name: one for name, one in vars(Transport).items() if inspect.isfunction(one) and name[0] != "_"}
    found = _methods("QProcessTransport")

    for name, function in wanted.items():
        arguments = [one.arg for one in found[name].args.args]
        assert arguments == list(inspect.signature(function).parameters)
    assert {"on_bytes", "on_closed"} <= {
        node.target.attr for node in ast.walk(found["__init__"]) if isinstance(node, ast.AnnAssign)
    }


@pytest.mark.parametrize(
    "signal",
    [
        "readyReadStandardOutput()",
        "readyReadStandardError()",
        "finished(int,QProcess::ExitStatus)",
        "errorOccurred(QProcess::ProcessError)",
    ],
)
def test_its_signals_exist(signal):
    assert FACTS.has_signal("qt.QProcess", signal)
    assert f'connect("{signal}"' in PROCESS.read_text(encoding="utf-8")


def test_all_it_calls_exists():
    file = CodeFile(PROCESS, {})

    assert not file.problems(FACTS)
    assert file.checked > 20


def test_nothing_waits_while_the_application_runs():
    """``waitFor...`` is for the end of the application alone."""
    waiting = {
        name
        for name, function in _methods("QProcessTransport").items()
        if any(isinstance(one, ast.Attribute) and one.attr.startswith("waitFor") for one in ast.walk(function))
    }
    assert waiting == {"wait_for_end"}
