# SPDX-License-Identifier: Apache-2.0
"""The effect's keys. They exist only while the effect is active.

Slicer's own, which must stay free (from its sources, 5.13):

==================================  ==================================================================================
``qMRMLSegmentEditorWidget``        ``1`` ... ``0``, ``Shift+1`` ... ``Shift+0``, ``Esc``, ``Space``, ``Z``, ``Y``,
                                    ``Ctrl+Z``, ``Ctrl+Y``, ``Ctrl+Shift+Z``, ``Q``, ``W``, ``/``, ``*``, ``,``, ``.``,
                                    ``<``, ``>``, ``I``
slice views                         arrows, ``F``, ``B``, ``V``, ``Shift+V``, ``R``, ``G``, ``T``, brackets, braces
3D views                            arrows (also with ``Shift``), ``+``, ``-``, ``R``, ``Home``, ``End``, ``Page Down``,
                                    ``Insert``, the number pad, ``Ctrl+B``; VTK: ``3``, ``E``, ``J``, ``P``, ``S``,
                                    ``T``, ``U``, ``W``
control points                      ``S``, ``Delete``, ``Shift+Delete``, ``Backspace``
main window                         ``Ctrl`` with ``O S W Z Y X C V F H 0 1 2 3 4 5 6 ` Left Right``,
                                    ``Ctrl+Shift+A``, ``Ctrl+Shift+T``, ``Ctrl+Shift+Space``
==================================  ==================================================================================

The letters of other extensions that are installed for the whole window (``P B S L T E R V``) are avoided as well: Qt
serves neither of two shortcuts with the same key.
"""

from __future__ import annotations

#: What a key does -> the key.
KEYS = {
    "positive": "A",
    "negative": "D",
    "suggest": "N",
    "unlock": "M",
}
