"""Comparisons: what is paired, and intervals that hold what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.comparison import bootstrap_interval, compare, comparison_markdown
from VISTA3DCore.evaluation.results import Row, results_csv
from VISTA3DCore.evaluation.summary import overall, per_structure


def _row(case: str, structure: str, dice: float | None, **more: object) -> Row:
    values = {
        "dataset": "d", "case": case, "structure": structure, "index": 1, "protocol": "auto", "variant": "honest",
        "outcome": "both", "dice": dice, "surface_dice": dice, "hd95_mm": 5.0, "volume_error": 0.1,
        "reference_ml": 10.0, "predicted_ml": 11.0,
    }  # fmt: skip
    return Row(**{**values, **more})


def _rows(cases: int, shift: float, seed: int = 0, structures: tuple[str, ...] = ("a", "b", "c")) -> list[Row]:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.6, 0.8, (cases, len(structures)))
    return [
        _row(f"case {n}", name, float(scores[n, m] + shift * rng.normal(1.0, 0.3)))
        for n in range(cases)
        for m, name in enumerate(structures)
    ]


def _dice(first: list[Row], second: list[Row]) -> object:
    return next(one for one in compare(first, second) if one.metric == "Dice")


def test_means_are_of_structures_not_of_rows() -> None:
    rows = [_row("1", "a", 1.0), _row("2", "a", 0.0, outcome="missed", hd95_mm=None), _row("1", "b", 0.9)]
    rows.append(_row("2", "b", None, outcome="invented", surface_dice=None, hd95_mm=None, volume_error=None))
    a, b = per_structure(rows)
    assert (a.cases, a.dice, a.missed, a.hd95_mm) == (2, 0.5, 1, 5.0)
    assert (b.cases, b.dice, b.invented) == (1, 0.9, 1)
    together = overall("d", rows)
    assert together.dice == pytest.approx(0.7)
    assert (together.cases, together.missed, together.invented) == (2, 1, 1)


def test_a_gain_is_seen_and_noise_is_not() -> None:
    first = _rows(20, 0.0)
    gain = _dice(first, [replace(row, dice=row.dice + 0.05) for row in first])
    assert (gain.mean, gain.low, gain.high) == tuple(pytest.approx(0.05) for _ in range(3))
    assert (gain.verdict, gain.cases, gain.structures) == ("better", 20, 3)
    assert _dice([replace(row, dice=row.dice + 0.05) for row in first], first).verdict == "worse"
    noise = np.random.default_rng(3).normal(0.0, 0.05, len(first))
    unsure = _dice(first, [replace(row, dice=row.dice + step) for row, step in zip(first, noise, strict=True)])
    assert unsure.low < unsure.mean < unsure.high
    assert unsure.verdict == "undecided"
    assert _dice(first, first).verdict == "undecided"


def test_lower_distances_are_better() -> None:
    first = _rows(20, 0.0)
    nearer = [replace(row, hd95_mm=4.0) for row in first]
    found = {one.metric: one.verdict for one in compare(first, nearer)}
    assert (found["HD95 (mm)"], found["Dice"]) == ("better", "undecided")


def test_few_cases_decide_nothing() -> None:
    first = _rows(5, 0.0)
    found = _dice(first, [replace(row, dice=row.dice + 0.1) for row in first])
    assert (found.low > 0, found.verdict) == (True, "undecided")


def test_only_what_both_measured_counts() -> None:
    first = [*_rows(3, 0.0), _row("lost", "a", 0.1), _row("case 0", "none", None)]
    second = [*_rows(3, 0.0), _row("new", "a", 0.9), _row("case 0", "none", None)]
    found = _dice(first, second)
    assert (found.cases, found.structures, found.mean) == (3, 3, 0.0)
    with pytest.raises(InputError, match="nothing in common"):
        compare(first, [replace(row, dataset="other") for row in second])
    with pytest.raises(InputError, match="twice"):
        compare([*first, first[0]], second)


def test_intervals_repeat_with_their_seed_and_are_those_of_scipy() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.1, (30, 1))
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    own = bootstrap_interval(values, seed=4)
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert own == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_intervals_draw_whole_cases() -> None:
    # Structures that go wrong together tell no more than one of them.
    of_cases = np.random.default_rng(2).normal(0.0, 0.1, (25, 1))
    alone, repeated = bootstrap_interval(of_cases), bootstrap_interval(np.repeat(of_cases, 40, axis=1))
    assert repeated == pytest.approx(alone)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(5), 0
    for number in range(200):
        values = rng.normal(0.0, 0.1, (20, 1)) + rng.normal(0.0, 0.05, (20, 4))
        values[rng.random((20, 4)) < 0.2] = np.nan
        low, high = bootstrap_interval(values, seed=number, resamples=400)
        held += low <= 0.0 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_the_comparison_as_markdown() -> None:
    first = _rows(4, 0.0)
    text = comparison_markdown(("before", "after"), first, [replace(row, dice=row.dice + 0.1) for row in first])
    assert "# after (B) against before (A)" in text
    assert "+0.100" in text
    assert "Fewer than 10 cases" in text
    assert text.count("| d, auto: ") == 3


def test_numbers_survive_the_csv() -> None:
    line = results_csv([_row("1", "a", 1 / 3)]).decode().splitlines()[1]
    assert ",0.333333," in line
