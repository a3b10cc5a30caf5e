"""Reading calls into Slicer's Python API without running them: does Slicer take these arguments and keywords?"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Function groups whose names mean the same wherever they are called, e.g. through a record of functions.
_UNMISTAKABLE = ("slicer.packaging", "SampleData.SampleDataLogic", "PyTorchUtils.PyTorchUtilsLogic")


class CallFile:
    """A Python file, and which functions of Slicer it calls with what.

    :param functions: groups such as ``slicer.util``, each with its functions' signatures as text.
    """

    def __init__(self, path: Path, functions: Mapping[str, Mapping[str, str]], text: str | None = None) -> None:
        self._name, self._functions = path.name, functions
        self._tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
        self._imported = dict(_imports(self._tree))
        self._anywhere = {name: group for group in _UNMISTAKABLE for name in functions.get(group, ())}
        self.checked: list[str] = []

    def problems(self) -> list[str]:
        """Return what a real Slicer would refuse, each with its line."""
        calls = [node for node in ast.walk(self._tree) if isinstance(node, ast.Call)]
        return [f"{self._name}:{call.lineno}: {problem}" for call in calls for problem in self._problems_of(call)]

    def _problems_of(self, call: ast.Call) -> Iterator[str]:
        if (found := self._called(call.func)) is None:
            return
        group, name, bound = found
        if name not in self._functions[group]:
            yield f"there is no {group}.{name}"
            return
        self.checked.append(f"{group}.{name}")
        try:
            _bind(signature_of(self._functions[group][name], bound), call)
        except TypeError as error:
            yield f"{group}.{name}: {error}"

    def _called(self, function: ast.expr) -> tuple[str, str, bool] | None:
        """Return group and name of a called function of Slicer, and whether its object is given already; or None."""
        whole = self._whole_name(function)
        if whole in self._functions:  # a class that is made
            return (whole, "__init__", True) if "__init__" in self._functions[whole] else None
        group, _, name = whole.rpartition(".")
        if group in self._functions:
            return group, name, False
        if isinstance(function, ast.Attribute) and function.attr in self._anywhere:
            return self._anywhere[function.attr], function.attr, True
        return None

    def _whole_name(self, node: ast.expr) -> str:
        """Return a dotted name as its module has it, an empty one for anything else."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self._whole_name(node.value)):
            return f"{owner}.{node.attr}"
        return ""


def signature_of(text: str, bound: bool) -> inspect.Signature:
    """Return a signature from its text, e.g. ``(self, path, flag=False)``.

    :param bound: the object is given already, so that ``self`` is not among the parameters.
    """
    head = re.sub(r"<[^<>]*(<[^<>]*>[^<>]*)*>", "None", text)  # values that Python cannot read back
    arguments = ast.parse(f"def _{head}: ...").body[0].args
    none = ast.Constant(None)
    plain = ast.arguments(
        *(arguments.posonlyargs, arguments.args, arguments.vararg, arguments.kwonlyargs),
        [None if one is None else none for one in arguments.kw_defaults],
        arguments.kwarg,
        [none for _ in arguments.defaults],
    )
    for one in ast.walk(plain):
        if isinstance(one, ast.arg):
            one.annotation = None
    made = eval(compile(ast.fix_missing_locations(ast.Expression(ast.Lambda(plain, none))), "signature", "eval"))
    signature = inspect.signature(made)
    parameters = list(signature.parameters.values())
    if bound and parameters and parameters[0].name == "self":
        return signature.replace(parameters=parameters[1:])
    return signature


def _bind(signature: inspect.Signature, call: ast.Call) -> None:
    """:raises TypeError: if a function with this signature does not take the arguments of a call."""
    known = [one for one in call.args if not isinstance(one, ast.Starred)]
    keywords = {one.arg: one.value for one in call.keywords if one.arg is not None}
    complete = len(known) == len(call.args) and len(keywords) == len(call.keywords)
    (signature.bind if complete else signature.bind_partial)(*known, **keywords)


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield names that imports give, and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)
        elif isinstance(node, ast.Import):
            yield from ((one.asname, one.name) for one in node.names if one.asname)
