"""``vista3d classes``: what can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from VISTA3DCore.anatomy.catalogue import Catalogue, Structure, catalogue
from VISTA3DCore.cli.console import out, print_json, say
from VISTA3DCore.errors import UnknownStructureError

if TYPE_CHECKING:
    from VISTA3DCore.network.config import ModelConfig


def classes(
    search: Annotated[
        str, typer.Option("--search", "-s", metavar="TEXT", help="Words of a name or synonym, e.g. 'hep', 'left kid'.")
    ] = "",
    group: Annotated[
        str, typer.Option("--group", "-g", metavar="GROUP", help="One branch of the tree, e.g. 'vessels', 'ribs'.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|FILE", help="Only what this model knows.")
    ] = "vista3d-ct",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the structures that can be segmented: index, name, group, synonyms.

    Wherever a structure is asked for, its index, its name or any synonym will do; upper and lower case, spaces,
    hyphens and underscores do not matter. The names of groups stand for all their members.

    **Examples**

    - `vista3d classes --search kidney`
    - `vista3d classes --group vessels`
    - `vista3d classes --model mini --json`
    """
    labels, available = label_set(model)
    structures = [s for s in _selected(labels, search, group) if available is None or s.index in available]
    if as_json:
        print_json([_as_dict(structure) for structure in structures])
    elif structures:
        out.print(_table(labels, structures))
        say(_summary(labels, structures))
    else:
        say(f"Nothing fits '{search or group}'; try fewer letters.")


def label_set(model: str) -> tuple[Catalogue, frozenset[int] | None]:
    """Return the catalogue of a model and the indices that it knows, None for all.

    :raises ModelError: if they are in the model's file, and that is not here or cannot be used.
    """
    config = _config(model)
    return catalogue(config.label_set), None if config.classes is None else frozenset(config.classes)


def _config(model: str) -> ModelConfig:
    from VISTA3DCore.network.registry import REGISTRY

    if model in REGISTRY and (config := REGISTRY[model].config) is not None:
        return config
    from VISTA3DCore.network.store import ModelStore

    path = ModelStore().resolve(model)
    from VISTA3DCore.network.checkpoints import inspect_checkpoint

    return inspect_checkpoint(path)[0]


def _selected(labels: Catalogue, search: str, group: str) -> list[Structure]:
    found = labels.search(search) if search else [structure for structure in labels if structure.supported]
    if not group:
        return found
    key = next((key for key, title in labels.group_titles.items() if group.lower() in (key, title.lower())), None)
    if key is None:
        raise UnknownStructureError(f"There is no group '{group}'; the groups are {', '.join(labels.group_titles)}.")
    return [structure for structure in found if structure.group == key]


def _as_dict(structure: Structure) -> dict[str, Any]:
    return {
        "index": structure.index,
        "name": structure.name,
        "display_name": structure.display_name,
        "group": structure.group,
        "laterality": structure.laterality,
        "synonyms": list(structure.synonyms),
        "in_everything": structure.in_everything,
        "overlapping": structure.overlapping,
        "members": list(structure.members),
        "color": list(structure.color),
    }


def _table(labels: Catalogue, structures: list[Structure]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("index", justify="right", style="cyan")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("group", no_wrap=True)
    table.add_column("synonyms and remarks", style="dim")
    for structure in structures:
        remarks = "; ".join(filter(None, [", ".join(structure.synonyms), _remark(labels, structure)]))
        table.add_row(str(structure.index), structure.name, structure.group, escape(remarks))
    return table


def _remark(labels: Catalogue, structure: Structure) -> str:
    if structure.is_group:
        members = [labels[index].name for index in structure.members]
        return "= " + (" + ".join(members) if len(members) <= 5 else f"{len(members)} structures")
    if not structure.in_everything:
        return "not in 'everything'" + (", overlaps others" if structure.overlapping else "")
    return ""


def _summary(labels: Catalogue, structures: list[Structure]) -> str:
    everything = sum(structure.in_everything for structure in structures)
    groups = ", ".join(labels.groups)
    return f"{len(structures)} structures, {everything} of them in 'everything'. Groups: {groups}."
