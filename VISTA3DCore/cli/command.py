"""What every command does with its arguments before it runs, beyond what the parser does."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from VISTA3DCore.paths import expanded


class Command(TyperCommand):
    """Refuses what would be ignored without a word, and replaces ``~`` in paths."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_extra_args = True  # refused in parse_args, with a better sentence

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        :raises UsageError: also if an option that counts once is given twice, or arguments are left over.
        """
        given = list(args)
        rest = super().parse_args(ctx, args)
        _, _, order = self.make_parser(ctx).parse_args(given)
        for option, count in Counter(order).items():
            if count > 1 and option.param_type_name == "option" and not option.multiple and not option.is_flag:
                ctx.fail(f"{option.opts[0]} is given {count} times, but only one can count; give it once.")
        if ctx.args:
            ctx.fail(_about_rest(ctx.args))
        ctx.params = {name: _expanded(value) for name, value in ctx.params.items()}
        return rest


def structure_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in options such as ``--classes``, split at commas.

    :raises BadParameter: if there are none.
    """
    names = tuple(name.strip() for text in texts for name in text.split(",") if name.strip())
    if not names:
        sentence = "No structure is named; give at least one, e.g. liver, or everything. See: vista3d classes"
        raise typer.BadParameter(sentence, param_hint="--classes")
    return names


def _about_rest(rest: Sequence[str]) -> str:
    """Say what to do with arguments that are left over: what a shell made of ``*``, or words of an unquoted name."""
    if all(os.path.exists(argument) for argument in rest):  # noqa: PTH110 - of a name that is too long, Path raises
        folder = Path(rest[0]).parent
        return (
            f"{len(rest) + 1} images are given, but only one can be used at a time; of a DICOM series, give the folder"
            f" ('{folder}')."
        )
    shown = " ".join(rest[:3]) + (" ..." if len(rest) > 3 else "")
    return f"'{shown}' belongs to no option; put names with spaces in quotes, and commas between them."


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return expanded(value)
    return [expanded(one) if isinstance(one, Path) else one for one in value] if isinstance(value, list) else value
