"""Write numbers and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], lines: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a Markdown table; the first columns, ``texts`` of them, are text, the others numbers."""
    marks = [*["---"] * texts, *["---:"] * (len(heads) - texts)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, marks, *lines))


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number for a table; a dash stands for none."""
    return "–" if value is None else format(value, form)
