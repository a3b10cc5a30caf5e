"""What the protocols report, with stand-ins for a model where a real one would not show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.evaluation.clicking import Curve, honest, oracle_best_so_far, oracle_trials
from VISTA3DCore.evaluation.statistics import dice
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.progress import Progress

SHAPE = (24, 20, 18)
AFFINE = np.array([[-1.5, 0, 0, 30], [0, -1.5, 0, 20], [0, 0, 2.0, -50], [0, 0, 0, 1.0]])


def _box(*bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(*pair) for pair in bounds)] = True
    return mask


TARGET = _box((4, 20), (4, 16), (3, 15))


class Answers:
    """Gives prepared masks, one per call, and remembers what it was asked."""

    def __init__(self, *masks: np.ndarray) -> None:
        self.masks = list(masks)
        self.calls: list[tuple[object, list[Click], np.ndarray | None]] = []

    def click(self, structure: object, clicks: Sequence[Click], base: np.ndarray | None = None) -> SimpleNamespace:
        self.calls.append((structure, list(clicks), base))
        return SimpleNamespace(mask=self.masks[len(self.calls) - 1])


class Brush:
    """Paints 5 x 5 x 5 voxels at each positive click onto the base, and wipes as many at each negative one."""

    def click(self, _structure: object, clicks: Sequence[Click], base: np.ndarray | None = None) -> SimpleNamespace:
        mask = np.zeros(SHAPE, dtype=bool) if base is None else base.copy()
        for click in clicks:
            voxel = np.rint(apply_affine(np.linalg.inv(AFFINE), np.array(click.position))).astype(int)
            mask[tuple(slice(max(index - 2, 0), index + 3) for index in voxel)] = click.positive
        return SimpleNamespace(mask=mask)


HALF = _box((4, 12), (4, 16), (3, 15))
MOST = _box((4, 18), (4, 16), (3, 15))
EMPTY = np.zeros(SHAPE, dtype=bool)


def test_honest_reports_the_drop_and_the_oracle_hides_it() -> None:
    scores = [dice(mask, TARGET) for mask in (MOST, EMPTY, HALF)]
    told = honest(Answers(MOST, EMPTY, HALF), "liver", TARGET, AFFINE, clicks=3)
    assert told.dice == pytest.approx((0.0, *scores))
    best = oracle_best_so_far(Answers(MOST, EMPTY, HALF), "liver", TARGET, AFFINE, clicks=3)
    assert best.dice == pytest.approx((0.0, scores[0], scores[0], scores[0]))
    np.testing.assert_array_equal(told.mask, HALF)
    np.testing.assert_array_equal(best.mask, MOST)


def test_each_call_has_the_full_list_and_the_one_base() -> None:
    session, liver = Answers(MOST, HALF, MOST), catalogue()["liver"]
    curve = honest(session, liver, TARGET, AFFINE, base=HALF, clicks=3)
    assert [len(clicks) for _, clicks, _ in session.calls] == [1, 2, 3]
    assert session.calls[2][1] == list(curve.clicks)
    assert session.calls[0][1] == session.calls[2][1][:1]
    assert all(structure is liver and base is HALF for structure, _, base in session.calls)
    assert len(curve.clicks) == 3
    assert curve.mask is session.masks[2]
    assert len(curve.seconds) == 3
    assert all(seconds >= 0 for seconds in curve.seconds)


def test_clicks_answer_the_mask_shown() -> None:
    spilled = TARGET | _box((0, 24), (17, 20), (0, 18))
    curve = honest(Answers(spilled, TARGET, TARGET), "liver", TARGET, AFFINE, base=HALF, clicks=3)
    assert [click.positive for click in curve.clicks] == [True, False]


def test_a_perfect_mask_needs_no_more_clicks() -> None:
    session = Answers(TARGET)
    curve = honest(session, "liver", TARGET, AFFINE, clicks=4)
    assert curve.dice == (0.0, 1.0, 1.0, 1.0, 1.0)
    assert (len(curve.clicks), len(session.calls)) == (1, 1)
    untouched = honest(Answers(), "liver", TARGET, AFFINE, base=TARGET, clicks=2)
    assert (untouched.dice, len(untouched.clicks)) == ((1.0, 1.0, 1.0), 0)
    np.testing.assert_array_equal(untouched.mask, TARGET)


def test_new_objects_are_told_no_class() -> None:
    session = Answers(HALF, MOST)
    curve = honest(session, None, TARGET, AFFINE, clicks=2)
    assert [structure for structure, _, _ in session.calls] == [None, None]
    assert [base for _, _, base in session.calls] == [None, None]
    assert len(curve.clicks) == 2


def test_an_automatic_result_without_voxels_is_no_base() -> None:
    session = Answers(HALF)
    curve = honest(session, "liver", TARGET, AFFINE, base=EMPTY, clicks=1)
    assert session.calls[0][2] is None
    assert session.calls[0][1][0].positive
    assert curve.dice[0] == 0.0


def test_honest_clicks_mend_what_a_brush_can_mend() -> None:
    curve = honest(Brush(), "liver", TARGET, AFFINE, clicks=60)
    assert curve.dice[-1] > 0.8
    assert curve.dice[10] > curve.dice[1]


def test_best_so_far_looks_only_at_axial_slices_with_reference() -> None:
    beyond = _box((0, 24), (0, 20), (15, 18))
    session = Answers(TARGET | beyond)
    curve = oracle_best_so_far(session, "liver", TARGET, AFFINE, clicks=3)
    assert curve.dice == (0.0, 1.0, 1.0, 1.0)
    assert honest(Answers(TARGET | beyond), "liver", TARGET, AFFINE, clicks=1).dice[1] < 1.0


def test_trials_start_from_the_automatic_result_and_keep_only_what_helps() -> None:
    session = Answers(EMPTY, MOST, HALF)
    curve = oracle_trials(session, "liver", TARGET, AFFINE, base=HALF)
    half, most = dice(HALF, TARGET), dice(MOST, TARGET)
    assert curve.dice == pytest.approx((half, half, most, most))
    np.testing.assert_array_equal(curve.mask, MOST)
    kept = oracle_trials(Answers(EMPTY, EMPTY, EMPTY), "liver", TARGET, AFFINE, base=HALF)
    np.testing.assert_array_equal(kept.mask, HALF)
    assert all(base is HALF and len(clicks) == 1 for _, clicks, base in session.calls)
    assert all(click.positive for click in curve.clicks)


def test_trials_answer_a_spill_with_a_click_of_either_kind() -> None:
    spilled = TARGET | _box((0, 24), (16, 20), (0, 18))
    session = Answers(*[TARGET] * 3)
    oracle_trials(session, "liver", TARGET, AFFINE, base=spilled)
    assert [[click.positive for click in clicks] for _, clicks, _ in session.calls] == [[True], *[[True, False]] * 2]


def test_trials_need_a_base() -> None:
    with pytest.raises(InputError, match="automatic result"):
        oracle_trials(Answers(), "liver", TARGET, AFFINE)


SIMULATIONS = [honest, oracle_best_so_far, oracle_trials]


@pytest.mark.parametrize("simulate", SIMULATIONS)
def test_bad_input_is_one_sentence(simulate: Callable[..., Curve]) -> None:
    with pytest.raises(InputError, match="empty"):
        simulate(Answers(), "liver", EMPTY, AFFINE, base=HALF)
    with pytest.raises(InputError, match="grids differ"):
        simulate(Answers(), "liver", TARGET, AFFINE, base=HALF[1:])


@pytest.mark.parametrize("simulate", SIMULATIONS)
def test_protocols_repeat_with_their_seed_and_can_be_cancelled(simulate: Callable[..., Curve]) -> None:
    runs = [simulate(Brush(), "liver", TARGET, AFFINE, base=HALF, clicks=3, seed=4) for _ in range(2)]
    assert runs[0].dice == runs[1].dice
    assert runs[0].clicks == runs[1].clicks
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        simulate(Brush(), "liver", TARGET, AFFINE, base=HALF, progress=progress)
