"""Where to click next, and how unsure the network is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from click_backends import ball, minus, open_scene, plus, scene, straight, texture
from reference_pipeline import TINY, CountingBackend, seeded_network

from VISTA3DCore import Click, Progress, Segmenter, Session, Volume
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.inference.clicks.fold import ClickRequest
from VISTA3DCore.inference.clicks.suggestions import CLEARANCE_MM

SHAPE, CENTRE, RADIUS = (50, 46, 44), (50.0, 46.0, 44.0), 16.0
OTHER = (20.0, 20.0, 20.0)


@pytest.fixture(scope="module")
def volume():
    return scene(SHAPE, straight(), ball(CENTRE, RADIUS), ball(OTHER, 8), soft=6.0)


@pytest.fixture
def session(volume) -> Session:
    return open_scene(volume)


def mask_of(centre, radius) -> np.ndarray:
    points = 2.0 * np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return ball(centre, radius)(points) > 0


def voxel_of(session: Session, position) -> tuple[int, ...]:
    place = apply_affine(np.linalg.inv(session.model_grid[1]), np.array(position))
    np.testing.assert_allclose(place, np.rint(place), atol=1e-6)
    return tuple(np.rint(place).astype(int))


def test_in_the_air_that_was_cut_off_there_is_nothing_to_suggest():
    array = np.full((120, 60, 60), -1000.0, np.float32)
    array[:30, 20:40, 20:40] = 50
    far = [Click((550.0, 150.0, 150.0))]
    with Segmenter.from_pretrained("mini", device="cpu").open(Volume(array, np.diag([5.0, 5.0, 5.0, 1.0]))) as session:
        assert session.suggest("liver", far, count=3) == ()
        assert not session.uncertainty("liver", far).any()


def test_suggestions_lie_on_the_unsure_surface(session):
    clicks = [plus(*CENTRE)]
    found = session.suggest("liver", clicks, count=6)
    assert len(found) == 6
    for suggestion in found:
        assert abs(np.linalg.norm(np.subtract(suggestion.position, CENTRE)) - RADIUS) < 4.0
        assert session.uncertainty("liver", clicks)[voxel_of(session, suggestion.position)] > 0.5


def test_the_region_of_disagreement_comes_first(session):
    base = mask_of(CENTRE, RADIUS) | mask_of((80, 70, 70), 9.0)
    found = session.suggest("liver", [plus(*CENTRE)], base, count=8)
    assert np.linalg.norm(np.subtract(found[0].position, (80, 70, 70))) < 9.0
    assert found[0].positive is False
    assert found[0].score > found[-1].score > 0


def test_a_miss_is_suggested_as_positive(volume):
    """The automatic branch sees both balls bright; the mask has one of them."""
    session = open_scene(volume)
    best = session.suggest("left kidney", [], mask_of(OTHER, 8), count=1)[0]
    assert best.positive is True
    assert np.linalg.norm(np.subtract(best.position, CENTRE)) < RADIUS


@pytest.mark.parametrize("count", [1, 3, 50])
def test_suggestions_keep_their_distance_and_are_sorted(session, count):
    clicks = [plus(*CENTRE), plus(50, 46, 59), minus(66, 46, 44)]
    found = session.suggest("liver", clicks, count=count)
    assert 1 <= len(found) <= count
    places = [np.array(click.position) for click in clicks] + [np.array(one.position) for one in found]
    for row, place in enumerate(places):
        for other in places[max(row + 1, len(clicks)) :]:
            assert np.linalg.norm(place - other) >= CLEARANCE_MM == 10.0
    scores = [one.score for one in found]
    assert all(0 <= score <= 1 for score in scores)
    assert all(earlier >= later for earlier, later in pairwise(scores))
    assert all(isinstance(value, float) for one in found for value in (*one.position, one.score))


def test_suggestions_do_not_depend_on_what_was_asked_before(volume, session):
    clicks = [plus(*CENTRE)]
    expected = open_scene(volume).suggest("liver", clicks, count=4)
    session.click("liver", [plus(*OTHER)])
    session.suggest("liver", [plus(*CENTRE), minus(60, 46, 44)])
    assert session.suggest("liver", clicks, count=4) == expected


def test_following_a_suggestion_corrects_the_mask(session):
    """A blob that the network does not see is removed by the click that is suggested on it."""
    base = mask_of(CENTRE, RADIUS) | mask_of((80, 70, 70), 9.0)
    first = session.suggest("liver", [plus(*CENTRE)], base)[0]
    result = session.click("liver", [plus(*CENTRE), minus(*first.position)], base)
    assert result.touched == (False, True)
    assert not result.mask[40, 35, 35]
    assert result.mask[25, 23, 22]


def test_uncertainty_is_a_map_on_the_model_grid(session):
    doubt = session.uncertainty("liver", [plus(*CENTRE)])
    assert doubt.shape == session.model_grid[0].shape
    assert doubt.dtype == np.float32
    assert doubt.min() >= 0
    assert 0.9 < doubt.max() <= 1
    inside, surface = voxel_of(session, CENTRE), voxel_of(session, (50, 46, 60))
    assert doubt[inside] < 0.2
    assert doubt[surface] > 0.8


def test_nothing_is_doubted_where_nothing_was_answered(session):
    clicks = [plus(*CENTRE)]
    score_map = session._clicking.interaction.answer(ClickRequest(tuple(clicks)), False, False, Progress())
    doubt = session.uncertainty("liver", clicks)
    answered = np.zeros(doubt.shape, dtype=bool)
    assert score_map.known.all()
    answered[score_map.box] = True
    assert not answered.all()
    assert not doubt[~answered].any()
    assert (doubt[answered] > 0).all()


def test_without_clicks_the_automatic_branch_doubts():
    backend = CountingBackend(seeded_network(TINY), TINY)
    session = Segmenter(backend).open(texture((40, 32, 32)))
    doubt = session.uncertainty("liver", [])
    probability = torch.sigmoid(torch.from_numpy(session.scores("liver"))).numpy()
    np.testing.assert_allclose(doubt, 4 * probability * (1 - probability), atol=1e-5)
    assert backend.passes > 0


def test_where_the_network_is_sure_of_the_mask_nothing_is_suggested():
    image = np.where(np.arange(50)[:, None, None] < 20, 1000.0, -900.0) * np.ones(SHAPE)
    session = open_scene(Volume(image, straight()))
    assert session.suggest("left kidney", [], image > 0) == ()
    assert session.suggest("left kidney", [], image < 0) != ()


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda session: session.suggest("liver", []), "nothing to suggest"),
        (lambda session: session.suggest(None, [], mask_of(CENTRE, 9)), "known by its clicks"),
        (lambda session: session.suggest("liver", [], np.zeros(SHAPE, dtype=bool)), "empty"),
        (lambda session: session.suggest("liver", [], np.ones((3, 4, 5), dtype=bool)), "3 x 4 x 5"),
        (lambda session: session.suggest("liver", [minus(*CENTRE)]), "Negative clicks need a mask"),
        (lambda session: session.suggest("kidney", [], mask_of(CENTRE, 9)), "one structure at a time"),
        (lambda session: session.uncertainty("kidney", []), "one structure at a time"),
        (lambda session: session.uncertainty(None, []), "known by its clicks"),
        (lambda session: session.uncertainty("livr", [plus(*CENTRE)]), "liver"),
        (lambda session: session.uncertainty("liver", [plus(0, 0, 900)]), "outside the volume"),
    ],
)
def test_what_cannot_be_answered_is_said(session, ask, reason):
    with pytest.raises(InputError, match=reason):
        ask(session)
    assert session.suggest("liver", [plus(*CENTRE)])


@pytest.mark.parametrize("name", ["suggest", "uncertainty"])
@pytest.mark.parametrize("clicks", [[plus(*CENTRE)], []], ids=["clicks", "automatic"])
def test_it_can_be_cancelled(volume, name, clicks):
    session, progress = open_scene(volume), Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        getattr(session, name)("liver", clicks, mask_of(CENTRE, 9), progress=progress)
    assert getattr(session, name)("liver", clicks, mask_of(CENTRE, 9)) is not None
