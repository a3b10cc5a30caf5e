"""The engine process opens nothing but plain array files in a directory of the user's own, and never unpickles."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import VISTA3DCore
from VISTA3DCore.engine.client import Failure, initialize_params
from VISTA3DCore.engine.protocol import ArrayRef, InvalidParamsError, OpenParams
from VISTA3DCore.errors import InputError

EYE = tuple(map(tuple, np.eye(4).tolist()))


def test_no_module_of_the_worker_knows_pickle():
    for path in (Path(VISTA3DCore.__file__).parent / "engine").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports for alias in node.names} | {getattr(n, "module", "") for n in imports}
        assert not names & {"pickle", "cPickle", "dill", "shelve", "marshal", "multiprocessing"}, path.name
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.literal_eval(node.value) is False, path.name


class TestOpening:
    """What a message may name."""

    @pytest.fixture(scope="class")
    def folder(self, engine) -> Path:
        return engine.shared.path

    @pytest.fixture(scope="class")
    def refuse(self, engine, tiny_model):
        """Return a function that asks to open a volume and returns the sentence of the refusal."""

        def ask(file: str, dtype: str = "int16", shape: tuple[int, ...] = (4, 4, 4)) -> str:
            with pytest.raises(InvalidParamsError) as refusal:
                engine.call("open", OpenParams(ArrayRef(file, shape, dtype, EYE), str(tiny_model)))
            assert refusal.value.code == "invalid-params"
            return str(refusal.value)

        return ask

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        """Return a good array where the engine has no business."""
        path = tmp_path / "secret.npy"
        np.save(path, np.zeros((4, 4, 4), np.int16))
        return path

    @pytest.mark.parametrize(
        "name",
        [
            "../{0}",
            "/{0}",
            "sub/../../{0}",
            "..",
            ".",
            "",
            "a",
            "x.npy/..",
            "x\x00.npy",
            ".npy",
            "C:\\x.npy",
            "con.npy",
        ],
    )
    def test_names_lead_nowhere_else(self, refuse, outside, name):
        assert "is not the name of an array file" in refuse(name.format(outside))

    def test_absolute_paths_are_no_names(self, refuse, outside):
        assert "is not the name of an array file" in refuse(str(outside))

    def test_links_are_not_followed(self, refuse, folder, outside):
        (folder / "soft.npy").symlink_to(outside)
        assert "cannot be opened" in refuse("soft.npy")
        os.link(outside, folder / "hard.npy")
        assert "is a link" in refuse("hard.npy")

    def test_only_files_are_opened(self, refuse, folder):
        (folder / "folder.npy").mkdir()
        os.mkfifo(folder / "pipe.npy")
        assert "cannot be opened" in refuse("folder.npy")
        assert "no regular file" in refuse("pipe.npy")
        assert "cannot be opened" in refuse("absent.npy")
        (folder / "folder.npy").rmdir()

    def test_pickled_arrays_are_refused_and_not_run(self, refuse, folder, tmp_path):
        mark = tmp_path / "mark"

        class Evil:
            def __reduce__(self):
                return Path.touch, (mark,)

        np.save(folder / "evil.npy", np.full((4, 4, 4), Evil(), dtype=object), allow_pickle=True)
        (folder / "bare.npy").write_bytes(pickle.dumps(Evil()))
        for dtype in ("object", "int16"):
            assert "evil.npy" in refuse("evil.npy", dtype)
        assert "damaged" in refuse("bare.npy")
        assert not mark.exists()

    def test_announcements_must_be_true(self, refuse, folder):
        np.save(folder / "array.npy", np.zeros((4, 4, 4), np.int16))
        assert "not float32" in refuse("array.npy", "float32")
        assert "as announced" in refuse("array.npy", shape=(4, 4, 5))
        content = (folder / "array.npy").read_bytes()
        (folder / "array.npy").write_bytes(content[:-8])
        assert "damaged" in refuse("array.npy")
        (folder / "array.npy").write_bytes(content[:20])
        assert "damaged" in refuse("array.npy")

    def test_a_volume_needs_a_place_in_space(self, engine, folder, tiny_model):
        np.save(folder / "placeless.npy", np.zeros((4, 4, 4), np.int16))
        with pytest.raises(InvalidParamsError, match=r"'volume.affine' is missing"):
            engine.call("open", OpenParams(ArrayRef("placeless.npy", (4, 4, 4), "int16"), str(tiny_model)))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_can_enter_is_refused(raw_worker, mode):
    worker = raw_worker()
    worker.shared.path.chmod(mode)
    answer = worker.greet()
    assert isinstance(answer, Failure)
    assert isinstance(answer.error, InputError)
    assert "others can read or write it" in str(answer.error)


def test_other_places_are_refused(raw_worker, tmp_path):
    worker = raw_worker()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(worker.shared.path)
    for place in ("absent", "file", "link"):
        answer = worker.ask("initialize", initialize_params(tmp_path / place, "test"))
        assert isinstance(answer.error, InputError), place
        assert "shared directory" in str(answer.error)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(raw_worker, tmp_path):
    worker = raw_worker()
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    assert isinstance(worker.ask("initialize", initialize_params(tmp_path / "theirs", "test")).error, InputError)
