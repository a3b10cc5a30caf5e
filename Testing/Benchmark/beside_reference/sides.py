"""Who is measured: ours with its runtimes, the reference as shipped and tuned, an interactive rival."""

from __future__ import annotations

from dataclasses import dataclass

from VISTA3DCore.backends.selection import PRECISIONS, RUNTIMES
from VISTA3DCore.errors import InputError

OURS, REFERENCE, TUNED, RIVAL = "ours", "reference", "tuned", "nninteractive"
KINDS = (OURS, REFERENCE, TUNED, RIVAL)
#: What each kind can be asked for after a colon; the bundle knows float32 and CUDA's float16 autocast.
_REFERENCE_PRECISIONS = ("auto", "float32", "float16")


@dataclass(frozen=True)
class SideName:
    """One side: ``ours``, ``ours:openvino:bfloat16``, ``reference``, ``reference:float32``, ``tuned`` ..."""

    kind: str
    runtime: str = "auto"
    precision: str = "auto"

    def __str__(self) -> str:
        return ":".join([self.kind, *(one for one in (self.runtime, self.precision) if one != "auto")])


def parse_side(text: str) -> SideName:
    """Return the side that a text names.

    :raises InputError: if a part of it is unknown.
    """
    kind, *details = text.strip().lower().split(":")
    if kind not in KINDS:
        raise InputError(f"There is no side '{kind}'; use one of: {', '.join(KINDS)}.")
    runtimes = RUNTIMES if kind == OURS else ()
    precisions = {OURS: PRECISIONS, RIVAL: ()}.get(kind, _REFERENCE_PRECISIONS)
    found = {"runtime": "auto", "precision": "auto"}
    for one in details:
        part = "runtime" if one in runtimes and one != "auto" else "precision"
        if one not in (*runtimes, *precisions):
            known = ", ".join(dict.fromkeys((*runtimes, *precisions))) or "nothing"
            raise InputError(f"'{one}' in the side '{text}' is unknown; after '{kind}:' can come: {known}.")
        found[part] = one
    return SideName(kind, **found)


def parse_sides(text: str) -> tuple[SideName, ...]:
    """Return the sides of a list with commas, each once.

    :raises InputError: as :func:`parse_side`, or if there are none.
    """
    names = tuple(dict.fromkeys(parse_side(one) for one in text.split(",") if one.strip()))
    if not names:
        raise InputError(f"No side was named; use some of: {', '.join(KINDS)}.")
    return names
