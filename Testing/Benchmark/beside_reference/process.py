"""Start a side in a process of its own, ask it, and report which side failed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from beside_reference.scene import Scene
from VISTA3DCore.child_processes import WorkingFolder, child_environment, python_command
from VISTA3DCore.errors import VistaError

#: The folders of this package and of ``VISTA3DCore``, which the child imports.
_IMPORT_FOLDERS = (str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[3]))


class SideError(VistaError):
    """A side cannot be measured; the others can."""


class SideProcess:
    """A side in a process of its own; a context manager that ends the process.

    :param name: the side, as :func:`beside_reference.sides.parse_side` reads it, or ``probe``.
    :raises SideError: if it cannot start, with its own sentence.
    """

    def __init__(self, name: str, scene: Scene) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
        self._folder = WorkingFolder()
        command = python_command("beside_reference.child", name, scene.to_json())
        started = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8",
            cwd=self._folder.path, env=_environment(scene.threads),
        )  # fmt: skip
        try:
            self.loading = self._answer()["loading"]
        except BaseException:
            self.close()
            raise
        #: Seconds from the start of the process until the model was loaded.
        self.starting = time.perf_counter() - started

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, question: str, **details: object) -> dict[str, Any]:
        """Ask and wait.

        :raises SideError: if the side could not do it, or its process ended.
        """
        try:
            self._process.stdin.write(json.dumps({"ask": question, **details}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()
        self._folder.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer

    def _ended(self) -> SideError:
        code = self._process.wait()
        self._log.seek(0)
        last = (self._log.read().strip().splitlines() or ["nothing was said"])[-1]
        hint = "; memory may have run out" if code == -9 else ""
        return SideError(f"The process of '{self.name}' ended with code {code}{hint} ({last}).")


def _environment(threads: int) -> dict[str, str]:
    """Let the process use as many threads as requested, and find this checkout."""
    environment = child_environment(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    folders = [*_IMPORT_FOLDERS, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    return environment | {"PYTHONPATH": os.pathsep.join(folders)}
