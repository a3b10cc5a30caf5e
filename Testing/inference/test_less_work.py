"""Options that save work: what they leave out, what stays the same, and when they do not dare to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threshold_backend import LIVER, ThresholdBackend

from VISTA3DCore import Segmenter, Volume
from VISTA3DCore.errors import InputError, SlowerWarning
from VISTA3DCore.inference.automatic.body import find_body
from VISTA3DCore.inference.automatic.scope import Scope, whole
from VISTA3DCore.inference.preprocessing import ModelGrid
from VISTA3DCore.inference.windows import PRESETS
from VISTA3DCore.network.config import ModelConfig

CT = ModelConfig(spacing=(3.0, 3.0, 3.0))
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (110, 100, 90)


def ellipsoid(shape, centre, radii) -> np.ndarray:
    places = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((place - at) / radius) ** 2 for place, at, radius in zip(places, centre, radii, strict=True)) < 1


def patient(centre=(60, 55, 45), radii=(30, 22, 60)) -> np.ndarray:
    """Return a body in air (HU) on a table: a thin shell over foam, and a blanket's edge above."""
    image = np.full(SHAPE, -1000.0, dtype=np.float32)
    image[10:100, 20:29] = -880
    image[10:100, 29], image[10:100, 20] = -150, -150
    image[30:90, 90] = -300
    image[ellipsoid(SHAPE, centre, radii)] = 30
    return image


def scaled(image: np.ndarray) -> ModelGrid:
    low, high = CT.intensity_range
    return ModelGrid(np.clip((image - low) / (high - low), 0, 1).astype(np.float32), AFFINE)


@settings(max_examples=15)
@given(
    st.tuples(st.integers(40, 75), st.integers(55, 62), st.integers(20, 70)),
    st.tuples(st.integers(14, 30), st.integers(10, 22), st.integers(14, 90)),
)
def test_the_body_is_kept_and_table_and_blanket_are_not(centre, radii):
    body = find_body(scaled(patient(centre, radii)), CT)

    assert body[ellipsoid(SHAPE, centre, radii)].all()
    assert not body[:, :22].any()
    assert not body[:5].any()
    assert not body[:, 96:].any()


def test_without_a_body_everything_is_kept():
    assert find_body(scaled(np.full(SHAPE, -1000.0)), CT).all()


def test_a_model_without_hounsfield_units_refuses_the_body_crop():
    with pytest.raises(InputError, match="Hounsfield"):
        find_body(scaled(patient()), ModelConfig(intensity_percentiles=(0.0, 99.0)))


boxes = st.tuples(*[st.integers(0, 59)] * 3, *[st.integers(1, 40)] * 3)


@settings(max_examples=60)
@given(st.tuples(*[st.integers(20, 60)] * 3), st.lists(boxes, min_size=1, max_size=3), st.sampled_from(list(PRESETS)))
def test_every_needed_voxel_is_computed_and_windows_without_one_are_not(shape, places, preset):
    needed = np.zeros(shape, dtype=bool)
    for *start, x, y, z in places:
        first = [min(at, size - 1) for at, size in zip(start, shape, strict=True)]
        needed[tuple(slice(at, at + length) for at, length in zip(first, (x, y, z), strict=True))] = True
    scope = Scope(whole(shape)).narrowed(needed, (32, 32, 32))
    layout = scope.layout((32, 32, 32), PRESETS[preset])

    covered = np.zeros(shape, dtype=bool)
    for start in layout.windows:
        inside = covered[scope.box][layout.box_of(start)]
        assert needed[scope.box][layout.box_of(start)].any()
        inside[...] = True
    assert covered[needed].all()
    for axis, size in zip(scope.box, shape, strict=True):
        assert axis.stop - axis.start >= min(size, 32)


def test_nothing_needed_is_nothing_to_do():
    assert Scope(whole((40, 40, 40))).narrowed(np.zeros((40, 40, 40), dtype=bool), (32, 32, 32)) is None


def opened(image: np.ndarray, **changes: object):
    backend = ThresholdBackend(**changes)
    return Segmenter(backend).open(Volume(image, AFFINE)), backend


def with_liver(image: np.ndarray, centre=(66, 55, 30), radius=9) -> np.ndarray:
    image = image.copy()
    image[ellipsoid(SHAPE, centre, (radius,) * 3)] = 800
    return image


@pytest.mark.parametrize("restoration", ["nearest", "smooth"])
def test_the_body_crop_saves_windows_and_keeps_what_is_in_the_body(restoration):
    session, backend = opened(with_liver(patient()))
    ordinary = session.segment(["liver", "spleen"], restoration=restoration, streaming=True)
    all_windows = backend.passes
    cropped = session.segment(["liver", "spleen"], restoration=restoration, streaming=True, body_crop=True)

    assert backend.passes - all_windows < all_windows / 1.3
    assert ordinary["liver"].any()
    np.testing.assert_array_equal(cropped.labels, ordinary.labels)
    assert cropped.provenance["body_crop"] == "yes"
    assert "body_crop" not in ordinary.provenance


def test_skipped_windows_are_background_in_both_lives_of_the_features():
    legs = patient((35, 60, 45), (12, 12, 90))
    legs[ellipsoid(SHAPE, (90, 60, 45), (12, 12, 90))] = 800
    session, _ = opened(legs, window=(16, 16, 16))
    streamed = session.segment("liver", streaming=True, body_crop=True)
    retained = session.segment("liver", streaming=False, body_crop=True)

    np.testing.assert_array_equal(streamed.labels, retained.labels)
    np.testing.assert_array_equal(streamed["liver"], session.segment("liver")["liver"])


def test_localized_structures_are_those_of_an_ordinary_run_for_a_few_windows():
    session, backend = opened(with_liver(patient()))
    ordinary = session.segment("liver", streaming=True)
    all_windows = backend.passes
    localized = session.segment("liver", streaming=True, localize=True)

    assert (backend.passes - all_windows) * 2 < all_windows
    np.testing.assert_array_equal(localized.labels, ordinary.labels)
    assert localized.provenance["localize"] == "yes"


def test_a_structure_that_a_coarse_look_misses_is_searched_everywhere():
    session, _ = opened(with_liver(patient(), radius=2))
    with pytest.warns(SlowerWarning, match="did not find every structure"):
        localized = session.segment("liver", localize=True)

    assert localized["liver"].any()
    np.testing.assert_array_equal(localized.labels, session.segment("liver").labels)


def test_a_structure_that_goes_on_is_followed_everywhere():
    image = with_liver(patient((55, 58, 45), (48, 22, 200)), (20, 58, 45), 8)
    image[20:100, 58, 45] = 800  # a vessel, too thin for the coarse look
    session, _ = opened(image)
    with pytest.warns(SlowerWarning, match="continues where a coarse look saw its end"):
        localized = session.segment("liver", localize=True)

    np.testing.assert_array_equal(localized.labels, session.segment("liver").labels)


def test_regions_and_shortcuts_go_together():
    session, _ = opened(with_liver(patient()))
    region = (150, 120, 60, 230, 200, 120)
    ordinary = session.segment("liver", roi=region)
    combined = session.segment("liver", roi=region, body_crop=True, localize=True)

    assert ordinary["liver"].any()
    np.testing.assert_array_equal(combined.labels, ordinary.labels)
    assert set(np.unique(combined.labels)) == {0, LIVER}
