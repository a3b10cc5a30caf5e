"""Downloads against a local server: resumed, checked, cancelled, refused, and nothing half-written."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from local_hub import COMMIT, Hub, Served

from VISTA3DCore.errors import Cancelled, ModelError, OfflineError, OutputError
from VISTA3DCore.models.digests import copy_file
from VISTA3DCore.models.downloads import RemoteFile, download, fetch_text
from VISTA3DCore.models.hub import hub_file
from VISTA3DCore.progress import Progress, ProgressUpdate

CONTENT = bytes(range(256)) * 8000  # 2 MB: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def served(hub: Hub) -> Served:
    """Return the file that the local server offers at /file."""
    hub.files["/file"] = Served(CONTENT, lfs=False)
    return hub.files["/file"]


@pytest.fixture
def remote(hub: Hub, served: Served) -> RemoteFile:
    """Return where that file is."""
    return RemoteFile(f"{hub.url}/file", len(CONTENT), SHA256)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return where it goes."""
    return tmp_path / "model.bin"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ranges(hub: Hub) -> list[str | None]:
    return [headers.get("Range") for headers in hub.requests("GET", "/file")]


def interrupt(remote: RemoteFile, target: Path, after: int) -> int:
    """Cancel a download after some bytes, as a user does, and return what was kept."""
    progress = Progress()

    def watch(update: ProgressUpdate) -> None:
        if update.fraction * len(CONTENT) >= after:
            progress.cancel()

    progress._on_update = watch
    with pytest.raises(Cancelled):
        download(remote, target, progress)
    return target.with_name("model.bin.part").stat().st_size


def test_download_arrives_whole_with_its_hashes_and_progress(remote: RemoteFile, target: Path) -> None:
    updates: list[ProgressUpdate] = []
    digest = download(remote, target, Progress(updates.append))
    assert target.read_bytes() == CONTENT
    assert (digest.size, digest.sha256, digest.md5) == (len(CONTENT), SHA256, MD5)
    assert names(target.parent) == ["model.bin"]
    fractions = [update.fraction for update in updates]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "of 2.0 MB" in updates[-1].message


def test_cancelled_download_goes_on_where_it_stopped(hub: Hub, remote: RemoteFile, target: Path) -> None:
    kept = interrupt(remote, target, 700_000)
    assert 700_000 <= kept < len(CONTENT)
    assert not target.exists()
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert ranges(hub) == [None, f"bytes={kept}-"]
    assert names(target.parent) == ["model.bin"]


def test_broken_connections_are_resumed_within_one_call(
    hub: Hub, served: Served, remote: RemoteFile, target: Path
) -> None:
    served.cut = [300_000, 500_000, 0, 100_000]
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=300000-", "bytes=800000-", "bytes=800000-", "bytes=900000-"]


def test_a_killed_process_leaves_what_the_next_one_uses(
    hub: Hub, served: Served, remote: RemoteFile, target: Path
) -> None:
    """The first process ends without any clean-up in the middle of the download."""
    code = (
        "import os, sys; from pathlib import Path; from VISTA3DCore.models.downloads import RemoteFile, download\n"
        "end = lambda update: os._exit(7) if update.fraction > 0.4 else None\n"
        "from VISTA3DCore.progress import Progress; download(RemoteFile(sys.argv[1]), Path(sys.argv[2]), Progress(end))"
    )
    assert subprocess.run([sys.executable, "-c", code, remote.url, str(target)], check=False).returncode == 7
    kept = target.with_name("model.bin.part").stat().st_size
    assert kept > 0.4 * len(CONTENT)
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert ranges(hub)[-1] == f"bytes={kept}-"


def test_a_server_that_keeps_breaking_off_gives_up_and_keeps_the_part(
    served: Served, remote: RemoteFile, target: Path
) -> None:
    served.cut = [400_000] + [0] * 50
    with pytest.raises(OfflineError, match=r"stopped after 0\.4 MB .* continue from there"):
        download(remote, target)
    assert target.with_name("model.bin.part").stat().st_size == 400_000
    served.cut = []
    download(remote, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"v2"', 'W/"weak"', None])
def test_a_file_that_changed_meanwhile_starts_afresh(
    etag: str | None, hub: Hub, served: Served, remote: RemoteFile, target: Path
) -> None:
    """Also where the server cannot tell (weak or no ETag)."""
    served.etag = '"v1"' if etag == '"v2"' else etag
    interrupt(remote, target, 700_000)
    served.content, served.etag = CONTENT[::-1], etag
    digest = download(RemoteFile(remote.url), target)
    assert target.read_bytes() == CONTENT[::-1]
    assert digest.sha256 == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_a_server_without_ranges_starts_afresh(hub: Hub, served: Served, remote: RemoteFile, target: Path) -> None:
    interrupt(remote, target, 700_000)
    served.ranges = False
    download(remote, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_already_complete_is_only_checked(hub: Hub, remote: RemoteFile, target: Path) -> None:
    interrupt(remote, target, 700_000)
    target.with_name("model.bin.part").write_bytes(CONTENT)
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["model.bin"]


def test_a_part_longer_than_the_file_starts_afresh(remote: RemoteFile, target: Path) -> None:
    interrupt(remote, target, 700_000)
    target.with_name("model.bin.part").write_bytes(CONTENT + b"more")
    download(remote, target)
    assert target.read_bytes() == CONTENT


def test_a_file_of_unknown_length_arrives(served: Served, remote: RemoteFile, target: Path) -> None:
    served.chunked = True
    download(replace(remote, size=None), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_wrong_hash_keeps_nothing(kind: str, remote: RemoteFile, target: Path) -> None:
    wrong = replace(remote, **{"sha256": SHA256, "md5": MD5, kind: "0" * (64 if kind == "sha256" else 32)})
    with pytest.raises(ModelError, match=f"(?i)damaged .* its {kind[:3]}.* instead of 0000.* (download|copy) it again"):
        download(wrong, target)
    assert names(target.parent) == []


def test_damage_inside_a_resumed_part_is_found(remote: RemoteFile, target: Path) -> None:
    kept = interrupt(remote, target, 700_000)
    target.with_name("model.bin.part").write_bytes(bytes(kept))
    with pytest.raises(ModelError, match="damaged"):
        download(remote, target)
    assert names(target.parent) == []


def test_temporary_server_errors_are_retried(hub: Hub, served: Served, remote: RemoteFile, target: Path) -> None:
    served.fail = [503, 429]
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert len(ranges(hub)) == 3


@pytest.mark.parametrize(("status", "sentence"), [(404, "does not exist"), (403, "access denied"), (400, "HTTP 400")])
def test_refusals_are_final_and_say_why(
    status: int, sentence: str, hub: Hub, served: Served, remote: RemoteFile, target: Path
) -> None:
    served.fail = [status]
    with pytest.raises(ModelError, match=sentence) as refused:
        download(remote, target)
    assert not isinstance(refused.value, OfflineError)
    assert len(ranges(hub)) == 1
    assert names(target.parent) == []


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_server_is_told_at_once(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    for attempt in (
        lambda: download(RemoteFile(f"{url}/file"), target),
        lambda: fetch_text(RemoteFile(f"{url}/file")),
        lambda: hub_file("acme/narrow", "model.safetensors", COMMIT),
    ):
        with pytest.raises(OfflineError, match=r"127\.0\.0\.1:\d+' cannot be reached .* models import FILE"):
            attempt()
    assert names(target.parent) == []


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "VISTA3D_OFFLINE"])
def test_offline_mode_sends_nothing(
    variable: str, hub: Hub, remote: RemoteFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    for attempt in (
        lambda: download(remote, target),
        lambda: fetch_text(remote),
        lambda: hub_file("acme/narrow", "model.safetensors", COMMIT),
    ):
        with pytest.raises(OfflineError, match="switched off"):
            attempt()
    assert hub.log == []


def test_the_proxy_of_the_environment_is_used(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local server plays the proxy: it gets the whole address of a host that does not exist."""
    hub.files["http://models.invalid/file"] = Served(CONTENT, lfs=False)
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    download(RemoteFile("http://models.invalid/file"), target)
    assert target.read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_but_not_to_its_cdn(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[f"/acme/narrow/resolve/{COMMIT}/model.bin"] = Served(CONTENT)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = hub_file("acme/narrow", "model.bin", COMMIT)
    assert (found.size, found.sha256, found.revision) == (len(CONTENT), SHA256, COMMIT)
    assert "hf_secret" not in repr(found)
    download(found, target)
    assert [headers.get("Authorization") for headers in hub.requests("GET", "model.bin")] == ["Bearer hf_secret", None]


def test_an_etag_that_is_no_sha256_is_not_taken_for_one(hub: Hub) -> None:
    hub.files[f"/acme/narrow/resolve/{COMMIT}/model.bin"] = Served(CONTENT, lfs=False)
    assert hub_file("acme/narrow", "model.bin", COMMIT).sha256 is None


def test_a_repository_that_does_not_exist_says_so(hub: Hub) -> None:
    with pytest.raises(ModelError, match=r"refused 'model\.bin' of 'acme/other': it does not exist"):
        hub_file("acme/other", "model.bin", COMMIT)


@pytest.mark.parametrize("action", ["download", "copy"])
def test_disk_full_in_the_middle_leaves_nothing(action: str, remote: RemoteFile, tmp_path: Path) -> None:
    """The limit on file sizes makes every write beyond it fail, as a full disk does."""
    source, folder = tmp_path / "source.bin", tmp_path / "full"
    source.write_bytes(CONTENT)
    folder.mkdir()
    code = (
        "import resource, sys; from pathlib import Path; from VISTA3DCore.errors import OutputError\n"
        "from VISTA3DCore.models.downloads import RemoteFile, download\n"
        "from VISTA3DCore.models.digests import copy_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); target = Path(sys.argv[4]) / 'model.bin'\n"
        "try: download(RemoteFile(sys.argv[2]), target) if sys.argv[1] == 'download' else "
        "copy_file(Path(sys.argv[3]), target)\n"
        "except OutputError as error: print(error); sys.exit(OutputError.exit_code)"
    )
    command = [sys.executable, "-c", code, action, remote.url, str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == OutputError.exit_code, done.stderr
    assert "cannot be written" in done.stdout
    assert names(folder) == []


def test_too_little_space_is_told_before_the_first_byte(
    hub: Hub, served: Served, remote: RemoteFile, target: Path
) -> None:
    """A server that announces more than any disk holds."""
    served.announced = 10**18
    with pytest.raises(OutputError, match="too full: 1000000000000 MB are needed"):
        download(remote, target)
    assert "model.bin" not in names(target.parent)
    assert "model.bin.part" not in names(target.parent)


def test_missing_folder_says_so(remote: RemoteFile, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        download(remote, tmp_path / "missing" / "model.bin")


def test_a_stalled_connection_can_be_cancelled(
    hub: Hub, served: Served, remote: RemoteFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("VISTA3DCore.models.downloads.TIMEOUT_S", 0.2)
    served.stall_after = 500_000
    progress = Progress()
    threading.Timer(0.5, progress.cancel).start()
    with pytest.raises(Cancelled):
        download(remote, target, progress)
    kept = target.with_name("model.bin.part").read_bytes()
    assert len(kept) >= 500_000
    assert CONTENT.startswith(kept)


def test_copying_reports_the_hash_of_what_was_written(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    assert copy_file(source, tmp_path / "copy.bin").sha256 == SHA256
    assert (tmp_path / "copy.bin").read_bytes() == CONTENT
