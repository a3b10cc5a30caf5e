"""What a model claims to segment well, with the figures of its validation: a piece of its file's metadata.

Needs neither torch nor the weights: only the header of the safetensors file is read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import ModelError
from VISTA3DCore.json_dataclasses import JsonError, UnknownFieldError, from_json

CLAIMS_KEY = "vista3d.claims"
"""Metadata key of a safetensors file under which the claims stand as JSON."""

_METADATA = "__metadata__"
_LENGTH_BYTES = 8
# The format's own limit for the header, in bytes.
_LONGEST_HEADER = 100_000_000
# The format has the tensors start at a multiple of this many bytes.
_ALIGNMENT = 8


@dataclass(frozen=True)
class Claim:
    """The figure of one structure.

    :param dice: mean Dice over held-out patients, 0 to 1.
    :param cases: number of these patients.
    :param painted: validated on painted CTs alone, because no real CT has the structure.
    :raises ModelError: if a value is impossible.
    """

    strict: ClassVar[bool] = True

    dice: float
    cases: int
    painted: bool

    def __post_init__(self) -> None:
        if not _is_share(self.dice):
            raise ModelError(f"The Dice of a claim is {self.dice!r:.40}; it must be a number from 0 to 1.")
        if type(self.cases) is not int or self.cases < 1:
            raise ModelError(f"The number of patients of a claim is {self.cases!r:.40}; it must be 1 or more.")
        if type(self.painted) is not bool:
            raise ModelError(f"'painted' of a claim is {self.painted!r:.40}; it must be true or false.")


@dataclass(frozen=True)
class Claims:
    """The figures of every structure that was validated, and the Dice from which on a structure is offered.

    :param threshold: least Dice of a structure that the model claims, 0 to 1.
    :param structures: figures by index of the catalogue; those below the threshold are here, too.
    :raises ModelError: if a value is impossible.
    """

    strict: ClassVar[bool] = True

    threshold: float
    structures: Mapping[int, Claim]

    def __post_init__(self) -> None:
        if not _is_share(self.threshold):
            raise ModelError(f"The threshold of the claims is {self.threshold!r:.40}; it must be a number from 0 to 1.")

    @property
    def claimed(self) -> tuple[int, ...]:
        """Indices of the structures that reach the threshold, ascending."""
        return tuple(sorted(index for index, claim in self.structures.items() if claim.dice >= self.threshold))

    def to_json(self) -> str:
        """Return the claims as JSON, as they stand in a file's metadata."""
        structures = {str(index): asdict(claim) for index, claim in sorted(self.structures.items())}
        return json.dumps({"threshold": self.threshold, "structures": structures})

    @classmethod
    def from_json(cls, text: str) -> Claims:
        """Read what :meth:`to_json` wrote.

        :raises ModelError: if the text is anything else.
        """
        try:
            return from_json(cls, json.loads(text))
        except UnknownFieldError as error:
            names = ", ".join(sorted(error.names))
            sentence = f"The model's claims need a newer version of VISTA3D (unknown entries: {names})."
            raise ModelError(sentence) from error
        except (JsonError, ModelError) as error:
            raise ModelError(f"The model's claims are damaged; get the model's file again. {error}") from error
        except (ValueError, RecursionError) as error:
            raise ModelError("The model's claims are no JSON; get the model's file again.") from error


def read_claims(path: str | Path) -> Claims | None:
    """Return what a model's file claims; only the file's header is read.

    :return: None if the file has no claims, or is not a safetensors file.
    :raises ModelError: if the file is missing, or its header or its claims are damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = _read_header(file, path)
    except FileNotFoundError as error:
        raise ModelError(f"The model file '{path}' does not exist.") from error
    except OSError as error:
        raise ModelError(f"The model file '{path}' cannot be read: {error.strerror or error}.") from error
    text = None if header is None else _metadata(header, path).get(CLAIMS_KEY)
    return None if text is None else Claims.from_json(text)


def with_claims(path: str | Path, claims: Claims) -> None:
    """Write claims into the metadata of a safetensors file, in place of earlier ones; the tensors stay bit for bit.

    The new file appears by rename.

    :raises ModelError: if the file is missing, damaged, or not a safetensors file.
    :raises OutputError: if it cannot be written.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"The model file '{path}' does not exist.")
    with replacing(path) as temporary, path.open("rb") as source, temporary.open("wb") as target:
        header = _read_header(source, path)
        if header is None:
            raise ModelError(f"'{path}' is not a safetensors file; only such a file can carry claims.")
        # The library writes metadata in any order; sorted, the same model is the same file.
        metadata = dict(sorted({**_metadata(header, path), CLAIMS_KEY: claims.to_json()}.items()))
        content = json.dumps({**header, _METADATA: metadata}, separators=(",", ":")).encode()
        content += b" " * (-len(content) % _ALIGNMENT)
        target.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
        shutil.copyfileobj(source, target)  # the header's offsets count from the end of the header
        shutil.copymode(path, temporary)


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any] | None:
    """Return the header of a safetensors file, and leave the file where the tensors start; None for other files."""
    start = file.read(_LENGTH_BYTES + 1)
    if start[_LENGTH_BYTES:] != b"{":
        return None
    damaged = f"The model file '{path}' is truncated or damaged; download it again."
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if length > _LONGEST_HEADER:
        raise ModelError(damaged)
    content = start[_LENGTH_BYTES:] + file.read(length - 1)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(damaged) from error
    if len(content) != length or not isinstance(header, dict):
        raise ModelError(damaged)
    return header


def _metadata(header: dict[str, Any], path: Path) -> dict[str, str]:
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError(f"The metadata of '{path}' is damaged; download the model again.")
    return metadata


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
