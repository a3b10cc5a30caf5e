"""A local server that speaks the protocol of the Hugging Face hub and misbehaves on request."""

from __future__ import annotations

import hashlib
import http.server
import time
from dataclasses import dataclass, field
from pathlib import Path

from VISTA3DCore.network.config import ModelConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NARROW = ModelConfig(name="narrow", width=8, blocks_down=(1, 1, 1), window=(32, 32, 32), n_classes=512)


@dataclass
class Served:
    """One file on the test server, and how the server misbehaves.

    :param cut: bytes after which each of the next responses breaks off; used up one by one.
    :param announced: a false Content-Length.
    :param stall_after: bytes after which every response stands still.
    :param fail: status codes that the next requests get; used up one by one.
    """

    content: bytes
    lfs: bool = True
    etag: str | None = '"v1"'
    sha256: str | None = None
    chunked: bool = False
    ranges: bool = True
    announced: int | None = None
    stall_after: int | None = None
    cut: list[int] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)

    @property
    def reported_sha256(self) -> str:
        return self.sha256 or hashlib.sha256(self.content).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``files`` (by path) like the Hugging Face hub, redirecting large files to its own 'CDN' path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.log: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cdn(self) -> str:
        """Another host for the client, although it is the same server."""
        return f"http://localhost:{self.server_port}/cdn"

    def requests(self, method: str, containing: str = "") -> list[dict[str, str]]:
        """Return the headers of the requests that arrived."""
        return [headers for verb, path, headers in self.log if verb == method and containing in path]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._note()
        served = self.server.files.get(self.path)
        if served is None:
            self.send_error(404)
            return
        self.send_response(302 if served.lfs else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"not-the-hash"')
        if served.lfs:
            self.send_header("X-Linked-Etag", f'"{served.reported_sha256}"')
            self.send_header("X-Linked-Size", str(len(served.content)))
            self.send_header("Location", f"{self.server.cdn}{self.path}")
        self.send_header("Content-Length", str(len(served.content)) if not served.lfs else "0")
        self.end_headers()

    def do_GET(self) -> None:
        self._note()
        served = self.server.files.get(self.path.removeprefix("/cdn"))
        if served is None:
            self.send_error(404)
        elif served.fail:
            self.send_error(served.fail.pop(0))
        elif served.lfs and not self.path.startswith("/cdn"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.cdn}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(served)

    def _send(self, served: Served) -> None:
        start = self._start(served)
        if start is not None and start >= len(served.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(served.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = served.content[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if not served.chunked:
            self.send_header("Content-Length", str(served.announced or len(body)))
        self.end_headers()
        if served.cut:
            body = body[: served.cut.pop(0)]
        self.wfile.write(body[: served.stall_after])
        if served.stall_after is not None:
            time.sleep(1.0)
        self.close_connection = True

    def _start(self, served: Served) -> int | None:
        """Return where the client wants to go on, or None if it gets everything."""
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (None, served.etag)
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fresh and served.ranges else None

    def _note(self) -> None:
        self.server.log.append((self.command, self.path, dict(self.headers.items())))

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


def files(folder: Path) -> list[str]:
    """Return the relative paths of all files in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sha256(path: Path) -> str:
    """Return a file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
