"""Getting files over HTTPS: resumed, checked while reading, cancellable, and in place only when they are right.

The Hugging Face hub is asked through its own library which commit and which SHA-256 a file has
(:mod:`VISTA3DCore.models.hub`); the bytes of every source come through the one downloader below. Proxies are taken
from the environment (``HTTPS_PROXY``, ``NO_PROXY``), further certificates from ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from VISTA3DCore import __version__
from VISTA3DCore.atomic_files import publish
from VISTA3DCore.errors import ModelError, OfflineError, OutputError
from VISTA3DCore.models.digests import CHUNK, Digest, Hasher, require_hash, require_space
from VISTA3DCore.progress import Progress

TIMEOUT_S = 20.0
RETRIES = 5
RETRY_DELAY_S = 1.0
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server and what is known about it before the download.

    :param size: bytes, or None.
    :param sha256: hash that the server reports, or None.
    :param md5: hash that the publisher prints, or None.
    :param revision: commit that the file belongs to, or an empty string.
    :param token: bearer token for the first server (not for those that it redirects to).
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    revision: str = ""
    token: str | None = field(default=None, repr=False)


def is_offline() -> bool:
    """Return whether the user forbade the network, by ``VISTA3D_OFFLINE`` or ``HF_HUB_OFFLINE``."""
    values = (os.environ.get(name, "") for name in ("VISTA3D_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().upper() in {"1", "ON", "YES", "TRUE"} for value in values)


def fetch_text(remote: RemoteFile, limit: int = 1 << 20) -> str | None:
    """Return a small text, or None where the server has none.

    :raises OfflineError: if the server may not, or cannot, be reached.
    :raises ModelError: if the server refuses.
    """
    require_network(remote.url)
    try:
        with _open(_request(remote)) as response:
            return response.read(limit).decode("utf-8", errors="replace")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise refusal(f"The server refused {remote.url}", error.code) from error
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(remote.url, error) from error


def download(remote: RemoteFile, target: Path, progress: Progress | None = None) -> Digest:
    """Download to ``target``, which appears by rename when its hash is right.

    An interrupted download leaves ``target.part`` and goes on from there the next time, unless the server's file
    changed in between.

    :return: size and hashes of what was downloaded.
    :raises OfflineError: if the server may not, or cannot, be reached, or the connection broke for good.
    :raises ModelError: if the server refuses, or the hash is wrong (nothing is kept).
    :raises OutputError: if the disk is full or not writable (nothing is kept).
    :raises Cancelled: if the user stopped (``target.part`` is kept).
    """
    require_network(target.name)
    transfer = _Transfer(remote, target, Progress.of(progress))
    digest = transfer.run()
    try:
        require_hash(target.name, digest, remote.sha256, remote.md5)
    except ModelError:
        transfer.discard()
        raise
    with transfer.writing():
        publish(transfer.part, target)
    transfer.discard()
    return digest


class _Interrupted(Exception):  # noqa: N818 - the work goes on
    """The connection broke; trying again may help."""


class _Transfer:
    """One download into a partial file, over as many connections as it takes."""

    def __init__(self, remote: RemoteFile, target: Path, progress: Progress) -> None:
        self.remote, self.target, self.progress = remote, target, progress
        self.part = target.with_name(target.name + ".part")
        self._validator = target.with_name(target.name + ".part.etag")
        self._hasher = Hasher()
        self._connected = False

    def run(self) -> Digest:
        """Fetch until everything is there."""
        self._resume()
        failures = 0
        while True:
            before = self._hasher.size
            try:
                self._fetch()
                return self._hasher.digest()
            except _Interrupted as error:
                failures = 1 if self._hasher.size > before else failures + 1
                if failures > RETRIES or not self._connected:
                    raise self._broken(error) from error
                self._pause(RETRY_DELAY_S * 2 ** (failures - 1))

    def discard(self) -> None:
        """Remove what belongs to the partial download."""
        for path in (self.part, self._validator):
            path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the local disk into an OutputError, after removing what would be left behind."""
        try:
            yield
        except OSError as error:
            with suppress(OSError):
                self.discard()
            raise OutputError(
                "'{path}' cannot be written ({reason}); nothing was left behind",
                hint="free-model-space",
                facts={"path": str(self.target), "reason": str(error.strerror or error)},
            ) from error

    def _resume(self) -> None:
        """Take over what an earlier run left, if the server can tell whether it still belongs to the same file."""
        if self.part.exists() and self._validator.exists():
            with self.part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self.progress.check()
                    self._hasher.update(chunk)

    def _fetch(self) -> None:
        request = _request(self.remote)
        if self._hasher.size and self._validator.exists():
            request.add_header("Range", f"bytes={self._hasher.size}-")
            request.add_header("If-Range", self._validator.read_text(encoding="utf-8"))
        try:
            response = _open(request)
        except urllib.error.HTTPError as error:
            self._refused(error)
            return
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(_reason(error)) from error
        self._connected = True
        with response:
            self._receive(response, self._begin(response))

    def _refused(self, error: urllib.error.HTTPError) -> None:
        """Act on an HTTP error; to return means that the file is complete."""
        self._connected = True
        error.close()
        if error.code in _TRANSIENT:
            raise _Interrupted(f"the server answered {error.code}") from error
        if error.code != 416 or not self._hasher.size:
            raise refusal(f"The server refused {self.remote.url}", error.code) from error
        if _complete_length(error.headers) != self._hasher.size:
            self._restart()
            raise _Interrupted("the file on the server changed") from error

    def _begin(self, response: http.client.HTTPResponse) -> int | None:
        """Prepare the partial file for a response and return the size of the whole file, if the server tells."""
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status != 206 or start is None or int(start[1]) != self._hasher.size:
            self._restart()
        length = response.headers.get("Content-Length")
        total = self._hasher.size + int(length) if length else self.remote.size
        with self.writing():
            require_space(self.target, (total or 0) - self._hasher.size)
            self._remember(response)
        return total

    def _restart(self) -> None:
        self.discard()
        self._hasher = Hasher()

    def _remember(self, response: http.client.HTTPResponse) -> None:
        """Keep what tells this version of the file from another; without it a later run starts afresh."""
        etag = response.headers.get("ETag", "")
        validator = response.headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
        if validator:
            self._validator.write_text(validator, encoding="utf-8")

    def _receive(self, response: http.client.HTTPResponse, total: int | None) -> None:
        with self.writing(), self.part.open("ab") as file:
            while chunk := self._read(response):
                file.write(chunk)
                file.flush()
                self._hasher.update(chunk)
                self._report(total)
        if total is not None and self._hasher.size < total:
            raise _Interrupted("the connection was closed early")

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Read what has arrived, so that a slow line neither delays cancelling nor loses what it brought."""
        try:
            return response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(_reason(error)) from error

    def _report(self, total: int | None) -> None:
        done = f"{self._hasher.size / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB")
        self.progress.update(self._hasher.size / total if total else 0.0, f"Downloading {self.target.name}", done)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.progress.check()
            time.sleep(min(0.1, seconds))

    def _broken(self, error: Exception) -> OfflineError:
        if not self._connected:
            return unreachable(self.remote.url, error)
        return OfflineError(
            f"The download of '{self.target.name}' stopped after {self._hasher.size / 1e6:.1f} MB ({error}); "
            "start it again to continue from there."
        )


def require_network(what: str) -> None:
    """:raises OfflineError: if the user forbade the network."""
    if is_offline():
        raise OfflineError(
            "'{what}' cannot be fetched because the network is switched off (VISTA3D_OFFLINE or HF_HUB_OFFLINE)",
            hint="import-file",
            facts={"what": what},
        )


def _request(remote: RemoteFile) -> urllib.request.Request:
    request = urllib.request.Request(remote.url, headers={"User-Agent": f"vista3d/{__version__}"})
    if remote.token:
        request.add_unredirected_header("Authorization", f"Bearer {remote.token}")
    return request


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    context = ssl.create_default_context()
    with suppress(ImportError):  # some Pythons come without certificates; certifi brings them
        import certifi

        context.load_verify_locations(certifi.where())
    return urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context)


def _complete_length(headers) -> int | None:
    """Return the N of ``Content-Range: bytes */N``."""
    found = re.match(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def refusal(what: str, status: int) -> ModelError:
    """Return the error that an HTTP status means for the user.

    :param what: what was refused, the beginning of a sentence.
    """
    facts = {"what": what, "status": status}
    if status in (401, 403):
        return ModelError("{what}: access denied (HTTP {status})", hint="log-in", facts=facts)
    if status == 404:
        return ModelError("{what}: it does not exist (HTTP {status})", hint="update-or-import", facts=facts)
    return ModelError("{what}: HTTP {status}; try again later.", facts=facts)


def unreachable(url: str, error: Exception) -> OfflineError:
    """Return the error that a server cannot be reached, and why."""
    host = urllib.parse.urlsplit(url).netloc
    facts = {"host": host, "reason": _reason(error)}
    return OfflineError("'{host}' cannot be reached ({reason})", hint="check-connection", facts=facts)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
