"""The directory that both processes share: private, their own, and gone afterwards whoever was killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from protocol_helpers import posix, wait_until

from VISTA3DCore.engine.arrays import SharedDirectory, open_shared
from VISTA3DCore.errors import InputError, OutputError


def test_the_directory_is_private_and_goes(tmp_path):
    shared = SharedDirectory.create(tmp_path)
    shared.put(np.zeros(3))
    (file,) = shared.path.iterdir()

    if os.name == "posix":
        assert stat.S_IMODE(shared.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shared.close()
    shared.close()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_directory_that_was_exchanged_leads_nowhere(tmp_path):
    shared = SharedDirectory(tmp_path)
    worker, array = open_shared(shared.path), np.arange(3)
    moved = shared.path.rename(tmp_path / "moved")
    other = tmp_path / "other"
    other.mkdir()
    shared.path.symlink_to(other)

    sent = worker.put(array)

    assert [file.name for file in moved.iterdir()] == [sent.file]
    assert list(other.iterdir()) == []
    assert np.array_equal(worker.get(sent), array)
    shared.path.unlink()
    moved.rename(shared.path)
    shared.close()


@posix
@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o710, 0o701, 0o704, 0o702, 0o1777])
def test_a_directory_that_others_can_use_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(InputError, match="others can read or write it"):
        open_shared(tmp_path)
    tmp_path.chmod(0o700)
    open_shared(tmp_path).close()


@posix
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(InputError, match="the user's own"):
        open_shared(tmp_path)


@posix
def test_what_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for place in ("file", "link", "nothing", "a\0b"):
        with pytest.raises(InputError, match="shared directory"):
            open_shared(tmp_path / place)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(OutputError, match="A folder for arrays cannot be made in"):
        SharedDirectory(tmp_path / "nothing")


def test_what_a_killed_engine_left_is_swept_and_the_rest_stays(shared):
    ours, worker = shared.put(np.zeros(1)), open_shared(shared.path)
    wanted, lost = worker.put(np.zeros(1)), worker.put(np.zeros(1))
    (shared.path / lost.file).rename(shared.path / (lost.file + ".part"))

    shared.sweep(keep=[wanted.file])

    assert {file.name for file in shared.path.iterdir()} == {ours.file, wanted.file}


def test_the_engine_removes_arrays_only_and_the_owner_everything(tmp_path):
    shared = SharedDirectory(tmp_path)
    shared.put(np.zeros(1))
    (shared.path / "notes.txt").write_text("mine")
    open_shared(shared.path).remove()

    assert [file.name for file in shared.path.iterdir()] == ["notes.txt"]
    shared.close()
    assert not shared.path.exists()


CLIENT = """
import sys, time, numpy as np
from VISTA3DCore.engine.arrays import SharedDirectory
shared = SharedDirectory(sys.argv[1])
shared.put(np.zeros(10))
print(shared.path, flush=True)
if sys.argv[2] == "stay":
    time.sleep(600)
if sys.argv[2] == "raise":
    raise SystemExit(3)
"""


def client(base: Path, how: str) -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen([sys.executable, "-c", CLIENT, str(base), how], stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize("how", ["return", "raise"])
def test_a_client_that_forgets_to_close_leaves_nothing(tmp_path, how):
    process, _ = client(tmp_path, how)
    process.communicate(timeout=60)

    assert list(tmp_path.iterdir()) == []


@posix
def test_what_a_client_left_that_was_killed_with_its_engine_is_removed_by_the_next(tmp_path):
    killed, left = client(tmp_path, "stay")
    alive, kept = client(tmp_path, "stay")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    innocent = tmp_path / "vista3d-arrays-of-mine"
    innocent.mkdir(mode=0o700)
    long_ago = time.time() - 3600
    for folder in (left, kept, innocent):
        os.utime(folder, (long_ago, long_ago))

    SharedDirectory(tmp_path).close()

    assert not left.exists()
    assert kept.exists()
    assert list(kept.iterdir())
    assert innocent.exists()
    alive.kill()
    alive.communicate()
    os.utime(kept, (long_ago, long_ago))
    SharedDirectory(tmp_path).close()
    wait_until(lambda: not kept.exists())


@posix
def test_a_young_directory_is_left_alone(tmp_path):
    killed, left = client(tmp_path, "stay")
    killed.kill()
    killed.communicate()

    SharedDirectory(tmp_path).close()

    assert left.exists()


@posix
def test_a_forked_child_does_not_remove_it(shared):
    pid = os.fork()
    if not pid:
        shared._finalizer()
        os._exit(0)
    os.waitpid(pid, 0)

    assert shared.path.exists()
