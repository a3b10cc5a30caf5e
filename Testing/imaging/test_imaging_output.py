"""Files take their places complete or not at all, whatever else happens to the places meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import BinaryIO

import pytest

from VISTA3DCore import atomic_files
from VISTA3DCore.errors import OutputError
from VISTA3DCore.imaging.output import check_targets, try_targets, write_files


def _text(content: str):
    return lambda file: file.write(content.encode())


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_replace_old_ones_together_and_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    folder = tmp_path / "masks"

    def encode(file: BinaryIO) -> None:
        assert (tmp_path / "a.txt").read_text() == "old"
        file.write(b"liver")

    files = {tmp_path / "a.txt": _text("new"), folder / "liver.txt": encode}
    assert write_files(files, folder=folder) == list(files)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert _names(tmp_path) == ["a.txt", "masks"]
    assert _names(folder) == ["liver.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, OSError("No space left on device")])
def test_a_failure_leaves_everything_as_it_was(tmp_path: Path, failure: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")

    def encode(_: BinaryIO) -> None:
        raise failure

    files = {tmp_path / "a.txt": _text("half"), tmp_path / "masks" / "b.txt": encode}
    with pytest.raises((KeyboardInterrupt, RuntimeError, OutputError)) as error:
        write_files(files, folder=tmp_path / "masks")
    assert ".vista3d" not in str(error.value)
    assert _names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_rename_that_another_program_refuses_at_first_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As antivirus scanners do under Windows; here Linux refuses nothing, so the first calls do it."""
    refusals, replace = [3], Path.replace

    def refused(self: Path, target: Path) -> Path:
        refusals[0] -= 1
        if refusals[0] >= 0:
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    write_files({tmp_path / "a.txt": _text("new")})
    assert (tmp_path / "a.txt").read_text() == "new"
    assert _names(tmp_path) == ["a.txt"]


def test_a_place_that_stays_closed_costs_no_result(tmp_path: Path) -> None:
    """The name becomes a folder during the work; the file is kept beside it, and the others are where they belong."""
    path, other = tmp_path / "a.b.seg.nrrd", tmp_path / "a.csv"

    def encode(file: BinaryIO) -> None:
        file.write(b"result")
        path.mkdir()

    with pytest.raises(OutputError) as error:
        write_files({path: encode, other: _text("table")})
    kept = tmp_path / "a.b_new.seg.nrrd"
    assert str(kept) in str(error.value)
    assert (kept.read_text(), other.read_text()) == ("result", "table")
    assert _names(tmp_path) == ["a.b.seg.nrrd", "a.b_new.seg.nrrd", "a.csv"]


def test_a_result_that_was_kept_is_never_replaced_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "a_new.nii.gz").write_text("earlier")
    (tmp_path / "a.nii.gz").mkdir()
    (tmp_path / "part").write_text("later")
    assert atomic_files.keep_beside(tmp_path / "part", tmp_path / "a.nii.gz") == tmp_path / "a_new1.nii.gz"
    assert (tmp_path / "a_new.nii.gz").read_text() == "earlier"


def test_places_that_cannot_be_used_are_known_before_anything_is_encoded(tmp_path: Path) -> None:
    protected = tmp_path / "protected.txt"
    protected.write_text("mine")
    protected.chmod(0o444)
    (tmp_path / "full.txt").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    for names, sentence in (
        (["protected.txt"], "read-only"),
        (["full.txt"], "device"),
        (["pipe.txt"], "device"),
        (["real.txt", "link.txt"], "same file"),
        (["missing/a.txt"], "does not exist"),
        (["x" * 260 + ".txt"], "too long"),
    ):
        with pytest.raises(OutputError, match=sentence):
            try_targets([tmp_path / name for name in names])
    with pytest.raises(OutputError, match="read-only"):
        write_files({protected: lambda _: pytest.fail("was encoded")})
    assert protected.read_text() == "mine"


@pytest.mark.parametrize("length", [244, 255])
def test_names_as_long_as_the_file_system_takes_them_work(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("x" * (length - 7) + ".nii.gz")
    try_targets([path])
    assert _names(tmp_path) == []
    write_files({path: _text("new")})
    assert path.read_text() == "new"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "real.txt").write_text("old")
    for name, target in (("link.txt", "store/real.txt"), ("to_come.txt", "store/new.txt")):
        (tmp_path / name).symlink_to(target)
        write_files({tmp_path / name: _text("new")})
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert _names(tmp_path / "store") == ["new.txt", "real.txt"]


def test_an_optional_file_that_fails_costs_no_other(tmp_path: Path) -> None:
    def broken(_: BinaryIO) -> None:
        raise ValueError("an odd title")

    files = {tmp_path / "a.png": broken, tmp_path / "no" / "b.png": _text("b"), tmp_path / "a.txt": _text("a")}
    with pytest.warns(UserWarning, match="was not written") as warned:
        assert write_files(files, optional=list(files)[:2]) == [tmp_path / "a.txt"]
    assert len(warned) == 2
    assert "an odd title" in str(warned[0].message)
    assert _names(tmp_path) == ["a.txt"]


_CHILD = """
    import os, signal, sys, time
    from pathlib import Path
    from VISTA3DCore.imaging.output import write_files

    def encode(file):
        file.write(b"half")
        print("writing", flush=True)
        if sys.argv[2] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdin.readline()

    write_files({Path(sys.argv[1], "result.txt"): encode})
"""


def _child(folder: Path, what: str) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), str(folder), what]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    return child


def test_the_next_run_removes_what_a_killed_one_left_and_not_what_a_running_one_needs(tmp_path: Path) -> None:
    foreign = tmp_path / f"{atomic_files.PREFIX}link"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.txt").write_text("keep")
    foreign.symlink_to("precious")
    assert _child(tmp_path, "die").wait(60) == -signal.SIGKILL
    left = set(tmp_path.glob(f"{atomic_files.PREFIX}*")) - {foreign}
    assert len(left) == 1
    with _child(tmp_path, "wait") as running:
        write_files({tmp_path / "other.txt": _text("other")})
        assert not any(path.exists() for path in left)
        running.communicate("\n", timeout=60)
    assert running.returncode == 0
    assert (tmp_path / "result.txt").read_text() == "half"
    assert (tmp_path / "precious" / "a.txt").read_text() == "keep"
    assert _names(tmp_path) == sorted([foreign.name, "other.txt", "precious", "result.txt"])


def test_checks_alone_write_nothing(tmp_path: Path) -> None:
    check_targets([tmp_path / "a.txt"])
    try_targets([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert _names(tmp_path) == []
