"""Write ``slicer_api_excerpt.json``: the facts about the classes of Slicer that the module uses.

VISTA3D_SLICER_API=slicer_api.json python Testing/extension/excerpt_slicer_api.py
"""

from __future__ import annotations

import json
import sys

from gui_code import used_classes
from slicer_facts import EXCERPT, excerpt_of, whole_list, written


def main() -> None:
    """Write the excerpt."""
    path = whole_list()
    if path is None:
        sys.exit("Set VISTA3D_SLICER_API to the file that describes all of Slicer's classes.")
    whole = json.loads(path.read_text(encoding="utf-8"))
    EXCERPT.write_text(written(excerpt_of(whole, used_classes())), encoding="utf-8")


if __name__ == "__main__":
    main()
