"""Defects of the reference's click path that this engine does not share; each test shows both behaviours.

The numbers are those of the project's notes on the reference. B3, B7 and B12 are in ``test_refinement_reference.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click_backends import AIR, OBJECT, RULE, RuleBackend, ball, minus, open_scene, plus, scene, straight, texture
from monai.apps.vista3d.inferer import point_based_window_inferer
from monai.apps.vista3d.transforms import VistaPreTransformd
from monai.inferers import SlidingWindowInferer
from reference_pipeline import TINY, seeded_network

from VISTA3DCore import Click, Segmenter, Session, Volume
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.inference.clicks.fold import ClickRequest
from VISTA3DCore.inference.clicks.scores import ScoreMap
from VISTA3DCore.progress import Progress

NETWORK = seeded_network(TINY)
SPECIAL = {23, 24, 25, 26, 27, 57, 128}
NOTHING = -9999


def opened(shape: tuple[int, int, int]) -> Session:
    return Segmenter(TorchBackend(NETWORK, TINY)).open(texture(shape), click_dtype="float32")


def at(*voxel: float, positive: bool = True) -> Click:
    return Click(tuple(1.5 * index for index in voxel), positive)


def prompts_at(*voxels, positive: bool = True) -> dict[str, torch.Tensor]:
    return {
        "point_coords": torch.tensor([voxels], dtype=torch.float32),
        "point_labels": torch.full((1, len(voxels)), int(positive)),
    }


def ours(session: Session, *clicks: Click, policy: str = "centred") -> ScoreMap:
    return session._clicking.interaction.answer(ClickRequest(clicks, policy=policy), False, False, Progress())


def image_of(session: Session) -> torch.Tensor:
    return torch.from_numpy(session.model_grid[0])[None, None]


@torch.inference_mode()
def by_windows(session: Session, *voxels, **options) -> torch.Tensor:
    """Return what the reference's window inferer answers to positive clicks, [x, y, z]."""
    arguments = {**prompts_at(*voxels), "transpose": True, **options}
    return point_based_window_inferer(image_of(session), TINY.window, NETWORK, **arguments)[0, 0].as_tensor()


@torch.inference_mode()
def in_one_window(patch: torch.Tensor, *voxels) -> np.ndarray:
    return NETWORK(patch, **prompts_at(*voxels))[0, 0].numpy()


def test_b1_special_tokens_go_to_the_classes_that_were_trained_with_them():
    backend = RuleBackend()
    session = open_scene(scene((32, 32, 32), straight(), ball((32, 32, 32), 10)), backend)
    asked, monais = set(), set()
    for structure in catalogue("vista3d-ct"):
        if not structure.supported or structure.is_group:
            continue
        session.free_caches()
        session.click(structure.index, [plus(32, 32, 32)])
        if backend.asked[-1].special:
            asked.add(structure.index)
        assert backend.asked[-1].zero_shot is False
        data = {"label_prompt": [structure.index], "point_labels": [0, 1]}
        if VistaPreTransformd(keys="image")(data)["point_labels"] == [2, 3]:
            monais.add(structure.index)
    assert asked == SPECIAL
    assert len(backend.asked) == 127 - len({2, 20, 21})
    assert monais == {25, 26, 27, 28, 29, 117}


def test_b1_special_classes_are_special_to_the_network():
    tokens = {}
    for name in ("liver", "hepatic tumor", None):
        backend = RuleBackend()
        session = open_scene(scene((32, 32, 32), straight(), ball((32, 32, 32), 10)), backend)
        session.click(name, [plus(32, 32, 32), minus(28, 28, 28)])
        tokens[name] = backend.asked[-1].tensors()
    assert tokens["liver"][1].tolist() == [[0, 1]]
    assert tokens["hepatic tumor"][1].tolist() == [[2, 3]]
    assert tokens[None][1].tolist() == [[0, 1]]
    assert [bool(tokens[name][2]) for name in tokens] == [False, False, True]


def test_b2_a_second_click_where_nothing_was_inferred_before_counts():
    session = opened((80, 32, 32))
    first, second = (16.0, 16.0, 16.0), (60.0, 16.0, 16.0)
    previous = by_windows(session, first)
    assert previous[60, 16, 16].isnan()
    continued = by_windows(session, second, prev_mask=previous[None, None])
    assert continued[60, 16, 16].isnan()
    both = ours(session, at(*first), at(*second))
    assert np.isfinite(both.scores).all()
    assert both.known[60 - both.start[0], 16, 16]


@pytest.mark.parametrize("policy", ["reuse", "centred"])
def test_b2_a_second_object_far_away_is_added(policy):
    volume = scene((100, 32, 32), straight(), ball((30, 32, 32), 8), ball((170, 32, 32), 8))
    session = open_scene(volume)
    first = session.click("liver", [plus(30, 32, 32)], policy=policy)
    both = session.click("liver", [plus(30, 32, 32), plus(170, 32, 32)], policy=policy)
    np.testing.assert_array_equal(both.mask[:50], first.mask[:50])
    assert both.mask[85, 16, 16]
    assert both.touched == (True, True)


def test_b4_windows_that_answer_together_are_averaged():
    session = opened((32, 32, 32))
    once = by_windows(session, (16.0, 16.0, 16.0)).numpy()
    thrice = by_windows(session, *[(16.0, 16.0, 16.0)] * 3).numpy()
    together = in_one_window(image_of(session), *[(16.0, 16.0, 16.0)] * 3)
    np.testing.assert_allclose(thrice, 3 * together, atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours(session, at(16, 16, 16)).scores, once, atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours(session, *[at(16, 16, 16)] * 3).scores, together, atol=1e-4, rtol=0)


@pytest.mark.parametrize("voxel", [(0.0, 16.0, 16.0), (-0.4, 10.0, 10.0), (16.0, 16.0, 0.0), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("policy", ["reuse", "centred"])
def test_b5_a_click_on_the_first_layer_of_a_window_counts(voxel, policy):
    session = opened((32, 32, 32))
    assert (by_windows(session, voxel) == NOTHING).all()
    expected = in_one_window(image_of(session), voxel)
    assert np.abs(expected).max() < 100
    np.testing.assert_allclose(ours(session, at(*voxel), policy=policy).scores, expected, atol=1e-4, rtol=0)


def test_b5_a_click_on_the_first_layer_of_another_clicks_window_is_known_there():
    backend = RuleBackend()
    session = open_scene(scene((70, 32, 32), straight(), ball((80, 32, 32), 20)), backend)
    session.click("liver", [plus(80, 32, 32), plus(48, 32, 32)], policy="centred")
    assert ((0.0, 16.0, 16.0), (16.0, 16.0, 16.0)) in [tokens.positions for tokens in backend.asked]


@pytest.mark.parametrize("voxel", [(31.4, 16.0, 16.0), (31.4, 31.4, 31.4), (-0.45, -0.45, -0.45)])
@pytest.mark.parametrize("policy", ["reuse", "centred"])
def test_b6_clicks_in_the_outer_half_voxels_lie_in_the_outer_voxels(voxel, policy):
    session = opened((32, 32, 32))
    if voxel[0] > 0:
        with pytest.raises(IndexError):
            by_windows(session, (31.6, 16.0, 16.0), prev_mask=torch.zeros(1, 1, 32, 32, 32))
    expected = in_one_window(image_of(session), voxel)
    np.testing.assert_allclose(ours(session, at(*voxel), policy=policy).scores, expected, atol=1e-4, rtol=0)
    full = np.full((32, 32, 32), OBJECT)
    full[16, 16, 10] = AIR
    everywhere = open_scene(Volume(full, straight((1.5, 1.5, 1.5))))
    assert everywhere.click("liver", [at(*voxel)], policy=policy).touched == (True,)


def air_with_body() -> Volume:
    """Return a body with 80 mm of air on each side, of which the model grid keeps 20."""
    image = np.full((100, 100, 100), -1000.0, dtype=np.float32)
    image[40:60, 40:60, 40:60] = 50
    return Volume(image, straight())


@pytest.mark.parametrize("policy", ["reuse", "centred"])
@pytest.mark.parametrize("voxel", [(4, 50, 50), (96, 50, 50), (2, 3, 97), (25, 50, 20)])
def test_b6_a_negative_click_in_air_beyond_the_foreground_removes_what_lies_there(policy, voxel):
    session = open_scene(air_with_body())
    lowest = session._clicking.interaction.grids.to_model(np.zeros(3))
    assert (lowest < -20).all()
    base = np.zeros((100, 100, 100), dtype=bool)
    base[tuple(slice(max(index - 2, 0), index + 3) for index in voxel)] = True
    base[45:55, 45:55, 45:55] = True
    result = session.click("liver", [minus(*(2.0 * np.array(voxel)))], base, policy=policy)
    assert result.touched == (True,)
    removed = base & ~result.mask
    assert removed[voxel]
    assert not removed[45:55, 45:55, 45:55].any()


def test_b6_the_reference_answers_nothing_to_clicks_beyond_the_foreground():
    session = opened((40, 40, 40))
    assert (by_windows(session, (-6.0, 20.0, 20.0)).nan_to_num(NOTHING) == NOTHING).all()


@pytest.mark.parametrize("shape", [(20, 26, 30), (31, 20, 40)])
def test_b8_volumes_smaller_than_a_window(shape):
    """The reference's full sliding window pads the image and leaves the clicks where they were."""
    session, voxel = opened(shape), (12.0, 9.0, 14.0)
    image = image_of(session)
    inferer = SlidingWindowInferer(roi_size=TINY.window, with_coord=True)
    with torch.inference_mode():
        slid = inferer(
            image,
            lambda patch, coords, **options: NETWORK(patch, patch_coords=coords, **options),
            transpose=True,
            **prompts_at(voxel),
        )[0, 0].numpy()
    expected = by_windows(session, voxel).numpy()
    found = ours(session, at(*voxel))
    inside = tuple(slice(max(-first, 0), max(-first, 0) + size) for first, size in zip(found.start, shape, strict=True))
    place = tuple(slice(max(first, 0), max(first, 0) + 32) for first in found.start)
    known = found.scores[inside][tuple(slice(0, part) for part in expected[place].shape)]
    np.testing.assert_allclose(known, expected[place], atol=1e-4, rtol=0)
    assert np.nanmax(np.abs(slid - expected)) > 1e-3


def test_b8_a_small_object_in_a_small_volume_is_where_it_is():
    volume = scene((20, 14, 24), straight(), ball((18, 12, 22), 8))
    mask = open_scene(volume).click("liver", [plus(18, 12, 22)]).mask
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), (9, 6, 11), atol=0.1)


def test_b11_windows_without_clicks_contribute_nothing():
    session, voxel = opened((56, 32, 32)), (10.0, 16.0, 16.0)
    inferer = SlidingWindowInferer(roi_size=TINY.window, overlap=0.5, with_coord=True)
    with torch.inference_mode():
        slid = inferer(
            image_of(session),
            lambda patch, coords, **options: NETWORK(patch, patch_coords=coords, **options),
            transpose=True,
            **prompts_at(voxel),
        )[0, 0].numpy()
    assert slid[20, 16, 16] < -1000
    found = ours(session, at(*voxel), policy="centred")
    np.testing.assert_allclose(found.scores, in_one_window(image_of(session)[:, :, :32], voxel), atol=1e-4, rtol=0)
    assert found.start == (0, 0, 0)
    assert found.known.all()


def test_b11_with_neighbours_the_mask_is_not_truncated_where_windows_overlap():
    volume = scene((120, 40, 40), straight(), lambda points: 20 - np.linalg.norm(points[..., 1:] - 40, axis=-1))
    result = open_scene(volume).click("liver", [plus(60, 40, 40)])
    assert RULE.window[0] < 50
    assert result.mask[5:75, 20, 20].all()
