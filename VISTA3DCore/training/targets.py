"""What a prompt means in a label map: which voxels belong to it, which do not, and about which nothing is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.training.datasets import IGNORE, LabelMeaning

MERGED = {1: (25, 26), 4: (24,), 132: (57,)}
"""Structures whose ground truth contains others: liver with hepatic vessel and tumour, pancreas with its tumour,
airway with trachea (``MERGE_LIST`` of the reference, workflow_utils.py)."""

_BONES = 21


@dataclass(frozen=True, eq=False)
class Target:
    """What one prompt asks for in a patch.

    :param inside: bool [i, j, k].
    :param valid: bool [i, j, k]; the loss must leave the other voxels out. ``inside`` lies in it.
    """

    inside: np.ndarray
    valid: np.ndarray


def with_parts(members: Iterable[int]) -> frozenset[int]:
    """Return classes and everything that their ground truth contains: groups their members, liver its tumour."""
    found: set[int] = set()
    for member in members:
        found |= {member, *MERGED.get(member, ())}
        if member in catalogue() and catalogue()[member].is_group:
            found |= with_parts(catalogue()[member].members)
    return frozenset(found)


@cache
def hosts(lesion: int) -> frozenset[int]:
    """Return the structures in which a lesion lies, but to whose ground truth it may or may not belong.

    Lung lobes with a tumour, colon with a primary, bones with a lesion: datasets differ, so nothing is learned there.
    """
    bones = frozenset(catalogue()[_BONES].members) | {127}
    return {23: frozenset(range(28, 33)), 27: frozenset({62}), 128: bones}.get(lesion, frozenset())


def target_of(label: np.ndarray, members: Iterable[int], meaning: LabelMeaning) -> Target:
    """Return what a class or a union of classes is in a label map.

    A label that stands for a union of which only some are asked for is unknown, as is an object without class, since
    it may lie in what is asked for.

    :param label: [i, j, k] uint8 codes.
    :param members: the classes that are asked for.
    """
    wanted = with_parts(members)
    inside, valid = np.zeros(IGNORE + 1, bool), np.ones(IGNORE + 1, bool)
    valid[IGNORE] = False
    for code in np.flatnonzero(np.bincount(label.reshape(-1), minlength=IGNORE + 1)[:IGNORE]).tolist():
        inside[code], valid[code] = _place(code, wanted, meaning)
    return Target(inside[label], valid[label])


def _place(code: int, wanted: frozenset[int], meaning: LabelMeaning) -> tuple[bool, bool]:
    """Return whether a code lies inside what is wanted, and whether that is known."""
    found = set(meaning.members(code))
    if code == 0:
        return False, True
    if found and found <= wanted:
        return True, True
    ambiguous = not found or bool(found & wanted) or any(hosts(one) & wanted for one in found)
    return False, not ambiguous


def object_of(label: np.ndarray, code: int) -> Target:
    """Return an object without class in a label map."""
    return Target(label == code, label != IGNORE)
