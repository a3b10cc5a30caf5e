# SPDX-License-Identifier: Apache-2.0
"""One change of the clicks that waits for its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..mrml.clicks import ClickList, Edit

if TYPE_CHECKING:
    from .clicked_segment import State
    from .engine import Pending


@dataclass(eq=False)
class Change:
    """A change that the user asked for.

    :param structure: what is clicked from now on, in a tuple: None there is an object without a name; no tuple: as is.
    :param started: when it was asked for, seconds of ``time.perf_counter``.
    :param pending: what it waits for.
    :param state: the segment as it was when the engine was asked.
    :param wanted: the clicks that the engine was asked about.
    """

    edit: Edit = field(default_factory=Edit)
    structure: tuple[int | None] | None = None
    started: float = field(default_factory=time.perf_counter)
    pending: Pending | None = None
    state: State | None = None
    wanted: ClickList = field(default_factory=ClickList)

    def apply(self, click_list: ClickList) -> ClickList:
        """Return the clicks as they are after the change."""
        changed = click_list.apply(self.edit)
        return changed if self.structure is None else replace(changed, structure=self.structure[0])

    @property
    def needs_engine(self) -> bool:
        """Whether the result can be another one than the base of :attr:`wanted`."""
        clicks = self.wanted.clicks
        if len(clicks) == self.wanted.settled:
            return False
        # Who deletes the last positive click of a new object wants nothing left. Whoever does something else that needs
        # one hears it from the engine.
        emptied = self.wanted.base_empty and not any(click.positive for click in clicks)
        only_deletes = not self.edit.added and all(new is None for _old, new in self.edit.replaced)
        return not (emptied and only_deletes)

    @property
    def removes_from_nothing(self) -> bool:
        """Whether :attr:`wanted` can only remove, and there is nothing to remove from."""
        counting = self.wanted.clicks[self.wanted.settled :]
        return self.needs_engine and self.wanted.base_empty and not any(click.positive for click in counting)

    @property
    def waited_ms(self) -> float:
        """How long the user has been waiting."""
        return 1000 * (time.perf_counter() - self.started)
