"""Nothing is timed that computes something else: every side's results beside the reference's in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beside_reference.sides import SideName


@dataclass(frozen=True)
class Tolerance:
    """:param logits: largest difference, relative to the largest logit; :param labels: least share of equal labels."""

    logits: float
    labels: float


#: By precision. float32: sums in another order; another runtime's kernels may be ten times as far off. The half types
#: round to 11 and 8 bits, and random weights, whose scores nearly tie everywhere, are the harshest case for labels:
#: what passes is right in kind, and the agreement that was measured stands beside the times.
TOLERANCES = {
    "float32": Tolerance(1e-3, 0.999),
    "float16": Tolerance(2e-2, 0.98),
    "bfloat16": Tolerance(1e-1, 0.90),
}


@dataclass(frozen=True)
class Agreement:
    """What a side's results are to the reference's.

    :param logits: largest difference of class logits, relative to the largest one; :param winners: share of voxels with
        the same best class; :param labels: share of equal labels after the whole chain; :param clicks: as ``logits``,
        for clicks. None where a side has nothing of the kind.
    :param refused: why the side must not be timed, or None.
    """

    logits: float | None = None
    winners: float | None = None
    labels: float | None = None
    clicks: float | None = None
    refused: str | None = None


def judge(name: SideName, precision: str, files: dict[str, str], truth: dict[str, str]) -> Agreement:
    """Compare what a side left behind with what the reference left behind.

    :param files: kind of result -> file, see ``gate`` of the sides; nothing to compare is no reason to refuse.
    """
    found: dict[str, float] = {}
    if "logits" in files:
        ours, theirs = np.load(files["logits"]), np.load(truth["logits"])
        found["logits"] = relative_difference(ours, theirs)
        found["winners"] = float(np.mean(ours.argmax(axis=0) == theirs.argmax(axis=0)))
    if "labels" in files:
        found["labels"] = equal_share(np.load(files["labels"]), np.load(truth["labels"]))
    if "clicks" in files:
        found["clicks"] = relative_difference(np.load(files["clicks"]), np.load(truth["clicks"]))
    refused = _reason(name, TOLERANCES[precision], found)
    return Agreement(**{kind: value for kind, value in found.items() if np.isfinite(value)}, refused=refused)


def relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference relative to the largest value; infinite for other shapes and what is not finite."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def equal_share(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the share of equal labels; 0 for other shapes."""
    return float(np.mean(ours == theirs)) if ours.shape == theirs.shape else 0.0


def _reason(name: SideName, tolerance: Tolerance, found: dict[str, float]) -> str | None:
    for kind, what in (("logits", "class logits"), ("clicks", "click logits")):
        if found.get(kind, 0.0) > tolerance.logits:
            return (
                f"the {what} of '{name}' differ from the reference's by {found[kind]:.2g} of the largest one; "
                f"{tolerance.logits:g} is allowed"
            )
    if found.get("labels", 1.0) < tolerance.labels:
        return (
            f"{100 * found['labels']:.2f} % of the labels of '{name}' equal the reference's; "
            f"at least {100 * tolerance.labels:g} % must"
        )
    return None
