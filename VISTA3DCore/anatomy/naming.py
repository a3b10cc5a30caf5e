"""Comparing names of structures: spelling variants, search ranking, suggestions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure

_SEPARATORS = re.compile(r"[\s_\-,/()]+")


def words(text: str) -> list[str]:
    """Return the lower-case words of a name; spaces, underscores and hyphens separate them."""
    return [word for word in _SEPARATORS.split(text.casefold()) if word]


def key(text: str) -> str:
    """Return the form under which a name is looked up, so that ``Left_Kidney`` and ``left kidney`` are one."""
    return "".join(words(text))


def rank(structure: Structure, query: list[str]) -> tuple[int, int, int] | None:
    """Return how well a structure fits the words of a search (smaller is better), or None if it does not.

    Every word of the query must begin some word of the names, synonyms, keywords or the code's meaning. A complete name
    comes first, then names that begin with the query, then its words anywhere in a name, then the rest; within each,
    whole words come before beginnings of words.
    """
    names, others = _vocabulary(structure)
    pool = {word for name in names + others for word in name}
    if not all(any(word.startswith(token) for word in pool) for token in query):
        return None
    return _tier(names, others, query), -sum(token in pool for token in query), structure.index


@lru_cache(maxsize=1024)
def _vocabulary(structure: Structure) -> tuple[list[list[str]], list[list[str]]]:
    """Return the words of the names, and those of synonyms, keywords and the meaning of the code."""
    meaning = [structure.type.meaning] if structure.type else []
    return (
        [words(structure.name), words(structure.display_name)],
        [words(name) for name in (*structure.synonyms, *structure.keywords, *meaning)],
    )


def _tier(names: list[list[str]], others: list[list[str]], query: list[str]) -> int:
    phrase = " ".join(query)
    if query in names + others:
        return 0
    if any(" ".join(name).startswith(phrase) for name in names):
        return 1
    own = {word for name in names for word in name}
    if all(any(word.startswith(token) for word in own) for token in query):
        return 2
    return 3


def closest(text: str, names: Iterable[tuple[str, str]], count: int = 3) -> list[str]:
    """Return up to ``count`` suggestions for a misspelt name.

    :param names: pairs of a name that may be meant and the name to suggest for it.
    """
    from difflib import get_close_matches

    suggestions = {" ".join(words(name)): suggestion for name, suggestion in names}
    matches = get_close_matches(" ".join(words(text)), suggestions, n=4 * count, cutoff=0.6)
    return list(dict.fromkeys(suggestions[match] for match in matches))[:count]
