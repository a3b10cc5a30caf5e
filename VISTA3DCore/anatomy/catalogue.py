"""The catalogue of structures: what the models' class numbers mean, and how people ask for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from operator import index as as_index
from typing import Any

from VISTA3DCore.anatomy import loading, naming
from VISTA3DCore.anatomy.structure import Code, Structure
from VISTA3DCore.errors import UnknownStructureError

__all__ = ["Catalogue", "Code", "Structure", "catalogue"]

_FILES = {"vista3d-ct": "structures.json", "vista3d-ctmr": "structures_ctmr.json"}
_EVERYTHING = ("everything", "all")

Request = str | int | Structure


def catalogue(name: str = "vista3d-ct") -> Catalogue:
    """Return a label set; it is read at the first call only.

    :param name: ``vista3d-ct`` (132 slots) or ``vista3d-ctmr`` (345 labels).
    :raises UnknownStructureError: if there is no such label set.
    """
    if name not in _FILES:
        raise UnknownStructureError(f"There is no label set '{name}'; choose one of {', '.join(_FILES)}.")
    return _read(name)


@cache
def _read(name: str) -> Catalogue:
    return Catalogue(name, *loading.load(_FILES[name]))


class Catalogue:
    """The structures of one label set, ordered by index."""

    def __init__(self, name: str, header: dict[str, Any], structures: tuple[Structure, ...]) -> None:
        self.name = name
        self.title: str = header["title"]
        self.structures = structures
        self.group_titles: dict[str, str] = header["groups"]
        self._by_index = {structure.index: structure for structure in structures}
        self._by_name = {naming.key(structure.name): structure for structure in structures}
        self._runs: dict[str, list[int]] = header["everything"]

    def __repr__(self) -> str:
        return f"Catalogue({self.name!r}, {len(self)} structures)"

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def __len__(self) -> int:
        return len(self.structures)

    def __contains__(self, item: object) -> bool:
        """Whether an index or an official name belongs to the set; unsupported slots do."""
        if isinstance(item, str):
            return naming.key(item) in self._by_name
        return item in self._by_index

    def __getitem__(self, item: int | str) -> Structure:
        """Return the structure with an index or an official name.

        :raises UnknownStructureError: if there is none.
        """
        if not isinstance(item, str):
            return self._at(item)
        if structure := self._by_name.get(naming.key(item)):
            return structure
        raise self._unknown(item)

    @cached_property
    def groups(self) -> dict[str, tuple[Structure, ...]]:
        """The supported structures by branch of the tree, in the order of :attr:`group_titles`."""
        members: dict[str, list[Structure]] = {key: [] for key in self.group_titles}
        for structure in self.structures:
            if structure.supported:
                members[structure.group].append(structure)
        return {key: tuple(found) for key, found in members.items() if found}

    @cached_property
    def runs(self) -> dict[str, tuple[Structure, ...]]:
        """The automatic runs that the model's authors defined, e.g. ``CT_BODY``; the first is "everything"."""
        return {key: tuple(self._by_index[index] for index in indices) for key, indices in self._runs.items()}

    @property
    def everything(self) -> tuple[Structure, ...]:
        """The structures of the default automatic run (117 for ``vista3d-ct``)."""
        return next(iter(self.runs.values()))

    def find(self, name: str | int) -> Structure:
        """Return the structure with an official name, display name, synonym or index.

        Case, spaces, underscores and hyphens do not matter; an index may be a string. Unsupported slots are found.

        :raises UnknownStructureError: with the closest suggestions.
        """
        if not isinstance(name, str):
            return self._at(name)
        if structure := self._lookup.get(naming.key(name)):
            return structure
        if name.strip().isdecimal():
            return self._at(int(name))
        raise self._unknown(name)

    def search(self, text: str) -> list[Structure]:
        """Return the supported structures that fit what was typed into a search box, best first.

        Each word must begin a word of the names, synonyms, keywords or the code's meaning; no text finds everything.
        """
        query = naming.words(text)
        ranked = [(naming.rank(structure, query), structure) for structure in self.structures if structure.supported]
        fitting = [(fit, structure) for fit, structure in ranked if fit is not None]
        return [structure for _, structure in sorted(fitting, key=lambda pair: pair[0])]

    def resolve(
        self, request: Request | Iterable[Request], available: Iterable[int] | None = None
    ) -> tuple[Structure, ...]:
        """Return the structures to segment, in the order asked for and without duplicates.

        A request is whatever :meth:`find` accepts, a structure, ``everything``, the key or title of a branch of the
        tree (``ribs``), the name of an automatic run (``MRI_BRAIN``), a name without its side (``iliopsoas``: both
        sides), or several of these. Groups such as ``kidney`` become their members.

        :param available: indices that the model knows, or None for all. Collective requests shrink to them.
        :raises UnknownStructureError: for unknown names, unsupported slots, a structure named explicitly that the
            model does not know, and collective requests of which it knows nothing.
        """
        known = None if available is None else frozenset(available)
        items = (request,) if isinstance(request, str | Structure) or not isinstance(request, Iterable) else request
        found: dict[int, Structure] = {}
        for item in items:
            found.update((structure.index, structure) for structure in self._expand(item, known))
        missing = [f"'{one.name}'" for one in found.values() if known is not None and one.index not in known]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise UnknownStructureError(
                f"{', '.join(missing)} {verb} not in this model; choose another structure or another model."
            )
        return tuple(found.values())

    def _expand(self, item: Request, known: frozenset[int] | None) -> list[Structure]:
        collective = self._collective(item) if isinstance(item, str) else None
        if collective is not None:
            return self._shrink(self._leaves(collective), known, str(item))
        structure = self[item.index] if isinstance(item, Structure) else self.find(item)
        self._require_supported(structure)
        if structure.is_group:
            return self._shrink(self._leaves([structure]), known, structure.name)
        return [structure]

    def _collective(self, text: str) -> Iterable[Structure] | None:
        """Return the structures that a collective name stands for, or None if it names a single one or nothing."""
        key = naming.key(text)
        if key in self._by_name:
            return None
        if key in self._collections:
            return self._collections[key]
        if key in self._lookup or text.strip().isdecimal():
            return None
        sides = [self._lookup.get(naming.key(f"{side} {text}")) for side in ("left", "right")]
        return [side for side in sides if side] if all(sides) else None

    def _leaves(self, structures: Iterable[Structure]) -> list[Structure]:
        """Replace groups by their members and leave unsupported slots out."""
        leaves = []
        for structure in structures:
            leaves += [self._by_index[index] for index in structure.members] or [structure]
        return [leaf for leaf in leaves if leaf.supported]

    @staticmethod
    def _shrink(structures: list[Structure], known: frozenset[int] | None, name: str) -> list[Structure]:
        kept = [structure for structure in structures if known is None or structure.index in known]
        if not kept:
            raise UnknownStructureError(
                f"This model knows none of the structures in '{name}'; choose others or another model."
            )
        return kept

    @staticmethod
    def _require_supported(structure: Structure) -> None:
        if not structure.supported:
            raise UnknownStructureError(
                f"The model has no trained weights for '{structure.name}' ({structure.index}); {structure.advice}."
            )

    def _at(self, index: int) -> Structure:
        try:
            return self._by_index[as_index(index)]
        except (KeyError, TypeError) as error:
            bounds = f"{self.structures[0].index} to {self.structures[-1].index}"
            raise UnknownStructureError(f"There is no structure number {index}; the numbers are {bounds}.") from error

    @cached_property
    def _collections(self) -> dict[str, Iterable[Structure]]:
        collections: dict[str, Iterable[Structure]] = dict.fromkeys(_EVERYTHING, self.everything)
        collections.update((naming.key(run), structures) for run, structures in self.runs.items())
        for key, structures in self.groups.items():
            collections[naming.key(key)] = collections[naming.key(self.group_titles[key])] = structures
        return collections

    @cached_property
    def _lookup(self) -> dict[str, Structure]:
        """Every name of every structure; official names win over display names, these over synonyms."""
        lookup = dict(self._by_name)
        for structure in self.structures:
            lookup.setdefault(naming.key(structure.display_name), structure)
        for structure in self.structures:
            for synonym in structure.synonyms:
                lookup.setdefault(naming.key(synonym), structure)
        return lookup

    def _several(self, text: str) -> list[str]:
        """Return the names in a text that separates them by anything but commas; nothing if it is not made of names."""
        if len(pieces := [piece.strip() for piece in re.split(r"[;|/+&]", text) if piece.strip()]) > 1:
            found = [self._named(piece.split()) for piece in pieces]
        else:
            found = [self._named([word for word in text.split() if word.lower() != "and"])]
        return [name for names in found for name in names] if all(found) and sum(map(len, found)) > 1 else []

    def _named(self, words: list[str]) -> list[str]:
        """Split words into names, the longest first; return nothing if that fails."""
        if not words:
            return []
        for count in range(len(words), 0, -1):
            name = " ".join(words[:count])
            is_index = name.isdecimal() and int(name) in self._by_index
            known = is_index or naming.key(name) in self._lookup or self._collective(name) is not None
            rest = self._named(words[count:]) if known else []
            if known and (rest or count == len(words)):
                return [name, *rest]
        return []

    def _unknown(self, name: str) -> UnknownStructureError:
        if several := self._several(name):
            separated = ", ".join(several)
            return UnknownStructureError(
                f"There is no structure called '{name}'; separate names by commas: {separated}"
            )
        names = [
            (spelling, structure.name)
            for structure in self.structures
            if structure.supported
            for spelling in (*structure.synonyms, structure.display_name, structure.name)
        ]
        names += [(key, key) for key in (*self.groups, _EVERYTHING[0])]
        suggestions = naming.closest(name, names) or [structure.name for structure in self.search(name)[:3]]
        quoted = " or ".join(f"'{suggestion}'" for suggestion in suggestions)
        hint = f"did you mean {quoted}?" if quoted else "search the list of structures for another name."
        return UnknownStructureError(f"There is no structure called '{name}'; {hint}")
