"""Arguments that would be ignored or misunderstood: one sentence, before any image is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def refuses(vista3d: Callable, tmp_path: Path) -> Callable:
    """Run a command on an image that does not exist; return the sentence on one line."""

    def run(*arguments: object, command: str = "segment", image: object = "nowhere.nii.gz") -> str:
        result = vista3d(command, image, "-o", tmp_path / "a.nii.gz", "-m", "mini", *arguments)
        assert result.exit_code == 2, result.stderr
        assert list(tmp_path.glob("a*")) == []
        return " ".join(result.stderr.replace("│", " ").split())

    return run


@pytest.mark.parametrize("names", ["", " ", ",", " , ,"])
def test_no_structure_at_all(refuses: Callable, names: str) -> None:
    assert "No structure is named" in refuses("--classes", names)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("liver;spleen", "liver, spleen"),
        ("liver spleen", "liver, spleen"),
        ("liver and left kidney", "liver, left kidney"),
        ("left kidney spleen|aorta", "left kidney, spleen, aorta"),
        ("1;3", "1, 3"),
        ("ribs liver", "ribs, liver"),
    ],
)
def test_names_without_commas(refuses: Callable, typed: str, meant: str) -> None:
    assert f"separate names by commas: {meant}" in refuses("-c", typed)


def test_a_misspelt_name_still_gets_suggestions(refuses: Callable) -> None:
    assert "did you mean 'liver'" in refuses("-c", "livr")


def test_files_of_a_series_given_one_by_one(refuses: Callable, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.dcm" for number in range(24)]
    for file in files:
        file.touch()
    sentence = refuses(*files[1:], image=files[0])
    assert "24 images are given" in sentence
    assert f"give the folder ('{tmp_path}')" in sentence.replace("' ", "'") or "give the folder" in sentence
    assert "1.dcm" not in sentence


def test_words_that_belong_to_nothing(refuses: Callable) -> None:
    assert "'kidney' belongs to no option; put names with spaces in quotes" in refuses("-c", "left", "kidney")


@pytest.mark.parametrize(
    ("command", "option", "first", "second"),
    [
        ("segment", "--roi", ("0", "0", "0", "1", "1", "1"), ("0", "0", "0", "2", "2", "2")),
        ("segment", "--output", ("b.nii.gz",), ("c.nii.gz",)),
        ("segment", "--preview", ("b.png",), ("c.png",)),
        ("segment", "--preset", ("paper",), ("bundle",)),
        ("click", "--base", ("b.nrrd",), ("c.nrrd",)),
        ("click", "--class", ("liver",), ("spleen",)),
    ],
)
def test_an_option_that_counts_once_is_given_twice(
    refuses: Callable, command: str, option: str, first: tuple, second: tuple
) -> None:
    sentence = refuses(option, *first, option, *second, command=command)
    assert f"{option} is given" in sentence
    assert "give it once" in sentence


def test_options_that_may_be_repeated_still_may(vista3d: Callable, tmp_path: Path) -> None:
    result = vista3d("segment", "none.nii.gz", "-o", tmp_path / "a.nii.gz", "-m", "mini", "-c", "liver", "-c", "spleen")
    assert (result.exit_code, "does not exist" in result.stderr) == (3, True)


def test_a_tilde_in_quotes_is_the_home(vista3d: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    more = ("-o", "~/a.nii.gz", "--preview", "~/a.png", "--statistics", "~/a.csv", "-m", "mini")
    result = vista3d("segment", "~/none.nii.gz", *more)
    assert (result.exit_code, f"'{tmp_path / 'none.nii.gz'}' does not exist" in result.stderr) == (3, True)
