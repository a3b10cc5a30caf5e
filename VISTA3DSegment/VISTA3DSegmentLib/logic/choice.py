# SPDX-License-Identifier: Apache-2.0
"""What the user has chosen to compute clicks with."""

from __future__ import annotations

from dataclasses import dataclass

from VISTA3DCore.anatomy.catalogue import Catalogue


@dataclass(frozen=True)
class Choice:
    """What clicks are computed with.

    :param model, device: as the engine's ``open`` takes them.
    :param label_set: the catalogue that the model's structures belong to.
    """

    model: str
    device: str
    label_set: Catalogue
