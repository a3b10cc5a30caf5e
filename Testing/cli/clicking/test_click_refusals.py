"""`vista3d click` with what it cannot use: one sentence, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click_cases import CONFIG, LIVER

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume


@pytest.fixture
def refuses(vista3d: Callable, ct_file: Path, model: Path, tmp_path: Path) -> Callable:
    """Run ``click`` and check that it ends with one sentence and without any output."""

    def run(exit_code: int, *words: str, more: tuple, image: Path = ct_file, weights: object = model) -> None:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        files = ("-o", out / "a.seg.nrrd", "--preview", out / "a.png")
        result = vista3d("click", image, "-m", weights, *files, "-q", *more)
        assert result.exit_code == exit_code, result.stderr
        assert "Traceback" not in result.stderr
        said = " ".join(result.stderr.split()).lower()
        for word in words:
            assert word.lower() in said
        assert result.stdout == ""
        assert list(out.iterdir()) == []

    return run


LIVER_HERE = ("-c", "liver", "--voxel", "-p", "20,16,18")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("--class NAME, or --new-object", ("-p", "1,2,3")),
        ("--class NAME, or --new-object", ("-p", "1,2,3", "-c", "liver", "--new-object")),
        ("at least one click", ("-c", "liver")),
        ("not three numbers", ("-c", "liver", "-p", "1,2")),
        ("not three numbers", ("-c", "liver", "-p", "1,2,3,4")),
        ("not three numbers", ("-c", "liver", "-n", "a,b,c")),
        ("--polarity", ("-c", "liver", "-p", "1,2,3", "--polarity", "negative")),
        ("--polarity", ("-c", "liver", "--markups", "a", *("--polarity", "auto") * 2)),
        ("--base", ("-c", "liver", "-p", "1,2,3", "--segment", "Liver")),
        ("--base", ("-c", "liver", "-p", "1,2,3", "--resample-base")),
        ("both", ("-c", "liver", "--markups", "a", "--polarity", "both")),
        ("fast", (*LIVER_HERE, "--policy", "fast")),
        ("livr", ("-c", "livr", "-p", "1,2,3")),
        ("rectum", ("-c", "rectum", "-p", "0,0,0")),  # a dead slot: no trained weights
    ],
)
def test_wrong_usage(refuses: Callable, words: str, more: tuple[str, ...]) -> None:
    refuses(2, words, more=more)


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("outside the volume", ("-c", "liver", "-p", "5000,0,0")),
        ("outside the volume", ("-c", "liver", "--voxel", "-p", "40,0,0")),
        ("outside the volume", ("--new-object", "--voxel", "-p", "-1,0,0")),
        ("finite", ("-c", "liver", "-p", "nan,0,0")),
        ("finite", ("-c", "liver", "--voxel", "-p", "0,inf,0")),
        ("one voxel", (*LIVER_HERE, "-n", "20.2,16,18")),
        ("positive click", ("-c", "liver", "--voxel", "-n", "20,16,18")),
        ("does not exist", ("-c", "liver", "--markups", "nowhere.mrk.json")),
        ("does not exist", (*LIVER_HERE, "--base", "nowhere.seg.nrrd")),
    ],
)
def test_input_that_cannot_be_used(refuses: Callable, words: str, more: tuple[str, ...]) -> None:
    refuses(3, words, more=more)


def test_bases_that_cannot_be_used(refuses: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path) -> None:
    path, _ = base
    refuses(
        3, "no segment 'aorta'", "'liver', 'spleen'", "--segment", more=("-c", "aorta", "--base", path, "-p", "0,0,0")
    )
    refuses(3, "several segments", more=("--new-object", "--base", path, "-p", "0,0,0"))
    refuses(3, "no segment 'x'", more=(*LIVER_HERE, "--base", path, "--segment", "x"))
    empty = tmp_path / "empty.seg.nrrd"
    Segmentation(np.zeros(volume.shape), {}, (catalogue()[LIVER],), volume.affine).write(empty)
    refuses(3, "'Liver' in 'empty.seg.nrrd' is empty", "leave --base out", more=(*LIVER_HERE, "--base", empty))
    (tmp_path / "text.seg.nrrd").write_text("Dear colleague,")
    refuses(3, "text.seg.nrrd", more=(*LIVER_HERE, "--base", tmp_path / "text.seg.nrrd"))


def test_a_model_without_a_click_branch(refuses: Callable, tmp_path: Path) -> None:
    from VISTA3DCore.models.checkpoints import save_checkpoint
    from VISTA3DCore.network.architecture import build_network
    from VISTA3DCore.network.config import ModelConfig

    config = ModelConfig(name="automatic", click_branch=False, classes=(LIVER,), **CONFIG)
    path = tmp_path / "automatic.safetensors"
    save_checkpoint(path, config, build_network(config).state_dict())
    refuses(4, "not trained for clicks", weights=path, more=LIVER_HERE)


def test_no_input_is_overwritten(
    vista3d: Callable, ct_file: Path, model: Path, base: tuple[Path, dict], tmp_path: Path
) -> None:
    path, _ = base
    before = path.read_bytes()
    result = vista3d("click", ct_file, "-m", model, *LIVER_HERE, "--base", path, "-o", path)
    assert result.exit_code == 6
    assert "would be overwritten" in result.stderr
    assert path.read_bytes() == before
