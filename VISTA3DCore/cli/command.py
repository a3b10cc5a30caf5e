"""Check the arguments of every command, and turn its errors into sentences and exit codes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from VISTA3DCore.cli.console import prepare_streams, print_error, unprintable
from VISTA3DCore.errors import Cancelled, OutputError, VistaError, runtime_errors
from VISTA3DCore.paths import expanded


class Command(TyperCommand):
    """Refuse arguments that would be ignored without a word, and replace ``~`` in paths."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_extra_args = True  # refused in parse_args, with a better sentence

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        :raises UsageError: also if an option that counts once is given twice, or arguments are left over.
        """
        given = list(args)
        rest = super().parse_args(ctx, args)
        _, _, order = self.make_parser(ctx).parse_args(given)
        for option, count in Counter(order).items():
            if (
                count > 1
                and option.param_type_name == "option"
                and not option.multiple
                and not getattr(option, "is_flag", False)
            ):
                ctx.fail(f"{option.opts[0]} is given {count} times, but only one can count; give it once.")
        if ctx.args:
            ctx.fail(_about_rest(ctx.args))
        ctx.params = {name: _expanded(value) for name, value in ctx.params.items()}
        return rest


class ErrorSentences:
    """Turn the exceptions of a command into one sentence on standard error and an exit code; a mixin."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, help and usage errors included."""
        prepare_streams()
        # About folders that it cannot write; it uses a temporary one then.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        try:
            return super().main(*args, **kwargs)  # type: ignore[misc] # of the class that this is mixed into
        except (OSError, OutputError) as error:  # of the parser's own texts; what commands print is caught in invoke
            refused = unprintable(error) if isinstance(error, OSError) else error
            print_error(sentence_for(refused))
            sys.exit(exit_code_for(refused))

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)  # type: ignore[misc]
        try:
            with _interrupt_when_terminated(), runtime_errors():
                return super().invoke(ctx)  # type: ignore[misc]
        except (KeyboardInterrupt, typer.Abort):
            error: Exception = Cancelled()
        except Exception as caught:
            if _belongs_to_parser(caught):
                raise
            error = caught
        print_error(sentence_for(error))
        raise typer.Exit(exit_code_for(error))


class CommandGroup(ErrorSentences, TyperGroup):
    """Hold the commands of the command line."""


@contextmanager
def _interrupt_when_terminated() -> Iterator[None]:
    """Let SIGTERM do what Ctrl+C does, so that temporary files and other processes do not stay behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def sentence_for(error: BaseException) -> str:
    """Return what to tell a person about an error."""
    if isinstance(error, VistaError):
        return str(error)
    kind = type(error).__name__
    return f"Unexpected error ({kind}: {error}); run 'vista3d --debug ...' to see where it comes from."


def exit_code_for(error: BaseException) -> int:
    """Return the exit code: the error's own, 1 for what nobody foresaw."""
    return error.exit_code if isinstance(error, VistaError) else 1


def _belongs_to_parser(error: Exception) -> bool:
    """Tell typer's own exceptions (typer carries its parser under different names from version to version)."""
    is_usage_error = callable(getattr(error, "show", None))
    is_closed_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
    return is_usage_error or is_closed_pipe or isinstance(error, typer.Exit)


def structure_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in options such as ``--classes``, split at commas.

    :raises BadParameter: if there are none.
    """
    names = tuple(name.strip() for text in texts for name in text.split(",") if name.strip())
    if not names:
        sentence = "No structure is named; give at least one, e.g. liver, or everything. See: vista3d classes"
        raise typer.BadParameter(sentence, param_hint="--classes")
    return names


def _about_rest(rest: Sequence[str]) -> str:
    """Say what to do with arguments that are left over: what a shell made of ``*``, or words of an unquoted name."""
    if all(os.path.exists(argument) for argument in rest):  # noqa: PTH110 - of a name that is too long, Path raises
        folder = Path(rest[0]).parent
        return (
            f"{len(rest) + 1} images are given, but only one can be used at a time; of a DICOM series, give the folder"
            f" ('{folder}')."
        )
    shown = " ".join(rest[:3]) + (" ..." if len(rest) > 3 else "")
    return f"'{shown}' belongs to no option; put names with spaces in quotes, and commas between them."


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return expanded(value)
    return [expanded(one) if isinstance(one, Path) else one for one in value] if isinstance(value, list) else value
