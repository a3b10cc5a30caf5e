"""What the command line says: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

import VISTA3DCore

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_OUR_CODE = Path(VISTA3DCore.__file__).resolve().parent


def say(sentence: str, style: str = "") -> None:
    """Tell a person something; standard output stays clean for results."""
    err.print(Text(sentence, style=style), soft_wrap=True)


def print_error(sentence: str) -> None:
    say(sentence, "bold red")


def print_json(value: object) -> None:
    """Write a machine-readable result to standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


@contextmanager
def spoken_warnings() -> Iterator[list[str]]:
    """Print our own warnings as sentences, each once, and keep the technical ones of libraries silent.

    Yields the list in which the sentences collect.
    """
    spoken: list[str] = []

    def show(message: Warning | str, category: type[Warning], filename: str, *_: object) -> None:
        sentence = str(message)
        ours = issubclass(category, UserWarning) and _OUR_CODE in Path(filename).resolve().parents
        if ours and sentence not in spoken:
            spoken.append(sentence)
            say(f"Note: {sentence}", "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield spoken
