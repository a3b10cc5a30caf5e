"""What is known about a weights file, kept as JSON beside it (``model.safetensors`` -> ``model.safetensors.json``).

Where a file came from, its hash, the licence and its acceptance, and, for released files that carry no configuration
of their own, the :class:`ModelConfig`. It travels with the file, for example on a stick to a computer without
internet.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from VISTA3DCore.errors import ModelError, OutputError
from VISTA3DCore.imaging.staging import place


def sidecar_path(weights: Path) -> Path:
    """Return where the facts about a weights file stand."""
    return weights.with_name(weights.name + ".json")


def read_sidecar(weights: Path) -> dict[str, Any]:
    """Return the facts about a weights file; empty where nothing was recorded.

    :raises ModelError: if the sidecar file is damaged.
    """
    path = sidecar_path(weights)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read ({error}); delete it and import the model again.") from error
    if not isinstance(facts, dict):
        raise ModelError(f"'{path}' does not describe a model; delete it and import the model again.")
    return facts


def write_sidecar(weights: Path, facts: dict[str, Any]) -> None:
    """Write the facts about a weights file, by rename.

    :raises OutputError: if the folder cannot be written.
    """
    with replacing(sidecar_path(weights)) as temporary:
        temporary.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place when the block succeeds, and vanishes when it fails.

    :raises OutputError: if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        place(temporary, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a written file is on the disk, so that a rename never publishes a hole after a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
