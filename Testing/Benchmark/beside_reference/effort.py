"""How much of the network's work a measure needs on each side."""

from __future__ import annotations

from typing import Any

from beside_reference import scene as scenes
from beside_reference.sides import OURS, RIVAL
from beside_reference.work import NetworkWork, Work
from VISTA3DCore.inference.windows import WindowLayout, find_preset
from VISTA3DCore.network.config import ModelConfig


def effort_of(
    kind: str, measure: str, facts: dict[str, Any], config: ModelConfig, work: NetworkWork, classes: int
) -> Work | None:
    """Return the network's work of one run; None where it is not known or there is none.

    :param kind: of the side; :param facts: what it told of the run; :param classes: of "everything".
    """
    if kind == RIVAL:
        return None
    ours = kind == OURS
    if measure.startswith((scenes.CLICK, scenes.FIRST_CLICK)):
        if not ours:
            return work.reference_click * facts["windows_encoded"]
        encoding = work.first_click if facts["windows_encoded"] else work.click_cached
        return encoding * max(1, facts["windows_encoded"])
    if measure == scenes.WINDOW:
        return work.features if ours else work.reference_window(classes)
    if ours and measure == scenes.SECOND_CLASS:
        return None
    scored = classes if measure in (scenes.EVERYTHING, scenes.MEMORY) else 1
    one = work.features if ours else work.reference_window(scored)
    return one * len(WindowLayout(tuple(facts["model_shape"]), config.window, find_preset("bundle")).windows)
