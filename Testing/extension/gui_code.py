"""Reading the module's widgets without running them: which classes, members, properties and signals they use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from slicer_facts import SlicerFacts

MODULE = Path(__file__).resolve().parents[2] / "VISTA3DSegment"
_SPACES = {"qt": "qt", "ctk": "ctk", "slicer": "slicer"}
# What the loader of .ui files reads itself, because Qt has no property of that name.
_LOADERS_OWN = {"buddy"}
_LAYOUT_PROPERTIES = {"leftMargin", "topMargin", "rightMargin", "bottomMargin", "margin", "spacing"} | {
    "horizontalSpacing", "verticalSpacing", "fieldGrowthPolicy", "labelAlignment", "rowWrapPolicy", "sizeConstraint",
    "formAlignment", "stretch", "columnStretch"}  # fmt: skip
_TREE_PARTS = {"column", "row", "item", "header", "attribute"}


def python_files() -> list[Path]:
    """Return the module's Python files, its in-Slicer tests left out."""
    return sorted(set(MODULE.rglob("*.py")) - set(in_slicer_tests()))


def in_slicer_tests() -> list[Path]:
    """Return the tests that run in Slicer."""
    return sorted((MODULE / "Testing").rglob("*.py"))


def ui_files() -> list[Path]:
    """Return the files of Qt's Designer."""
    return sorted(MODULE.rglob("*.ui"))


def python_name(designer_class: str) -> str:
    """Return what a class of a .ui file is called in Python: ``QLabel`` -> ``qt.QLabel``."""
    for prefix, space in {"Q": "qt", "ctk": "ctk", "q": "slicer"}.items():
        if designer_class.startswith(prefix):
            return f"{space}.{designer_class}"
    return designer_class


def used_classes() -> set[str]:
    """Return all classes of Slicer that Python or .ui files name, e.g. ``qt.QLabel``."""
    named = {one for path in ui_files() for one in UiFile(path).classes()}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if found := _class_named(node):
                named.add(found)
    return named


def _class_named(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name) or node.value.id not in _SPACES:
        return None
    is_widget = node.value.id != "slicer" or node.attr.startswith("qMRML") or node.attr.startswith("qSlicer")
    return f"{node.value.id}.{node.attr}" if is_widget else None


class UiFile:
    """A file of Qt's Designer."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, ElementTree.parse(path).getroot()

    @property
    def top(self) -> str:
        """The class of the whole."""
        return python_name(self.root.find("widget").get("class"))

    @property
    def names(self) -> dict[str, str]:
        """The class of each named widget."""
        return {one.get("name"): python_name(one.get("class")) for one in self.root.iter("widget") if one.get("name")}

    def classes(self) -> set[str]:
        """Return the classes of all widgets and layouts."""
        return {python_name(one.get("class")) for kind in ("widget", "layout") for one in self.root.iter(kind)}

    def problems(self, facts: SlicerFacts) -> Iterator[str]:
        """Yield what Slicer would not understand."""
        names = [one.get("name") for one in self.root.iter("widget")]
        yield from (f"{name} is there twice" for name in sorted({one for one in names if names.count(one) > 1}))
        for kind in ("widget", "layout"):
            for one in self.root.iter(kind):
                yield from self._problems_of(one, facts, _LAYOUT_PROPERTIES if kind == "layout" else set())

    def _problems_of(self, one: ElementTree.Element, facts: SlicerFacts, own: set[str]) -> Iterator[str]:
        name = python_name(one.get("class"))
        if not facts.has_class(name):
            yield f"Slicer has no {name} ({one.get('name')})"
            return
        for setting in one.findall("property"):
            dynamic = setting.get("stdset") == "0" or setting.get("name") in own | _LOADERS_OWN
            if not dynamic and not facts.can_set(name, setting.get("name")):
                yield f"{name} has no property {setting.get('name')} ({one.get('name')})"
            for value in [*setting.iter("enum"), *setting.iter("set")]:
                yield from _unknown_enumerators(value.text, facts)


def _unknown_enumerators(text: str, facts: SlicerFacts) -> Iterator[str]:
    for one in text.split("|"):
        owner, _, name = one.rpartition("::")
        known = python_name(owner.split("::")[0])
        if facts.has_class(known) and not facts.has_member(known, name):
            yield f"{known} has no {name}"


@dataclass
class _Scope:
    """What is known of the objects in a class or a function: their class in Slicer, ``ui:File``, or a class here."""

    types: dict[str, str] = field(default_factory=dict)


class CodeFile:
    """A Python file, and what it does with Slicer's widgets as far as can be told without running it."""

    def __init__(self, path: Path, uis: dict[str, UiFile], text: str | None = None) -> None:
        self.path, self._uis = path, uis
        self.tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
        self._bases = {
            one.name: _class_named(one.bases[0])
            for one in ast.walk(self.tree)
            if isinstance(one, ast.ClassDef) and one.bases and _class_named(one.bases[0])
        }
        self._returns = {
            one.name: self._annotated(one.returns)
            for one in ast.walk(self.tree)
            if isinstance(one, ast.FunctionDef) and one.returns is not None
        }
        # What classes here add to those of Slicer.
        self._own_names = {"__init__"} | {
            target.attr
            for one in ast.walk(self.tree)
            if isinstance(one, ast.ClassDef) and one.name in self._bases
            for target in ast.walk(one)
            if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
        }
        self.checked = 0

    def problems(self, facts: SlicerFacts) -> list[str]:
        """Return what a real Slicer would refuse, each with its line."""
        found: list[str] = []
        self._in_scope(self.tree, _Scope(), _Scope(), facts, found)
        return found

    def _in_scope(self, node: ast.AST, own: _Scope, local: _Scope, facts: SlicerFacts, found: list[str]) -> None:
        if isinstance(node, ast.ClassDef):
            own = _Scope(self._attributes(node))
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            local = _Scope({**local.types, **self._locals(node, own)})
        for child in ast.iter_child_nodes(node):
            self._in_scope(child, own, local, facts, found)
        place = f"{self.path.name}:{getattr(node, 'lineno', 0)}"
        found += [f"{place}: {problem}" for problem in self._problems_at(node, own, local, facts)]

    def _attributes(self, node: ast.ClassDef) -> dict[str, str]:
        """Return the types of ``self.x``, from all methods of a class."""
        types: dict[str, str] = {}
        if node.name in self._bases:
            types["self"] = self._bases[node.name]
        for function in (one for one in node.body if isinstance(one, ast.FunctionDef)):
            for _ in range(2):  # what is assigned from something else that was assigned
                own = _Scope(types)
                types |= {
                    name: kind for name, kind in self._assigned(function, own).items() if name.startswith("self.")
                }
        return types

    def _locals(self, node: ast.FunctionDef | ast.Lambda, own: _Scope) -> dict[str, str]:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        types = {one.arg: kind for one in arguments if (kind := self._annotated(one.annotation))}
        return types | (self._assigned(node, own) if isinstance(node, ast.FunctionDef) else {})

    def _assigned(self, node: ast.AST, own: _Scope) -> dict[str, str]:
        types: dict[str, str] = {}
        for one in ast.walk(node):
            if isinstance(one, ast.AnnAssign) and (kind := self._annotated(one.annotation)):
                types[ast.unparse(one.target)] = kind
            elif isinstance(one, ast.Assign):
                for target in one.targets:
                    types |= self._bound(target, one.value, own, _Scope(types))
        return types

    def _bound(self, target: ast.AST, value: ast.AST, own: _Scope, local: _Scope) -> dict[str, str]:
        if isinstance(target, ast.Tuple):
            values = value.elts if isinstance(value, ast.Tuple) else self._loaded(value)
            pairs = zip(target.elts, values, strict=False)
            return {k: v for one, part in pairs for k, v in self._bound(one, part, own, local).items()}
        kind = value.id if isinstance(value, _Known) else self.kind_of(value, own, local)
        return {ast.unparse(target): kind} if kind else {}

    def _loaded(self, value: ast.AST) -> list[ast.AST]:
        """``load("Panel")`` returns the widget and the names in it."""
        call = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "load"
        if not call or not isinstance(value.args[0], ast.Constant):
            return []
        name = value.args[0].value
        return [_Known(self._uis[name].top), _Known(f"ui:{name}")]

    def _annotated(self, annotation: ast.AST | None) -> str | None:
        """Return the class in an annotation, ``X | None`` included."""
        if isinstance(annotation, ast.BinOp):
            return self._annotated(annotation.left)
        if isinstance(annotation, ast.Name) and annotation.id in self._bases:
            return self._bases[annotation.id]
        return _class_named(annotation) if annotation is not None else None

    def kind_of(self, node: ast.AST, own: _Scope, local: _Scope) -> str | None:
        """Return the class of an expression's value, where it can be told."""
        text = ast.unparse(node)
        if text in local.types or text in own.types:
            return local.types.get(text) or own.types[text]
        if isinstance(node, ast.Call):
            return self._made_by(node.func)
        if isinstance(node, ast.Attribute):
            owner = self.kind_of(node.value, own, local)
            if owner and owner.startswith("ui:"):
                return self._uis[owner[3:]].names.get(node.attr)
        return None

    def _made_by(self, function: ast.AST) -> str | None:
        if isinstance(function, ast.Name):
            return self._bases.get(function.id) or self._returns.get(function.id)
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "self":
            return self._returns.get(function.attr)
        return _class_named(function)

    def _problems_at(self, node: ast.AST, own: _Scope, local: _Scope, facts: SlicerFacts) -> Iterator[str]:
        if isinstance(node, ast.Call):
            yield from self._problems_of_call(node, own, local, facts)
        if not isinstance(node, ast.Attribute):
            return
        if named := _class_named(node):
            self.checked += 1
            if not facts.has_class(named):
                yield f"Slicer has no {named}"
        yield from self._problems_of_member(node, own, local, facts)

    def _problems_of_member(self, node: ast.Attribute, own: _Scope, local: _Scope, facts: SlicerFacts) -> Iterator[str]:
        text = ast.unparse(node.value)
        if text == "slicer.util" and node.attr not in facts.functions["slicer.util"]:
            yield f"there is no slicer.util.{node.attr}"
        kind = _class_named(node.value) or self.kind_of(node.value, own, local)
        if kind is None:
            return
        self.checked += 1
        if kind.startswith("ui:"):
            if node.attr not in self._uis[kind[3:]].names:
                yield f"{kind[3:]}.ui has no widget {node.attr}"
        elif not facts.has_class(kind) or text == "self" or node.attr in self._own_names:
            return
        elif not facts.has_member(kind, node.attr):
            yield f"{kind} has no {node.attr}"
        elif isinstance(node.ctx, ast.Store) and not facts.can_set(kind, node.attr):
            yield f"{kind} has no property {node.attr} that can be set"

    def _problems_of_call(self, node: ast.Call, own: _Scope, local: _Scope, facts: SlicerFacts) -> Iterator[str]:
        if not isinstance(node.func, ast.Attribute):
            return
        kind = self.kind_of(node.func.value, own, local)
        if kind is None or not facts.has_class(kind):
            yield from self._attribute_form(node, own, local, facts)
        elif node.func.attr in ("connect", "disconnect") and isinstance(node.args[0], ast.Constant):
            self.checked += 1
            if "(" not in node.args[0].value or not facts.has_signal(kind, node.args[0].value):
                yield f"{kind} has no signal {node.args[0].value}"
        elif facts.has_property(kind, node.func.attr):
            yield f"{kind}.{node.func.attr} is a property, it cannot be called"

    def _attribute_form(self, node: ast.Call, own: _Scope, local: _Scope, facts: SlicerFacts) -> Iterator[str]:
        """``button.clicked.connect(f)``."""
        signal = node.func.value
        if node.func.attr != "connect" or not isinstance(signal, ast.Attribute):
            return
        kind = self.kind_of(signal.value, own, local)
        if kind and facts.has_class(kind) and not facts.has_signal(kind, signal.attr):
            yield f"{kind} has no signal {signal.attr}"


class _Known(ast.Name):
    """An expression whose class is known already."""

    def __init__(self, kind: str) -> None:
        super().__init__(id=kind, ctx=ast.Load())
