# SPDX-License-Identifier: Apache-2.0
"""What the list of structures shows and which are chosen, without widgets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from VISTA3DCore.anatomy.catalogue import Catalogue, Structure, catalogue

from ..i18n import tr as _
from ..mrml.segments import structure_of
from ..mrml.sight import seen_segments
from .signals import Signal

if TYPE_CHECKING:
    import slicer

    from VISTA3DCore.engine.protocol import ClaimsInfo

    from .settings import Settings

NONE, SOME, ALL = "none", "some", "all"


@dataclass(frozen=True)
class Group:
    """A branch of the tree.

    :param key: of the catalogue's group, or ``favorites``, ``recent``.
    """

    key: str
    title: str
    structures: tuple[Structure, ...]


class StructureChoice:
    """The structures of one label set: groups, search, favorites, and which are checked.

    Signals: ``changed()`` other structures are checked; ``listed()`` the tree itself is another one (label set, what
    the model knows, favorites, recent ones).

    :param settings: where favorites and recent structures are kept.
    """

    def __init__(self, settings: Settings, label_set: str = "vista3d-ct") -> None:
        self.changed, self.listed = Signal(), Signal()
        self._settings, self._catalogue = settings, catalogue(label_set)
        self._available: frozenset[int] | None = None
        self._claims: ClaimsInfo | None = None
        self._checked: frozenset[int] = frozenset()

    @property
    def catalogue(self) -> Catalogue:
        """The label set."""
        return self._catalogue

    def use_model(self, label_set: str, available: Iterable[int] | None, claims: ClaimsInfo | None = None) -> None:
        """Show what a model offers; what it does not offer is checked no more.

        :param available: indices of the catalogue, as the engine's ``load`` returns them; None: not known yet.
        :param claims: the figures of the model's validation, likewise; None: nothing is recorded.
        """
        available = None if available is None else frozenset(available)
        if (label_set, available, claims) == (self._catalogue.name, self._available, self._claims):
            return
        same = label_set == self._catalogue.name
        self._catalogue, self._available, self._claims = catalogue(label_set), available, claims
        self.listed()
        self.check_only(self._checked if same else ())

    # The tree

    def groups(self) -> list[Group]:
        """Return the branches: favorites and recent ones, where there are any, then the catalogue's.

        Structures that cannot be chosen are in their branches too, see :meth:`reason`; combined ones (``kidney``) are
        not: their members are.
        """
        special = [
            Group("favorites", _("Favorites"), self._known(sorted(self._settings.favorites(self._catalogue.name)))),
            Group("recent", _("Last used"), self._known(self._settings.recent(self._catalogue.name))),
        ]
        titles = self._catalogue.group_titles
        members: dict[str, list[Structure]] = {key: [] for key in titles}
        for structure in self._catalogue:
            if not structure.is_group:
                members[structure.group].append(structure)
        branches = [Group(key, _(titles[key]), tuple(found)) for key, found in members.items()]
        return [group for group in (*special, *branches) if group.structures]

    def search(self, text: str) -> list[Structure]:
        """Return the structures that fit what was typed (names, synonyms, SNOMED meanings), the best first.

        A combined one (``kidney``) gives its members.
        """
        found: dict[int, Structure] = {}
        for structure in self._catalogue.search(text):
            for index in structure.members or (structure.index,):
                found.setdefault(index, self._catalogue[index])
        return list(found.values())

    def reason(self, structure: Structure) -> str | None:
        """Return why a structure cannot be chosen, a sentence; None if it can."""
        refusal = self._refusal(structure)
        return None if refusal is None else refusal[1]

    def group_reason(self, group: Group) -> str | None:
        """Return why nothing in a branch can be chosen, one or more sentences; None if something can."""
        reasons = [self.reason(structure) for structure in group.structures]
        return None if None in reasons else " ".join(dict.fromkeys(reasons))

    def row(self, structure: Structure) -> str:
        """Return a structure's name as the list shows it: with a few words if it cannot be chosen."""
        refusal = self._refusal(structure)
        name = structure.display_name
        return name if refusal is None else _("{name} ({why})").format(name=name, why=refusal[0])

    def search_note(self, text: str) -> str | None:
        """Return a sentence about a search that finds nothing, or nothing that can be chosen; None for all others."""
        found = self.search(text) if text.strip() else []
        if any(self.reason(structure) is None for structure in found) or not text.strip():
            return None
        if found:
            return f"{found[0].display_name}: {self.reason(found[0])}"
        sentence = _("No structure is called '{text}'. What has no name here can be segmented with clicks, see Refine.")
        return sentence.format(text=text.strip())

    def _refusal(self, structure: Structure) -> tuple[str, str] | None:
        """Return why a structure cannot be chosen, in a few words and in a sentence; None if it can."""
        if not structure.supported:
            words, advice = _("not available"), structure.advice
            if not advice:
                return words, _("The model was not trained for this.")
            return words, _("The model was not trained for this; {advice}.").format(advice=advice)
        if self._available is None or structure.index in self._available:
            return None
        if self._claims is not None:
            return _("full model only"), _("This needs the full model, see Setup.")
        return _("not in this model"), _("The chosen model does not know this structure; another model may.")

    def tooltip(self, structure: Structure) -> str:
        """Return what a structure is: its names and code, and why it cannot be chosen if so."""
        lines = [structure.display_name]
        if structure.synonyms:
            lines.append(_("Also: {names}").format(names=", ".join(structure.synonyms)))
        if structure.type is not None:
            lines.append(f"{structure.type.meaning} ({structure.type.scheme} {structure.type.value})")
        if structure.overlapping:
            lines.append(_("May overlap other structures; it gets a layer of its own."))
        lines += self._figure(structure)
        return "\n".join([*lines, *filter(None, [self.reason(structure)])])

    def _figure(self, structure: Structure) -> list[str]:
        """Return a line with the figure of the chosen model's validation, or none."""
        claim = None if self._claims is None else self._claims.structures.get(str(structure.index))
        if claim is None:
            return []
        text = _("The chosen model's Dice in validation: {dice:.2f} ({cases} patients).")
        if claim.painted:
            text = _("The chosen model's Dice in validation: {dice:.2f} ({cases} patients, painted CTs alone).")
        return [text.format(dice=claim.dice, cases=claim.cases)]

    def is_favorite(self, structure: Structure) -> bool:
        """Whether a structure is a favorite."""
        return structure.index in self._settings.favorites(self._catalogue.name)

    def toggle_favorite(self, index: int | None) -> None:
        """Make a structure a favorite, or one no longer; None, which stands for a branch, changes nothing."""
        if index is not None:
            self.set_favorite(self._catalogue[index], not self.is_favorite(self._catalogue[index]))

    def set_favorite(self, structure: Structure, favorite: bool) -> None:
        """Make a structure a favorite, or no longer."""
        self._settings.set_favorite(self._catalogue.name, structure.index, favorite)
        self.listed()

    # The choice

    @property
    def checked(self) -> tuple[int, ...]:
        """Indices of the checked structures, in the catalogue's order."""
        return tuple(structure.index for structure in self._catalogue if structure.index in self._checked)

    def is_checked(self, structure: Structure) -> bool:
        """Whether a structure is checked."""
        return structure.index in self._checked

    def check(self, indices: Iterable[int], on: bool = True) -> None:
        """Check structures, or uncheck them; those that cannot be chosen stay unchecked."""
        wanted = frozenset(indices)
        self._take(self._checked | wanted if on else self._checked - wanted)

    def check_only(self, indices: Iterable[int]) -> None:
        """Check these and no others, e.g. those of a saved scene."""
        self._take(frozenset(indices))

    def check_group(self, group: Group, on: bool = True) -> None:
        """Check everything in a branch that can be chosen, or uncheck it."""
        self.check((structure.index for structure in group.structures), on)

    def check_everything(self) -> None:
        """Check what the model's authors call "everything", as far as the model knows it."""
        self.check_only(structure.index for structure in self._catalogue.everything)

    def check_in_view(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode | None,
        slice_nodes: Iterable[slicer.vtkMRMLSliceNode],
    ) -> bool:
        """Check what the slice views show of a result; where they show nothing of it, check everything.

        :return: whether a result was seen; if not, the run should be limited to the views, see
            :func:`VISTA3DSegmentLib.logic.regions.view_box`.
        :raises InputError: if the segmentation has a transform that cannot be used.
        """
        seen = structures_in_view(segmentation_node, slice_nodes, self._catalogue)
        if any(map(self._can_be_checked, seen)):
            self.check_only(seen)
            return True
        self.check_everything()
        return False

    def clear(self) -> None:
        """Check nothing."""
        self.check_only(())

    def state_of(self, group: Group) -> str:
        """Return whether all, some or none of a branch are checked, of those that can be."""
        choosable = [structure.index for structure in group.structures if self.reason(structure) is None]
        count = sum(index in self._checked for index in choosable)
        if count == 0:
            return NONE
        return ALL if count == len(choosable) else SOME

    def note_use(self) -> None:
        """Remember the checked structures as recent ones, unless they are nearly everything."""
        if len(self._checked) < len(self._catalogue.everything) // 2:
            self._settings.note_recent(self._catalogue.name, self.checked)
            self.listed()

    # In words

    def chips(self, most: int = 6) -> list[Structure]:
        """Return the checked structures if they are few enough to be shown one by one, else none."""
        return [self._catalogue[index] for index in self.checked] if len(self._checked) <= most else []

    def summary(self) -> str:
        """Return the choice in a few words."""
        count = len(self._checked)
        if count == 0:
            return _("Choose structures")
        choosable = (one.index for one in self._catalogue.everything if self.reason(one) is None)
        if self._checked == frozenset(choosable):
            return _("Everything ({count} structures)").format(count=count)
        if count <= 2:
            return ", ".join(self._catalogue[index].display_name for index in self.checked)
        return _("{count} structures").format(count=count)

    def _take(self, indices: frozenset[int]) -> None:
        kept = frozenset(index for index in indices if self._can_be_checked(index))
        if kept != self._checked:
            self._checked = kept
            self.changed()

    def _can_be_checked(self, index: int) -> bool:
        if index not in self._catalogue:
            return False
        structure = self._catalogue[index]
        return not structure.is_group and self.reason(structure) is None

    def _known(self, indices: Iterable[int]) -> tuple[Structure, ...]:
        return tuple(self._catalogue[index] for index in indices if index in self._catalogue)


def structures_in_view(
    segmentation_node: slicer.vtkMRMLSegmentationNode | None,
    slice_nodes: Iterable[slicer.vtkMRMLSliceNode],
    label_set: Catalogue,
) -> tuple[int, ...]:
    """Return the indices of the structures that slice views show of a segmentation; none if there is none.

    :raises InputError: if the segmentation has a transform that cannot be used.
    """
    if segmentation_node is None:
        return ()
    seen = seen_segments(segmentation_node, slice_nodes)
    found = (structure_of(segmentation_node, segment_id, label_set) for segment_id in seen)
    return tuple(dict.fromkeys(structure.index for structure in found if structure is not None))
