# SPDX-License-Identifier: Apache-2.0
"""Translation of text for users, also where Slicer's own is missing (tests below the application)."""

from __future__ import annotations

__all__ = ["tr"]

try:
    from slicer.i18n import tr
except ImportError:

    def tr(text: str) -> str:
        """Return the text as it is."""
        return text
