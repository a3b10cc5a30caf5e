"""Claims travel in a file's metadata; the tensors do not change, and damage is reported in a sentence."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path
from subprocess import run

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from VISTA3DCore.errors import ModelError
from VISTA3DCore.models.checkpoints import inspect_checkpoint, load_checkpoint, save_checkpoint
from VISTA3DCore.models.claims import CLAIMS_KEY, Claim, Claims, read_claims, with_claims

CLAIMS = Claims(0.5, {1: Claim(0.912, 24, False), 3: Claim(0.5, 20, True), 5: Claim(0.41, 22, False)})
VALUES = json.loads(CLAIMS.to_json())

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_model, tmp_path / "tiny.safetensors"))


def tensor_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return content[8 + struct.unpack("<Q", content[:8])[0] :]


def test_a_structure_is_claimed_from_the_threshold_on() -> None:
    assert CLAIMS.claimed == (1, 3)
    assert Claims.from_json(CLAIMS.to_json()) == CLAIMS


def test_claims_are_added_and_replaced_without_touching_anything_else(model: Path) -> None:
    before, tensors, mode = inspect_checkpoint(model), tensor_bytes(model), model.stat().st_mode
    assert read_claims(model) is None

    with_claims(model, CLAIMS)
    assert read_claims(model) == CLAIMS

    fewer = Claims(0.7, {1: Claim(0.912, 24, False)})
    with_claims(model, fewer)
    assert read_claims(model) == fewer
    assert (inspect_checkpoint(model), tensor_bytes(model), model.stat().st_mode) == (before, tensors, mode)
    assert list(model.parent.iterdir()) == [model]
    with safe_open(model, framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_checkpoint_is_saved_with_claims(model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.safetensors"
    save_checkpoint(saved, *load_checkpoint(model), metadata={CLAIMS_KEY: CLAIMS.to_json()})
    assert read_claims(saved) == CLAIMS


def test_other_files_have_no_claims(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 a zip file", b"version https://git-lfs.github.com/spec/v1"):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        assert read_claims(path) is None
        with pytest.raises(ModelError, match="not a safetensors file"):
            with_claims(path, CLAIMS)
        assert path.read_bytes() == content


def test_a_missing_or_damaged_file_is_named(model: Path, tmp_path: Path) -> None:
    for action in (read_claims, lambda path: with_claims(path, CLAIMS)):
        with pytest.raises(ModelError, match="does not exist"):
            action(tmp_path / "no.safetensors")
        for content in (model.read_bytes()[:200], b"\xff" * 8 + b"{", b"\x02" + bytes(7) + b"{]"):
            path = tmp_path / "damaged.safetensors"
            path.write_bytes(content)
            with pytest.raises(ModelError, match="truncated or damaged"):
                action(path)
            assert path.read_bytes() == content


def test_reading_claims_needs_no_torch(model: Path) -> None:
    with_claims(model, CLAIMS)
    code = (
        "import sys; from VISTA3DCore.models.claims import read_claims; "
        f"print(read_claims({str(model)!r}).claimed, 'torch' in sys.modules, 'safetensors' in sys.modules)"
    )
    assert (
        run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "(1, 3) False False\n"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"structures": []}, "must be an object"),
        ({"structures": {"01": VALUES["structures"]["1"]}}, "'01'"),
        ({"structures": {"1": {"dice": float("nan"), "cases": 3, "painted": False}}}, "dice' is not a number"),
        ({"structures": {"1": {"dice": 0.9, "cases": 0, "painted": False}}}, "number of patients"),
        ({"structures": {"1": {"dice": 0.9, "cases": 3, "painted": 1}}}, "painted' must be true or false"),
        ({"structures": {"1": {"dice": 0.9, "cases": 3}}}, "painted' is missing"),
        ({"names": {}}, "newer version"),
    ],
)
def test_damaged_claims_say_what_is_wrong(change: dict, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        Claims.from_json(json.dumps({**VALUES, **change}))


def test_impossible_figures_cannot_be_written() -> None:
    with pytest.raises(ModelError, match="Dice"):
        Claim(1.2, 3, False)
    with pytest.raises(ModelError, match="threshold"):
        Claims(float("nan"), {})


@given(st.text(max_size=40) | st.builds(json.dumps, json_values))
def test_text_that_is_no_claims_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        Claims.from_json(text)


@given(st.sampled_from(["threshold", "structures", "dice", "cases", "painted", "key"]), json_values)
def test_a_damaged_entry_is_refused_or_harmless(where: str, value: object) -> None:
    values = json.loads(CLAIMS.to_json())
    if where in values:
        values[where] = value
    elif where == "key":
        values["structures"][json.dumps(value)] = values["structures"].pop("1")
    else:
        values["structures"]["1"][where] = value
    try:
        claims = Claims.from_json(json.dumps(values))
    except ModelError:
        return
    assert Claims.from_json(claims.to_json()) == claims


@given(st.integers(0, len(CLAIMS.to_json()) - 1))
def test_cut_claims_are_refused(length: int) -> None:
    with pytest.raises(ModelError):
        Claims.from_json(CLAIMS.to_json()[:length])


def test_deeply_nested_claims_are_refused() -> None:
    with pytest.raises(ModelError, match="no JSON"):
        Claims.from_json("[" * 100_000)
