"""What Slicer discovers is harmless: nothing foreign is imported, nothing is executed, nothing takes long."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from gui_code import MODULE, python_files

LIBRARY = MODULE / "VISTA3DSegmentLib"
FILES = python_files()
NAMES = [str(path.relative_to(MODULE)) for path in FILES]
SLICERS = {"slicer", "qt", "ctk", "vtk", "numpy", "SampleData", "SegmentEditorEffects", "PyTorchUtils"} | {
    "qSlicerSegmentationsEditorEffectsPythonQt"
}
OWN = {"VISTA3DCore", "VISTA3DSegmentLib"}
# What belongs to the application, or to its user interface.
APPLICATION = {"mrmlScene", "app", "modules"}
BELOW = [path for path in FILES if path.parent.name in ("mrml", "logic")]
DECLARATIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.AnnAssign, ast.Assign)
# Packages that a Slicer has not before anything was installed, and those that it has but that take long to import.
BLOCKED = ("torch", "monai", "scipy", "SimpleITK", "nibabel", "pydicom", "huggingface_hub", "safetensors", "psutil")

# A Slicer of stand-ins: any attribute is a class, so that modules with widgets can at least be imported.
STAND_INS = f"""
import sys, time, types
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Blocker())
class Anything(type):
    def __getattr__(cls, name): return 0
    def __call__(cls, *arguments, **options):
        return arguments[0] if cls.__name__.startswith("parameterNodeWrapper") else type.__call__(cls)
class Module(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Anything(name, (), {{}})
for name in ("qt", "ctk", "slicer", "slicer.i18n", "slicer.util", "slicer.ScriptedLoadableModule",
             "slicer.parameterNodeWrapper", "vtk", "vtk.util", "vtk.util.numpy_support", "vtkmodules",
             "vtkmodules.util", "vtkmodules.util.numpy_support", "slicer.packaging", "SegmentEditorEffects"):
    sys.modules[name] = Module(name)
sys.path[:0] = [{str(MODULE)!r}]
"""


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=MODULE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_are_python_of_all_supported_versions(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_foreign_is_imported(path):
    """Also inside of functions: PyTorch and its kind are for the engine process alone."""
    foreign = _imported(ast.parse(path.read_text(encoding="utf-8"))) - SLICERS - OWN - set(sys.stdlib_module_names)
    assert not foreign


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_executed_at_file_scope(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert text or isinstance(node, DECLARATIONS) or _is_condition(node), ast.unparse(node)[:80]


def _is_condition(node: ast.AST) -> bool:
    """Whether this is an import for type checkers, one with a substitute, or the start as a script."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    return isinstance(node, ast.Try) and isinstance(node.body[0], ast.ImportFrom)


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.stem)
def test_what_is_below_the_widgets_knows_no_application(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "slicer"
    }

    assert not _imported(tree) & {"qt", "ctk"}
    assert not used & APPLICATION


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_annotations_are_not_evaluated(path):
    """Except by Slicer's wrapper of parameter nodes, which reads them."""
    text = path.read_text(encoding="utf-8")
    wrapped = "@parameterNodeWrapper" in text
    has_code = any(not isinstance(node, ast.Expr) for node in ast.parse(text).body)
    assert ("from __future__ import annotations" in text) == (has_code and not wrapped)


def test_everything_imports_without_the_networks_runtime():
    modules = [".".join(path.relative_to(MODULE).with_suffix("").parts) for path in FILES if path.stem != "__init__"]
    code = (
        STAND_INS
        + f"""
import importlib
from VISTA3DSegmentLib.locating import find_core
find_core()
for name in {modules!r}:
    importlib.import_module(name)
print(len({modules!r}), *sorted(set({BLOCKED!r}) & {{one.partition(".")[0] for one in sys.modules}}))
"""
    )
    count, *heavy = _run(code).split()

    assert int(count) > 20
    assert not heavy


def test_the_block_works():
    code = (
        STAND_INS
        + """
try:
    import torch
except ModuleNotFoundError:
    print("blocked")
"""
    )
    assert _run(code).split() == ["blocked"]


@pytest.mark.alone
def test_importing_the_module_takes_a_moment():
    code = (
        STAND_INS
        + """
import importlib, logging, pathlib, typing, unittest  # as a running Slicer has
before = set(sys.modules)
start = time.process_time()
import VISTA3DSegment
print(time.process_time() - start, *sorted(one.partition(".")[0] for one in set(sys.modules) - before))
"""
    )
    runs = [_run(code).split() for _ in range(3)]

    assert min(float(seconds) for seconds, *_ in runs) < 0.020
    assert not {"VISTA3DSegmentLib", "VISTA3DCore", "numpy"} & {name for _, *names in runs for name in names}
