"""Each protocol against an independent account of what it should do, on a network of random weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from evaluation_cases import paint_case

from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.evaluation import windowed
from VISTA3DCore.evaluation.cases import OpenCase
from VISTA3DCore.evaluation.protocols import PROTOCOLS
from VISTA3DCore.evaluation.references import Reference
from VISTA3DCore.evaluation.settings import PROTOCOL_VARIANTS, Settings
from VISTA3DCore.evaluation.simulation import center_click
from VISTA3DCore.evaluation.statistics import dice
from VISTA3DCore.imaging.resampling import restore_nearest
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.inference.windows import gaussian_weights
from VISTA3DCore.network.click_head import ClickTokens
from VISTA3DCore.progress import Progress

NAMES = ("liver", "spleen", "right kidney")


@pytest.fixture
def case(tiny_segmenter: Segmenter) -> Iterator[OpenCase]:
    volume, labels = paint_case()
    reference = Reference([labels], None, tiny_segmenter.catalogue)
    targets = reference.targets(["everything"], tiny_segmenter.available)
    opened = OpenCase(
        tiny_segmenter, volume, reference, targets, [], reference.objects(["everything"]), Settings(clicks=3)
    )
    yield opened
    opened.close()


def _masks(case: OpenCase, protocol: str, variant: str) -> dict[str, np.ndarray]:
    return {result.target.name: result.mask for result in PROTOCOLS[protocol][variant](case, Progress())}


def _restored(case: OpenCase, mask: np.ndarray) -> np.ndarray:
    return restore_nearest(mask, case.session.model_grid[1], case.affine, case.shape)


def test_the_case_has_several_windows(case: OpenCase) -> None:
    assert len(windowed._Windows(case).layout.windows) >= 4
    assert {target.name for target in case.targets} == set(NAMES)


def test_auto_is_what_segment_gives(case: OpenCase) -> None:
    segmentation = case.session.segment(NAMES, "paper", "smooth")
    for name, mask in _masks(case, "auto", "honest").items():
        np.testing.assert_array_equal(mask, segmentation[name])


def test_auto_of_the_paper_lets_each_structure_stand_for_itself(case: OpenCase) -> None:
    masks = _masks(case, "auto", "paper")
    assert set(masks) == set(NAMES)
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, _restored(case, case.session.scores(name, "paper") > 0))


def test_point_clicks_once_in_the_middle(case: OpenCase) -> None:
    for name, mask in _masks(case, "point", "honest").items():
        target = next(one for one in case.targets if one.name == name)
        click = center_click(case.mask(target), case.affine)
        np.testing.assert_array_equal(mask, case.session.click(name, [click]).mask)


def test_point_of_the_paper_clicks_in_every_window_that_holds_a_part(case: OpenCase) -> None:
    windows, backend = windowed._Windows(case), case.segmenter.backend
    layout, image = windows.layout, case.session.model_grid[0]
    assert layout.padded_shape == tuple(max(size, 32) for size in image.shape)
    target = next(one for one in case.targets if one.name == "liver")
    on_model = np.flip(case.mask(target), (0, 1))  # both grids have 12 mm; the model's is in RAS order
    whole = np.pad(image, [(before, size - before - full) for before, size, full in _padding(layout)])
    inside = np.pad(on_model, [(before, size - before - full) for before, size, full in _padding(layout)])
    sums, total, clicks = np.zeros(whole.shape), np.zeros(whole.shape), 0
    weights = gaussian_weights(layout.window).numpy()
    for start in layout.windows:
        box = tuple(slice(first, first + 32) for first in start)
        scores = np.full((32, 32, 32), -9999.0)
        if inside[box].any():
            voxel = tuple(np.rint(center_click(inside[box], np.eye(4)).position))
            features = backend.click_features(torch.from_numpy(whole[box].copy())[None, None]).half()
            scores = backend.click_scores(features, ClickTokens((voxel,), (True,))).numpy()
            clicks += 1
        sums[box] += weights * scores
        total[box] += weights
    place = tuple(slice(before, before + size) for before, size in zip(layout.pad_before, layout.shape, strict=True))
    (result,) = (one for one in PROTOCOLS["point"]["paper"](case, Progress()) if one.target.name == "liver")
    expected = _restored(case, (sums / total)[place] > 0)
    assert result.clicks == clicks > 0
    assert np.mean(result.mask != expected) < 1e-4  # rounding where the score is almost 0


def _padding(layout: object) -> list[tuple[int, int, int]]:
    return list(zip(layout.pad_before, layout.padded_shape, layout.shape, strict=True))


def test_auto_and_point_corrects_the_automatic_result(case: OpenCase) -> None:
    results = list(PROTOCOLS["auto+point"]["honest"](case, Progress()))
    assert {result.target.name for result in results} == set(NAMES)
    for result in results:
        mask = case.mask(result.target)
        assert result.curve[0] == pytest.approx(dice(case.automatic[0][result.target.name], mask) or 0.0)
        assert result.curve[-1] == pytest.approx(dice(result.mask, mask) or 0.0)
        assert (len(result.curve), result.clicks <= 3) == (4, True)


def test_trials_of_the_paper_keep_what_raises_the_window(case: OpenCase) -> None:
    windows = windowed._Windows(case)
    edits = windows.trials(Progress())
    assert edits
    automatic = {target.name: case.session.scores(target.name, "paper") for target in case.targets}
    weights, layout = gaussian_weights(windows.layout.window).numpy(), windows.layout
    expected = {name: np.zeros(layout.padded_shape) for name in automatic}
    total = np.zeros(layout.padded_shape)
    for start in layout.windows:
        total[tuple(slice(first, first + 32) for first in start)] += weights
    for edit in edits:
        expected[case.targets[edit.number].name][tuple((edit.voxels + edit.start).T)] += edit.change
    place = tuple(slice(before, before + size) for before, size in zip(layout.pad_before, layout.shape, strict=True))
    masks = _masks(case, "auto+point", "paper")
    for name, scores in automatic.items():
        wanted = _restored(case, scores + (expected[name] / total)[place] > 0)
        assert np.mean(masks[name] != wanted) < 1e-4
    one = edits[0]
    reference = windows._padded_reference(case.targets[one.number])[tuple(slice(f, f + 32) for f in one.start)]
    assert len(one.voxels) > 0
    assert reference.shape == (32, 32, 32)


def test_trials_never_lower_a_windows_score(case: OpenCase) -> None:
    windows = windowed._Windows(case)
    target, rng = case.targets[0], np.random.default_rng(0)
    reference = windows._padded_reference(target)
    start = windows.layout.windows[0]
    window = reference[tuple(slice(first, first + 32) for first in start)]
    perfect = np.where(window, 5.0, -5.0).astype(np.float32)
    assert windows._best_trial(0, target, start, perfect, window, rng) is None
    nothing = np.zeros_like(window)
    assert windows._best_trial(0, target, start, np.full(window.shape, -1.0, np.float32), nothing, rng) is None


def test_new_objects_are_told_no_class(case: OpenCase) -> None:
    for variant in ("honest", "paper"):
        results = list(PROTOCOLS["zero-shot"][variant](case, Progress()))
        assert [result.target.name for result in results] == list(NAMES)
        assert all(result.target.structure is None and len(result.curve) == 4 for result in results)
        if variant == "paper":
            assert all(list(result.curve[1:]) == sorted(result.curve[1:]) for result in results)
            for result in results:
                assert result.curve[-1] == pytest.approx(dice(result.mask, case.mask(result.target)) or 0.0)


PAIRS = [(protocol, variant) for protocol, variants in PROTOCOL_VARIANTS.items() for variant in variants]


def test_every_variant_has_a_function() -> None:
    assert [(protocol, variant) for protocol, variants in PROTOCOLS.items() for variant in variants] == PAIRS


@pytest.mark.parametrize(("protocol", "variant"), PAIRS)
def test_every_protocol_can_be_cancelled(case: OpenCase, protocol: str, variant: str) -> None:
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        list(PROTOCOLS[protocol][variant](case, progress))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"protocols": ("magic",)}, "no protocol 'magic'"),
        ({"variants": ("magic",)}, "no variant 'magic'"),
        ({"protocols": ("clicks-from-nothing",), "variants": ("oracle_trials",)}, "no variant 'oracle_trials'"),
        ({"clicks": 0}, "one click"),
        ({"tolerance_mm": -1.0}, "tolerance"),
    ],
)
def test_bad_settings_are_one_sentence(options: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Settings(**options)
