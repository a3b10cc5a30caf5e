"""Arrays in the shared directory: exact, never outside of it, and whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_helpers import AFFINE, posix

from VISTA3DCore.engine import arrays
from VISTA3DCore.engine.arrays import SharedDirectory, open_shared
from VISTA3DCore.engine.protocol import ArrayRef, InvalidParamsError, ProtocolError
from VISTA3DCore.errors import InputError, OutputError


def ref(name: str, array: np.ndarray) -> ArrayRef:
    return ArrayRef(name, array.shape, array.dtype.name)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "float32", "float64", ">i2"])
@pytest.mark.parametrize("layout", ["C", "F", "view"])
def test_arrays_arrive_bit_for_bit(shared, dtype, layout):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    array = {"C": values, "F": np.asfortranarray(values), "view": np.repeat(values, 2, axis=1)[::-1, ::2]}[layout]
    array = np.asarray(array)

    sent = shared.put(array, AFFINE)
    received = open_shared(shared.path).get(sent)

    assert np.array_equal(received, array)
    assert received.dtype == array.dtype
    assert sent.affine == tuple(map(tuple, AFFINE.tolist()))
    assert received.flags.f_contiguous == (layout == "F")
    assert not received.flags.writeable
    assert sent == ArrayRef.from_json(sent.to_json())


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_small_and_empty_arrays(shared, shape):
    array = np.ones(shape, dtype=np.float32)

    assert np.array_equal(shared.take(shared.put(array)), array)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_result_that_was_taken_is_ours_and_its_file_is_gone(shared, size):
    worker = open_shared(shared.path)
    sent = worker.put(np.arange(size))

    array = shared.take(sent)
    array += 1

    assert array[-1] == size
    assert list(shared.path.iterdir()) == []


@posix
def test_many_results_hold_no_descriptors(shared):
    results = [shared.take(shared.put(np.zeros(100))) for _ in range(50)]
    before = psutil.Process().num_fds()
    results += [shared.take(shared.put(np.zeros(100))) for _ in range(50)]

    assert psutil.Process().num_fds() <= before


def test_names_of_two_engines_never_clash(shared, monkeypatch):
    first = open_shared(shared.path).put(np.zeros(1)).file
    monkeypatch.setattr(os, "getpid", lambda: 1)

    assert open_shared(shared.path).put(np.zeros(1)).file != first


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([object()]), np.zeros(2, dtype="i2,i4"), np.zeros(1, "c8")]
)
def test_what_are_no_real_numbers_is_not_sent(shared, array):
    with pytest.raises(InputError, match="real numbers are needed"):
        shared.put(array)
    assert list(shared.path.iterdir()) == []


ESCAPES = [
    "../secret.npy", "..", ".", "", "/etc/passwd", "/etc/secret.npy", "a/b.npy", "a\\b.npy", "..\\secret.npy",
    "C:\\secret.npy", "C:secret.npy", "\\\\server\\share\\a.npy", "secret.npy\0", "secret\0.npy", "secret.npy\n",
    ".secret.npy", "-secret.npy", "secret", "secret.npz", "secret.npy.", "secret.npy ", " secret.npy", "secret.NPY",
    "secret.npy:stream", "a" * 102 + ".npy", "%2e%2e%2fsecret.npy", "sécret.npy", "sec ret.npy", "~/secret.npy",
    "con.npy", "CON.npy", "Nul.npy", "aux.npy", "prn.x.npy", "com1.npy", "LPT9.npy", "COM0.tar.npy", "${HOME}.npy",
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_leads_outside(tmp_path, shared, name):
    array = np.zeros(3)
    np.save(tmp_path / "secret.npy", array)

    for side in (shared, open_shared(shared.path)):
        with pytest.raises(InvalidParamsError, match="is not the name of an array file"):
            side.get(ref(name, array))
        with pytest.raises(InvalidParamsError):
            side.delete(name)
        if name:  # without one, a name is made up
            with pytest.raises(InvalidParamsError):
                side.put(array, name=name)
    assert (tmp_path / "secret.npy").exists()


@settings(max_examples=500)
@example("a..npy")
@given(st.text(max_size=20) | st.text(alphabet="./\\:a\0", max_size=8).map(lambda text: text + ".npy"))
def test_any_name_is_refused_or_lies_in_the_directory(name):
    with SharedDirectory() as shared, pytest.raises(InvalidParamsError):
        shared.get(ArrayRef(name, (1,), "bool"))


@posix
@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "folder", "socket"])
def test_only_regular_files_are_opened(tmp_path, shared, kind):
    array, place = np.zeros(3), shared.path / "x.npy"
    np.save(tmp_path / "secret.npy", array)
    {
        "symlink": lambda: place.symlink_to(tmp_path / "secret.npy"),
        "dangling": lambda: place.symlink_to(tmp_path / "nothing"),
        "hard link": lambda: os.link(tmp_path / "secret.npy", place),
        "fifo": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "socket": lambda: os.mknod(place, 0o600 | stat.S_IFSOCK),
    }[kind]()

    with pytest.raises(InvalidParamsError, match=r"x\.npy"):
        shared.get(ref("x.npy", array))
    if kind == "folder":
        place.rmdir()


@posix
def test_a_link_in_the_place_of_a_new_file_is_not_followed(tmp_path, shared):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in ("x.npy", "x.npy.part"):
        (shared.path / name).symlink_to(victim)

    shared.put(np.zeros(3), name="x.npy")

    assert victim.read_bytes() == b"precious"
    assert not (shared.path / "x.npy").is_symlink()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"garbage" * 30, b"\x93NUMPY\x03\x00", b"\x93NUMPY\x01\x00\x05\x00{'a'}", b"\x80\x04\x95cos\n"],
)
def test_damaged_files_are_refused(shared, content):
    (shared.path / "x.npy").write_bytes(content)

    with pytest.raises(InvalidParamsError, match=r"'x\.npy' is damaged"):
        shared.get(ArrayRef("x.npy", (3,), "int16"))


def test_truncated_and_mislabelled_files_are_refused(shared):
    sent = shared.put(np.zeros((30, 40, 50), np.int16))
    with pytest.raises(InvalidParamsError, match="not int16"):
        shared.get(ArrayRef(sent.file, (30, 40, 51), "int16"))
    with pytest.raises(InvalidParamsError, match="holds int16"):
        shared.get(ArrayRef(sent.file, sent.shape, "uint16"))
    os.truncate(shared.path / sent.file, 1000)
    with pytest.raises(InvalidParamsError, match="damaged"):
        shared.get(sent)
    with pytest.raises(InvalidParamsError, match="cannot be opened"):
        shared.get(ArrayRef("nothing.npy", (1,), "bool"))


def test_nothing_is_ever_unpickled(shared, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    array = np.array([Trap()])
    np.save(shared.path / "x.npy", array, allow_pickle=True)

    with pytest.raises(ProtocolError):
        shared.get(ref("x.npy", array))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", [np.zeros((3, 4)), np.full((4, 4), np.nan), np.full((4, 4), np.inf)])
def test_an_affine_is_a_finite_matrix(shared, value):
    with pytest.raises(InputError, match="4x4"):
        shared.put(np.zeros(1), value)
    assert list(shared.path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(shared, monkeypatch):
    def full(file, *_args, **_options):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(OutputError, match="No space left on device"):
            shared.put(np.zeros(3))
    assert list(shared.path.iterdir()) == []


@pytest.mark.parametrize("order", ["C", "F", "neither"])
def test_an_array_is_written_in_steps(shared, monkeypatch, order):
    monkeypatch.setattr(arrays, "_STEP_BYTES", 1000)
    array = np.arange(5 * 6 * 7 * 20, dtype=">i2").reshape(20, 6, 7, 5)
    array = array[..., ::2] if order == "neither" else np.asarray(array, order=order)

    refs = []

    def work():
        refs.append((yield from shared.put_in_steps(array)))

    assert len(list(work())) >= array.nbytes / 1000
    np.testing.assert_array_equal(shared.take(refs[0]), array)


def test_an_array_given_up_halfway_leaves_nothing_behind(shared, monkeypatch):
    monkeypatch.setattr(arrays, "_STEP_BYTES", 1000)
    steps = shared.put_in_steps(np.zeros(10_000))
    assert next(steps) is None
    steps.close()

    assert list(shared.path.iterdir()) == []


@posix
def test_a_limited_disk_leaves_nothing_behind(tmp_path):
    code = f"""
    import resource, signal, numpy as np
    from VISTA3DCore.engine.arrays import SharedDirectory
    shared = SharedDirectory({str(tmp_path)!r})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        shared.put(np.zeros(1_000_000))
    except Exception as error:
        print(type(error).__name__, list(shared.path.iterdir()))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True)

    assert run.stdout.split() == ["OutputError", "[]"]
    assert list(tmp_path.iterdir()) == []
