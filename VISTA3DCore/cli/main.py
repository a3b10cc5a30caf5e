"""The command line ``vista3d``: parses, calls the engine, prints. Every error is one sentence and an exit code."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from VISTA3DCore import __version__
from VISTA3DCore.cli import (
    benchmark,
    classes,
    click,
    demo,
    doctor,
    evaluate,
    finetune,
    models,
    prepare,
    segment,
    supervoxels,
    train,
)
from VISTA3DCore.cli.command import Command
from VISTA3DCore.cli.console import prepare_streams, print_error, print_text, unprintable
from VISTA3DCore.errors import Cancelled, OutputError, VistaError, runtime_errors


class _Group(TyperGroup):
    """Turns exceptions of every command into one sentence on standard error."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, help and usage errors included."""
        prepare_streams()
        # About folders that it cannot write; it uses a temporary one then.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        try:
            return super().main(*args, **kwargs)
        except (OSError, OutputError) as error:  # of the parser's own texts; what commands print is caught in invoke
            refused = unprintable(error) if isinstance(error, OSError) else error
            print_error(sentence_for(refused))
            sys.exit(exit_code_for(refused))

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            with _tidied_up_when_terminated(), runtime_errors():
                return super().invoke(ctx)
        except (KeyboardInterrupt, typer.Abort):
            error: Exception = Cancelled()
        except Exception as caught:
            if _belongs_to_parser(caught):
                raise
            error = caught
        print_error(sentence_for(error))
        raise typer.Exit(exit_code_for(error))


@contextmanager
def _tidied_up_when_terminated() -> Iterator[None]:
    """Let SIGTERM do what Ctrl+C does, so that temporary files and other processes do not stay behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


app = typer.Typer(
    cls=_Group,
    name="vista3d",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 unexpected error, 2 wrong usage or unknown structure, 3 input, 4 model, 5 device, "
    "6 output, 130 cancelled.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"vista3d {__version__}")
        raise typer.Exit()


@app.callback()
def vista3d(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error.")] = False,
) -> None:
    """VISTA3D: a CT goes in, named structures come out.

    **First steps**

    - `vista3d demo`: a real CT, segmented and shown
    - `vista3d segment ct.nii.gz -o organs.seg.nrrd`: your own CT
    - `vista3d click ct.nii.gz --class liver --positive 42,-10,88 -o liver.seg.nrrd`: point at it, correct it
    - `vista3d classes --search kidney`: what can be asked for
    - `vista3d doctor`: what this computer can do
    """


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


app.command(cls=Command)(segment.segment)
app.command(cls=Command)(click.click)
app.command(cls=Command)(classes.classes)
app.add_typer(models.app, name="models")
app.add_typer(evaluate.app, name="evaluate")
app.command(cls=Command)(supervoxels.supervoxels)
app.command(cls=Command)(prepare.prepare)
app.command(cls=Command)(benchmark.benchmark)
app.command(cls=Command)(train.train)
app.command(cls=Command)(finetune.finetune)
app.command(cls=Command)(demo.demo)
app.command(cls=Command)(doctor.doctor)
