"""Results in mid-run: which of them are worth sending."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from VISTA3DCore.imaging.segmentation import Partial

# The first one comes at once. Then there is a pause of so many seconds, or of so many times what sending took.
_PAUSE_S = 2.0
_PAUSE_SHARE = 20.0


class Growing:
    """Sends what is known of a result, seldom enough to hold a run up by a twentieth at most.

    :param send: returns when the result as it is then is written.
    """

    def __init__(self, send: Callable[[Partial], None]) -> None:
        self._send = send
        self._next = 0.0

    def __call__(self, part: Partial) -> None:
        """Send a partial result, or let it pass."""
        started = time.monotonic()
        if started >= self._next:
            self._send(part)
            now = time.monotonic()
            self._next = now + max(_PAUSE_S, _PAUSE_SHARE * (now - started))
