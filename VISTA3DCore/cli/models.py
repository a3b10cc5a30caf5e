"""``vista3d models``: which weights are here, get them, check them, remove them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from VISTA3DCore.cli.command import Command
from VISTA3DCore.cli.console import err, print_json, print_text, say, show, spoken_warnings
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.errors import Cancelled, LicenseNotAcceptedError

if TYPE_CHECKING:
    from VISTA3DCore.models.registry import RegistryEntry
    from VISTA3DCore.models.store import ModelStatus, ModelStore

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name, see 'vista3d models list'.")]
Accept = Annotated[bool, typer.Option("--accept-license", help="You have read the model's license and accept it.")]
AcceptBritish = Annotated[bool, typer.Option("--accept-licence", hidden=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback()
def models() -> None:
    """Models on this computer: list, download, import from a file, verify, delete, read the license.

    Weights are kept in your data folder, or where the environment variable VISTA3D_HOME points.

    **Examples**

    - `vista3d models list`
    - `vista3d models download vista3d-ct`
    - `vista3d models import /media/usb/model.safetensors --name vista3d-ct`
    """


@app.command("list", cls=Command)
def list_models(as_json: Json = False) -> None:
    """List every model that can be had, and what is on this computer."""
    store = _store()
    found = [(entry, store.status(entry.name)) for entry in store.entries()]
    if as_json:
        print_json([_as_dict(entry, status) for entry, status in found])
    else:
        show(_table(found))
        say(f"Models are kept in {store.home}.")


@app.command(cls=Command)
def download(name: Name, accept: Accept = False, accept_british: AcceptBritish = False) -> None:
    """Download a model; an interrupted download resumes where it stopped.

    The license is shown first and must be accepted: at the prompt, or with --accept-license in scripts.
    """
    store = _store()
    entry = store.entry(name)
    if entry.bundled:
        say(f"The model '{name}' is part of VISTA3D; there is nothing to download.")
        return
    if not (accept or accept_british):
        if not _is_interactive():
            raise LicenseNotAcceptedError(
                f"The model '{name}' comes under the {entry.licence}; read it with 'vista3d models license {name}', "
                "then repeat with --accept-license."
            )
        say(store.licence_text(name))
        _ask_acceptance(entry.licence)
    path = _watched(lambda progress: store.download(name, accept_licence=True, progress=progress))
    say(f"The model '{name}' is ready: {path}")


@app.command("import", cls=Command)
def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Weights: .safetensors or .pt.")],
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Which model it is, if the file does not say so.")
    ] = None,
    accept: Accept = False,
    accept_british: AcceptBritish = False,
) -> None:
    """Take a model from a file, without internet: checked, copied into the data folder, found by name from then on."""
    store = _store()

    def work(accepted: bool) -> ModelStatus:
        return _watched(lambda progress: store.import_file(file, name, accepted, progress))

    try:
        status = work(accept or accept_british)
    except LicenseNotAcceptedError as error:
        if not _is_interactive():
            raise
        say(str(error))
        _ask_acceptance("the model's license")
        status = work(True)
    say(f"The model '{status.name}' is ready ({status.detail}): {status.path}")


@app.command(cls=Command)
def verify(name: Name) -> None:
    """Compute a model's hash anew and compare it with the published one."""
    status = _watched(lambda progress: _store().verify(name, progress))
    say(f"The model '{name}' is intact: {status.detail}.")


@app.command(cls=Command)
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Remove a downloaded model from this computer."""
    store = _store()
    if not yes and _is_interactive() and store.status(name).size:
        size = store.status(name).size / 1e6
        typer.confirm(f"Delete the model '{name}' ({size:.0f} MB)?", abort=True, err=True)
    store.delete(name)
    say(f"The model '{name}' was deleted.")


@app.command("license", cls=Command)
@app.command("licence", cls=Command, hidden=True)
def print_license(name: Name) -> None:
    """Print a model's license."""
    print_text(_store().licence_text(name).rstrip())


def _store() -> ModelStore:
    from VISTA3DCore.models.store import ModelStore

    return ModelStore()


def _watched(work: Callable[[Any], Any]) -> Any:
    with spoken_warnings(), Reporter() as reporter:
        return work(reporter.progress)


def _is_interactive() -> bool:
    return sys.stdin.isatty() and err.is_terminal


def _ask_acceptance(license_name: str) -> None:
    """:raises Cancelled: if the user does not accept."""
    if not typer.confirm(f"Do you accept {license_name}?", err=True):
        raise Cancelled("The license was not accepted; nothing was downloaded or changed.")


def _as_dict(entry: RegistryEntry, status: ModelStatus) -> dict[str, Any]:
    about = {key: getattr(entry, key) for key in ("name", "title", "licence", "licence_url", "revision", "bundled")}
    facts = asdict(status)
    return {**about, **facts, "path": str(status.path) if status.path else None}


def _table(found: list[tuple[RegistryEntry, ModelStatus]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for title in ("what it is", "license", "remark"):
        table.add_column(title)
    for entry, status in found:
        color = "green" if status.path else "dim"
        table.add_row(entry.name, f"[{color}]{status.state}[/]", entry.title, entry.licence, escape(status.detail))
    return table
