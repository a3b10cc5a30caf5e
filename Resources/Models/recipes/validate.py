"""Measure a model on patients that it did not learn from, and turn the figures into its claims.

    python validate.py measure MODEL LIST.json FOLD FIGURES.json    # segments the patients of a fold
    python validate.py claim MODEL FIGURES.json                     # writes the claims into the model's file
    python validate.py check MODEL FIGURES.json                     # do the claims follow from the figures?
    python validate.py table MODEL                                  # the claims as a table for the card

A label map without a CT is painted, and counts only for structures that no real CT shows.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.models.claims import Claim, Claims, read_claims, with_claims

THRESHOLD = 0.5
_LEAST_ML = 0.5
"""Smaller remains of a structure at the border of a volume are not judged."""

_INVENTED_ML = 1.0
"""A structure of at least this size where a complete reference has none counts as a patient with Dice 0."""

_PAINTED_MM = 3.0
_SEED = 11


def measure(model: str, data: Path, fold: int) -> list[dict[str, Any]]:
    """Return the Dice of each structure in each patient of a fold.

    :param data: the data list that the model learned from, without this fold.
    """
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.training.cases import case_of

    segmenter = Segmenter.from_pretrained(model)
    cases = [case_of(item) for item in read_data_list(data).training if item.fold == fold]
    figures = []
    for case in cases:
        volume, label = _painted(case, segmenter.config) if case.image is None else _real(case)
        with warnings.catch_warnings(), segmenter.open(volume) as session:
            warnings.simplefilter("ignore")
            found = session.segment(list(segmenter.config.classes))
        masks = {one.index: found[one.name] for one in found.structures}
        dice = _dice(masks, label, case, float(np.prod(volume.spacing)) / 1000)
        figures.append({"case": case.name, "fold": fold, "painted": case.image is None, "dice": dice})
        print(f"{case.name}: mean Dice {np.mean(list(dice.values()) or [0]):.3f} of {len(dice)} structures", flush=True)
    return figures


def claims_of(figures: list[dict[str, Any]]) -> Claims:
    """Return what follows from the figures: means over patients, real ones wherever a structure has one."""
    values: dict[tuple[int, bool], list[float]] = defaultdict(list)
    for figure in figures:
        for index, dice in figure["dice"].items():
            values[int(index), figure["painted"]].append(dice)
    structures = {}
    for index in sorted({index for index, _ in values}):
        painted = (index, False) not in values
        found = values[index, painted]
        structures[index] = Claim(round(float(np.mean(found)), 4), len(found), painted)
    return Claims(THRESHOLD, structures)


def _real(case: Any) -> tuple[Any, np.ndarray]:
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.training.datasets import coded, label_volume, unions_of

    volume = Volume.read(case.image)
    labels = label_volume(case.label, volume, f"label of '{case.name}'")
    label = coded(labels.array, case.classes, unions_of(case.classes))
    if not np.allclose(labels.affine, volume.affine, atol=1e-2):
        raise SystemExit(f"The label of '{case.name}' is stored along other axes than its image.")
    return volume, label


def _painted(case: Any, config: Any) -> tuple[Any, np.ndarray]:
    """Return a CT painted from a label map, and the label map on its grid."""
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.training.datasets import load_case
    from VISTA3DCore.training.synthetic import SyntheticAnatomy

    grid = replace(config, spacing=(_PAINTED_MM,) * 3)
    patch = SyntheticAnatomy([load_case(case, grid, 1)], grid).whole(0, _SEED)
    low, high = config.intensity_range
    return Volume(patch.image * (high - low) + low, np.diag([*grid.spacing, 1.0])), patch.label


def _dice(masks: dict[int, np.ndarray], label: np.ndarray, case: Any, voxel_ml: float) -> dict[int, float]:
    """Return the Dice of each class that the case shows, and 0 for classes that are invented."""
    known, found = label != 255, {}
    annotated = {ids[0] for ids in case.classes.values() if len(ids) == 1}
    for index, mask in masks.items():
        reference, predicted = label == index, mask & known
        sizes = np.count_nonzero(reference), np.count_nonzero(predicted)
        if sizes[0] * voxel_ml >= _LEAST_ML and index in annotated:
            found[index] = round(2 * float(np.count_nonzero(reference & predicted)) / sum(sizes), 4)
        elif case.complete and not sizes[0] and sizes[1] * voxel_ml >= _INVENTED_ML:
            found[index] = 0.0
    return found


def table(claims: Claims) -> str:
    """Return the claims as a Markdown table, best first."""
    rows = sorted(claims.structures.items(), key=lambda row: -row[1].dice)
    lines = ["| Structure | Dice | patients | |", "|---|--:|--:|---|"]
    for index, claim in rows:
        notes = [*(["painted CTs only"] if claim.painted else []), *(["not claimed"] if claim.dice < THRESHOLD else [])]
        lines.append(f"| {catalogue()[index].name} | {claim.dice:.2f} | {claim.cases} | {', '.join(notes)} |")
    return "\n".join(lines)


def main(command: str, model: str, *rest: str) -> None:
    """Run one of the four commands."""
    if command == "table":
        print(table(read_claims(model)))
        return
    if command == "measure":
        data, fold, output = Path(rest[0]), int(rest[1]), Path(rest[2])
        kept = json.loads(output.read_text(encoding="utf-8")) if output.exists() else []
        figures = [one for one in kept if one["fold"] != fold] + measure(model, data, fold)
        output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        return
    claims = claims_of(json.loads(Path(rest[0]).read_text(encoding="utf-8")))
    if command == "claim":
        with_claims(model, claims)
    elif read_claims(model) != claims:
        raise SystemExit(f"The claims in '{model}' do not follow from '{rest[0]}'.")
    print(f"{len(claims.claimed)} of {len(claims.structures)} validated structures are claimed.")


if __name__ == "__main__":
    main(*sys.argv[1:])
