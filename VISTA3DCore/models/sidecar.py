"""What is known about a weights file, kept as JSON beside it (``model.safetensors`` -> ``model.safetensors.json``).

Where a file came from, its hash, the licence and its acceptance, and, for released files that carry no configuration
of their own, the :class:`ModelConfig`. It travels with the file, for example on a stick to a computer without
internet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import ModelError


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
