"""A package that only one command needs is missed at once, by its name, before anything is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("module", "package", "command"),
    [
        ("scipy", "scipy", "supervoxels CT -o OUT/sv.nii.gz --generator graph"),
        ("skimage", "scikit-image", "supervoxels CT -o OUT/sv.nii.gz --generator graph"),
        ("scipy", "scipy", "prepare --data LIST -o OUT --supervoxels graph"),
        ("matplotlib", "matplotlib", "segment CT -o OUT/a.nii.gz --preview OUT/a.png"),
        ("scipy", "scipy", "evaluate --data LIST -o OUT"),
        ("accelerate", "accelerate", "finetune mini --data LIST --run OUT"),
        ("yaml", "PyYAML", "train automatic --data LIST --run OUT"),
    ],
)
def test_one_sentence_names_the_package(
    vista3d: Callable, ct_file: Path, tmp_path: Path, monkeypatch, module: str, package: str, command: str
) -> None:
    list_, out = tmp_path / "list.json", tmp_path / "out"
    cases = [{"image": "ct.nii.gz", "label": "ct.nii.gz"}]
    list_.write_text(json.dumps({"name": "a", "training": cases, "testing": cases}))
    out.mkdir()
    monkeypatch.setitem(sys.modules, module, None)
    places = {"CT": str(ct_file), "LIST": str(list_), "OUT": str(out)}
    words = command.split()
    result = vista3d(*(places.get(word, word.replace("OUT/", f"{out}/")) for word in words))

    assert result.exit_code == 5, result.stderr
    assert result.stderr.strip().endswith(f"install with: pip install {package}.")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(out.iterdir())
