"""What the command line says: results to standard output, everything else to standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import VISTA3DCore
from VISTA3DCore.errors import OutputError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_OUR_CODE = Path(VISTA3DCore.__file__).resolve().parent


def prepare_streams() -> None:
    """Let every console show what it can: a letter that its encoding lacks becomes ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in {"strict", "surrogateescape"} and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(sentence: str, style: str = "") -> None:
    """Tell a person something; standard output stays clean for results, and no result depends on it."""
    with suppress(OSError):
        err.print(Text(sentence, style=style), soft_wrap=True)


def show(content: Any, **options: Any) -> None:
    """Print a result for people, such as a table.

    :raises OutputError: if standard output takes no more.
    """
    with _printing():
        out.print(content, **options)


def print_text(text: str) -> None:
    """Print text as it is.

    :raises OutputError: if standard output takes no more.
    """
    with _printing():
        if sys.stdout is not None:
            sys.stdout.write(text + "\n")


@contextmanager
def _printing() -> Iterator[None]:
    """Write everything out at once, so that a full disk is noticed and told here."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has seen enough; the parser ends the program
            raise
        raise unprintable(error) from error


def unprintable(error: OSError) -> OutputError:
    """Return the sentence for what standard output refuses, and see to it that it is not tried again at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OutputError(
        f"Standard output cannot be written ({error.strerror or error}); files that were asked for are complete."
    )


def print_error(sentence: str) -> None:
    say(sentence, "bold red")


def print_json(value: object) -> None:
    """Write a machine-readable result to standard output.

    :raises OutputError: if that takes no more.
    """
    print_text(json.dumps(value, indent=2))


@contextmanager
def spoken_warnings() -> Iterator[list[str]]:
    """Print our own warnings as sentences, each once, and keep the technical ones of libraries silent.

    Yields the list in which the sentences collect.
    """
    spoken: list[str] = []

    def print_warning(message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:
        sentence = str(message)
        ours = issubclass(category, UserWarning) and _OUR_CODE in Path(filename).resolve().parents
        if ours and sentence not in spoken:
            spoken.append(sentence)
            say(f"Note: {sentence}", "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = print_warning
        yield spoken
