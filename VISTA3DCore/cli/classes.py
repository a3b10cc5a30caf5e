"""``vista3d classes``: what can be asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from VISTA3DCore.anatomy.catalogue import Catalogue, Structure
from VISTA3DCore.cli.console import print_json, say, show
from VISTA3DCore.errors import UnknownStructureError

if TYPE_CHECKING:
    from VISTA3DCore.models.claims import Claim
    from VISTA3DCore.models.offer import Offer


def classes(
    search: Annotated[
        str, typer.Option("--search", "-s", metavar="TEXT", help="Words of a name or synonym, e.g. 'hep', 'left kid'.")
    ] = "",
    group: Annotated[
        str, typer.Option("--group", "-g", metavar="GROUP", help="One branch of the tree, e.g. 'vessels', 'ribs'.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|FILE", help="Only what this model offers.")
    ] = "vista3d-ct",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the structures that can be segmented: index, name, group, synonyms.

    Wherever a structure is asked for, its index, its name or any synonym will do; upper and lower case, spaces,
    hyphens and underscores do not matter. The names of groups stand for all their members. Where a model carries the
    figures of its validation, they are listed: mean Dice (n patients), 'painted' if validated on painted CTs alone.

    **Examples**

    - `vista3d classes --search kidney`
    - `vista3d classes --group vessels`
    - `vista3d classes --model mini --json`
    """
    offer = offer_of(model)
    selected = _selected(offer.catalogue, search, group)
    structures = [structure for structure in selected if _is_offered(structure, offer)]
    if as_json:
        print_json([_as_dict(structure, _claim(structure, offer)) for structure in structures])
        return
    if structures:
        show(_table(offer, structures))
        say(_summary(offer.catalogue, structures))
    elif not selected:
        say(f"Nothing fits '{search or group}'; try fewer letters.")
    if offer.claims is not None and (more := _count_of_others(selected, offer)):
        need = "needs" if more == 1 else "need"
        say(f"{more} more {need} the full model: vista3d models download {offer.config.label_set}")


def offer_of(model: str) -> Offer:
    """Return what can be asked of a model by name; the network is not loaded.

    :raises ModelError: if that is stored in the model's file, and the file is not here or cannot be used.
    """
    from VISTA3DCore.models.claims import read_claims
    from VISTA3DCore.models.offer import Offer
    from VISTA3DCore.models.registry import REGISTRY
    from VISTA3DCore.models.store import ModelStore

    store = ModelStore()
    if model in REGISTRY and (config := REGISTRY[model].config) is not None:
        path = store.status(model).path
        return Offer(config, None if path is None else read_claims(path))
    path = store.resolve(model)
    from VISTA3DCore.models.checkpoints import inspect_checkpoint

    return Offer(inspect_checkpoint(path)[0], read_claims(path))


def _is_offered(structure: Structure, offer: Offer) -> bool:
    unlimited = offer.claims is None and offer.config.classes is None
    return unlimited or structure.index in offer.available


def _claim(structure: Structure, offer: Offer) -> Claim | None:
    return None if offer.claims is None else offer.claims.structures[structure.index]


def _count_of_others(structures: list[Structure], offer: Offer) -> int:
    return sum(not structure.is_group and structure.index not in offer.available for structure in structures)


def _selected(labels: Catalogue, search: str, group: str) -> list[Structure]:
    found = labels.search(search) if search else [structure for structure in labels if structure.supported]
    if not group:
        return found
    key = next((key for key, title in labels.group_titles.items() if group.lower() in (key, title.lower())), None)
    if key is None:
        raise UnknownStructureError(f"There is no group '{group}'; the groups are {', '.join(labels.group_titles)}.")
    return [structure for structure in found if structure.group == key]


def _as_dict(structure: Structure, claim: Claim | None) -> dict[str, Any]:
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
        "validation": None if claim is None else asdict(claim),
    }


def _table(offer: Offer, structures: list[Structure]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("index", justify="right", style="cyan", min_width=5)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("group", no_wrap=True)
    if offer.claims is not None:
        table.add_column("Dice (n)", no_wrap=True)
    table.add_column("synonyms and remarks", style="dim")
    for structure in structures:
        remarks = "; ".join(filter(None, [", ".join(structure.synonyms), _remark(offer.catalogue, structure)]))
        claim = _claim(structure, offer)
        figure = [] if claim is None else [_in_words(claim)]
        table.add_row(str(structure.index), structure.name, structure.group, *figure, escape(remarks))
    return table


def _in_words(claim: Claim) -> str:
    return f"{claim.dice:.2f} ({claim.cases}{' painted' if claim.painted else ''})"


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
