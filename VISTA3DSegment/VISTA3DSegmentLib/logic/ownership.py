# SPDX-License-Identifier: Apache-2.0
"""Which copy of the effect uses the click session.

All editors that show the same node activate their own copy of the effect at once, also the ones that are hidden, and
after the module was loaded anew the copies are of different classes. One of them works: the one that is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Owner(Protocol):
    """An editor's copy of the effect."""

    def is_seen(self) -> bool:
        """Whether its editor is on the screen."""

    def give_up(self) -> None:
        """Stop working at once, because another copy works from now on, or the session is closed."""


class Ownership:
    """Belongs to one copy at a time.

    :param in_use: whether the owner's work goes on; it may have been ended for it, e.g. because the scene was closed.
    """

    def __init__(self, in_use: Callable[[], bool]) -> None:
        self._in_use = in_use
        self._owner: Owner | None = None

    def claim(self, owner: Owner) -> bool:
        """Return whether a copy may work: one that works elsewhere and is seen keeps what it has."""
        other = self._owner
        if other is not None and other is not owner:
            if self._in_use() and other.is_seen():
                return False
            other.give_up()
        self._owner = owner
        return True

    def release(self, owner: Owner) -> bool:
        """Let a copy go; return whether it was the one that works."""
        was_owner = self._owner is owner
        if was_owner:
            self._owner = None
        return was_owner

    def dissolve(self) -> None:
        """Let the owner, if there is one, stop."""
        if self._owner is not None:
            self._owner.give_up()
