"""What can be asked of a model by name: the structures that it claims, and how the others are refused.

Needs neither torch nor the weights. Clicks are not limited by claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from VISTA3DCore.anatomy import naming
from VISTA3DCore.anatomy.catalogue import Catalogue, Request, catalogue
from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.errors import UnknownStructureError
from VISTA3DCore.models.claims import Claims
from VISTA3DCore.network.config import ModelConfig

_SIDES = {"left", "right"}
# How many structures a sentence names: instead of a refused one, and as left out of a group.
_NEAREST, _NAMED = 2, 4


@dataclass(frozen=True, eq=False)
class Offer:
    """The structures that a model offers.

    :param config: of the model. :param claims: of its file; None: everything that was trained is offered.
    """

    config: ModelConfig
    claims: Claims | None = None

    @cached_property
    def catalogue(self) -> Catalogue:
        """The label set that gives meaning to the indices."""
        return catalogue(self.config.label_set)

    @cached_property
    def trained(self) -> tuple[int, ...]:
        """Indices of the structures that the model was trained for."""
        if self.config.classes is not None:
            return self.config.classes
        return tuple(structure.index for structure in self.catalogue if structure.supported and not structure.is_group)

    @cached_property
    def available(self) -> tuple[int, ...]:
        """Indices of the structures that can be asked for: those claimed, or else all that were trained."""
        if self.claims is None:
            return self.trained
        claimed = set(self.claims.claimed)
        return tuple(index for index in self.trained if index in claimed)

    def resolve(self, request: Request | Iterable[Request]) -> tuple[Structure, ...]:
        """Return the structures to segment, in the order asked for and without duplicates.

        :param request: as for :meth:`Catalogue.resolve`; groups shrink to what is offered, see :meth:`left_out`.
        :raises UnknownStructureError: for unknown names, and for what is not offered: the sentence names all of it,
            what is nearest to it, and how to get the full model.
        """
        if self.claims is None:
            return self.catalogue.resolve(request, self.available)
        items = listed(request)
        wanted, refused = self.catalogue.resolve(items), {}
        for item in items:
            members = self.catalogue.resolve(item)
            if members and not any(map(self._offers, members)):
                refused[members] = item
        if refused:
            facts = {"model": self.config.name, "full_model": self.config.label_set}
            raise UnknownStructureError(self._refusal(refused), hint="use-full-model", facts=facts)
        return tuple(filter(self._offers, wanted))

    def left_out(self, request: Request | Iterable[Request]) -> list[str]:
        """Return a sentence for each group of a request whose members are not all offered because of the claims."""
        if self.claims is None:
            return []
        sentences = []
        for item in listed(request):
            members = self.catalogue.resolve(item)
            missing = [structure for structure in members if not self._offers(structure)]
            if len(missing) in (0, len(members)):
                continue
            names = ", ".join(structure.name for structure in missing)
            text = names if len(missing) <= _NAMED else f"{len(missing)} of {len(members)} structures"
            need = "it needs" if len(missing) == 1 else "they need"
            sentences.append(f"Left out of '{_name(item, members)}': {text}; {need} the full model.")
        return sentences

    def _offers(self, structure: Structure) -> bool:
        return structure.index in self.available

    def _refusal(self, refused: Mapping[tuple[Structure, ...], Request]) -> str:
        """Return why structures are not offered, and what is instead.

        :param refused: what was asked for, by the structures that it stands for.
        """
        what = [f"'{_name(item, members)}' ({self._shortfall(members)})" for members, item in refused.items()]
        nearest = dict.fromkeys(structure.name for members in refused for structure in self._nearest(members))
        offers = f"it offers {len(self.available)} other structures"
        if nearest:
            offers = f"nearest to {'it' if len(refused) == 1 else 'them'}, it offers {_joined(list(nearest))}"
        return f"The model '{{model}}' cannot segment {_joined(what)} well enough; {offers}"

    def _shortfall(self, members: tuple[Structure, ...]) -> str:
        """Return why structures are not claimed, in a few words."""
        if self.claims is None:
            return "not trained"
        if len(members) > 1:
            return f"none of its {len(members)} structures reaches a Dice of {self.claims.threshold:g}"
        claim = self.claims.structures.get(members[0].index)
        if claim is None:
            return "not validated" if members[0].index in self.trained else "not trained"
        return f"Dice {claim.dice:.2f} in validation" + (" on painted CTs" if claim.painted else "")

    def _nearest(self, members: tuple[Structure, ...]) -> list[Structure]:
        """Return what is offered of the same branch of the tree, or else under a similar name, the nearest first."""
        offered = [self.catalogue[index] for index in self.available]
        found: list[Structure] = []
        for wanted in members:
            related = [structure for structure in offered if structure.group == wanted.group]
            related = related or [structure for structure in offered if _shared_words(structure, wanted)]
            ranked = [(-_shared_words(near, wanted), abs(near.index - wanted.index), near.index) for near in related]
            found += [self.catalogue[index] for *_, index in sorted(ranked)]
        return list(dict.fromkeys(found))[:_NEAREST]


def listed(request: Request | Iterable[Request]) -> list[Request]:
    """Return the single requests of a request."""
    if isinstance(request, str | Structure) or not isinstance(request, Iterable):
        return [request]
    return list(request)


def _name(item: Request, members: Sequence[Structure]) -> str:
    """Return what a request is called in a sentence: a single structure by its name, a group as it was typed."""
    return members[0].name if len(members) == 1 else str(item)


def _joined(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _shared_words(structure: Structure, other: Structure) -> int:
    """Return how many words two names share, their sides apart."""
    return len({*naming.words(structure.name)} & {*naming.words(other.name)} - _SIDES)
