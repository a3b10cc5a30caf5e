"""Clicks through the whole engine beside MONAI's ``point_based_window_inferer``, on the same image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click_backends import texture
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.apps.vista3d.inferer import point_based_window_inferer
from reference_pipeline import TINY, seeded_network
from scipy import ndimage

from VISTA3DCore import Click, Segmenter, Session
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.inference.clicks.fold import ClickRequest
from VISTA3DCore.inference.clicks.scores import Prompt, ScoreMap
from VISTA3DCore.inference.clicks.windows import centred_window
from VISTA3DCore.progress import Progress

NETWORK = seeded_network(TINY)
SHAPES = {"large": (70, 45, 80), "small": (20, 26, 30), "mixed": (24, 50, 32), "odd": (31, 33, 27)}
SPACING = 1.5


@pytest.fixture(scope="module")
def sessions() -> dict[tuple[int, int, int], Session]:
    segmenter = Segmenter(TorchBackend(NETWORK, TINY))
    opened = {shape: segmenter.open(texture(shape), click_dtype="float32") for shape in SHAPES.values()}
    for shape, session in opened.items():
        assert session.model_grid[0].shape == shape
    return opened


def ours(session: Session, clicks: list[Click], special: bool = False, zero_shot: bool = False) -> ScoreMap:
    request = ClickRequest(tuple(clicks), policy="centred")
    return session._clicking.interaction.answer(request, special, zero_shot, Progress())


@torch.inference_mode()
def monais(session: Session, clicks: list[Click], special: bool = False, zero_shot: bool = False, **options):
    """Return the reference's scores on the model grid; NaN where no window answered."""
    image, affine = session.model_grid
    places = np.array([click.position for click in clicks]) @ np.linalg.inv(affine)[:3, :3].T
    places += np.linalg.inv(affine)[:3, 3]
    labels = [[int(click.positive) + 2 * special for click in clicks]]
    scores = point_based_window_inferer(
        torch.from_numpy(image)[None, None],
        TINY.window,
        NETWORK,
        torch.from_numpy(places)[None].float(),
        torch.tensor(labels),
        prompt_class=torch.tensor([[200 if zero_shot else 1]]),
        transpose=True,
        **options,
    )
    return scores[0, 0].as_tensor().numpy()


def on_grid(score_map: ScoreMap, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a score map on the whole model grid; NaN where no window answered."""
    start = np.array(score_map.start)
    padded = np.full(np.maximum(shape, start + score_map.scores.shape) - np.minimum(start, 0), np.nan, np.float32)
    low = np.maximum(start, 0)
    place = tuple(map(slice, low, low + score_map.scores.shape))
    padded[place] = np.where(score_map.known, score_map.scores, np.nan)
    return padded[tuple(slice(-min(first, 0), -min(first, 0) + size) for first, size in zip(start, shape, strict=True))]


def at(*voxel: float, positive: bool = True) -> Click:
    return Click(tuple(SPACING * index for index in voxel), positive)


def compare(session: Session, shape: tuple[int, int, int], clicks: list[Click], **kind) -> None:
    expected, found = monais(session, clicks, **kind), on_grid(ours(session, clicks, **kind), shape)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@settings(max_examples=12)
@given(data=st.data(), shape=st.sampled_from(list(SHAPES.values())))
def test_one_click_anywhere_equals_the_reference(sessions, data, shape):
    # The reference ignores clicks on a window's first voxel layer (B5); everywhere else it is right.
    voxel = [data.draw(st.integers(1, 8 * (size - 1) - 1)) / 8 for size in shape]
    compare(sessions[shape], shape, [at(*voxel)])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("end", ["first", "last"])
def test_a_click_near_the_border_equals_the_reference(sessions, shape, end):
    voxel = [0.3] * 3 if end == "first" else [size - 1.0 for size in shape]
    compare(sessions[shape], shape, [at(*voxel)])


@pytest.mark.parametrize("kind", [{"special": True}, {"zero_shot": True}], ids=["special", "zero-shot"])
def test_kinds_of_objects_reach_the_network(sessions, kind):
    clicks = [at(30, 20, 40), at(32, 25, 44, positive=False)]
    session = sessions[SHAPES["large"]]
    assert np.nanmax(np.abs(monais(session, clicks[:1], **kind) - monais(session, clicks[:1]))) > 1e-3
    compare(session, SHAPES["large"], clicks[:1], **kind)


def test_several_clicks_in_windows_of_their_own_equal_the_reference(sessions):
    clicks = [at(17, 20, 20), at(17.25, 20, 54.5, positive=False), at(52, 24, 63)]
    compare(sessions[SHAPES["large"]], SHAPES["large"], clicks)


def test_clicks_that_share_a_window_equal_the_references_mean(sessions):
    """The reference adds the same window's scores once for each click in it."""
    clicks = [at(5, 6, 7), at(9, 3, 12, positive=False), at(2, 11, 4)]
    expected = monais(sessions[SHAPES["small"]], clicks) / 3
    found = on_grid(ours(sessions[SHAPES["small"]], clicks), SHAPES["small"])
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_where_windows_overlap_the_reference_adds_and_we_average(sessions):
    session, shape = sessions[SHAPES["large"]], SHAPES["large"]
    clicks = [at(20, 20, 30), at(20, 20, 42)]
    added, found = monais(session, clicks), on_grid(ours(session, clicks), shape)
    each = [on_grid(ours_alone(session, clicks, number), shape) for number in range(2)]
    both = ~np.isnan(each[0]) & ~np.isnan(each[1])
    np.testing.assert_allclose(added[both], (each[0] + each[1])[both], atol=1e-4, rtol=0)
    assert (found[both] >= np.fmin(*each)[both] - 1e-5).all()
    assert (found[both] <= np.fmax(*each)[both] + 1e-5).all()
    for window in each:
        alone = ~np.isnan(window) & ~both
        np.testing.assert_allclose(found[alone], added[alone], atol=1e-4, rtol=0)


def ours_alone(session: Session, clicks: list[Click], number: int) -> ScoreMap:
    """Return the scores of one click's window, in which the other click is a token, too."""
    interaction = session._clicking.interaction
    places = interaction.grids.to_model(np.array([click.position for click in clicks]))
    prompt = Prompt(places, tuple(click.positive for click in clicks))
    start = centred_window(places[number], session.model_grid[0].shape, TINY.window)
    scores = interaction.encoder.answer(start, prompt.tokens_in(start, TINY.window), Progress())
    return ScoreMap(start, scores, np.ones(scores.shape, dtype=bool))


def test_half_precision_features_change_scores_little(sessions):
    session = Segmenter(TorchBackend(NETWORK, TINY)).open(texture(SHAPES["small"]))
    exact, halved = (ours(one, [at(9, 9, 9)]).scores for one in (sessions[SHAPES["small"]], session))
    assert 0 < np.abs(halved - exact).max() < 0.02 * np.abs(exact).max()


def test_on_equal_grids_the_mask_is_the_references_component(sessions):
    session = sessions[SHAPES["odd"]]
    hits = 0
    for voxel in np.random.default_rng(0).integers(2, 25, (8, 3)):
        expected = components_of(np.nan_to_num(monais(session, [at(*voxel)]), nan=-1.0) > 0)
        if number := expected[tuple(voxel)]:
            result = session.click("liver", [at(*voxel)], policy="centred")
            np.testing.assert_array_equal(result.mask, expected == number)
            assert result.touched == (True,)
            hits += 1
    assert hits >= 2


def components_of(mask: np.ndarray) -> np.ndarray:
    return ndimage.label(mask, np.ones((3, 3, 3)))[0]
