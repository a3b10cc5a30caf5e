"""Results that grow: the last one is the ordinary one to the bit, in whatever order the windows ran."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pipeline import TINY, CountingBackend, random_image, seeded_network
from threshold_backend import ThresholdBackend

from VISTA3DCore import Progress, Segmenter, Volume
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.inference.feature_map import FeaturePass
from VISTA3DCore.inference.progressive import Watched, WatchedPass, outward, waiting_bytes
from VISTA3DCore.inference.windows import PRESETS, WindowLayout

WINDOW = (16, 16, 16)


class NoisyBackend(ThresholdBackend):
    """Features that differ from window to window, so that sums in another order would differ, too."""

    def __init__(self) -> None:
        super().__init__(window=WINDOW)

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        seed = int(patch.double().sum().item() * 1e6) % (1 << 31)
        return torch.rand((8, *WINDOW), generator=torch.Generator().manual_seed(seed)) * patch[0]


shapes = st.tuples(st.integers(9, 24), st.integers(9, 24), st.integers(9, 70)).flatmap(st.permutations)


@settings(max_examples=40)
@given(shapes, st.sampled_from(list(PRESETS)), st.floats(-10, 80))
def test_features_of_any_order_are_those_of_the_ordinary_one(shape, preset, plane):
    image = torch.from_numpy(random_image(tuple(shape)))[None, None]
    layout = WindowLayout(tuple(shape), WINDOW, PRESETS[preset])
    seen = np.zeros(shape, dtype=bool)

    def watch(box, features):
        assert features.shape[1:] == seen[box].shape
        seen[box] = True

    ordinary = FeaturePass(NoisyBackend(), image, layout).retain(Progress())
    watched = WatchedPass(NoisyBackend(), image, layout, "cpu", Watched(watch, plane)).retain(Progress())

    assert torch.equal(watched.features, ordinary.features)
    assert watched.boundaries == ordinary.boundaries
    assert seen.all()


def test_layers_run_from_the_slice_that_is_looked_at():
    layout = WindowLayout((20, 20, 100), WINDOW, PRESETS["bundle"])
    centres = [start + 7.5 for start in layout.starts[2]]

    order = outward(layout, 50)
    assert sorted(order) == list(range(len(centres)))
    distances = [abs(centres[layer] - 50) for layer in order]
    assert distances == sorted(distances)
    assert outward(layout, None) == list(range(len(centres)))


def test_what_waits_is_a_share_of_a_layer():
    layout = WindowLayout((267, 267, 400), (128, 128, 128), PRESETS["bundle"])
    head = 9 * 48 * 4 * 128 * 128 * (96 + 128 - 192)

    assert head <= waiting_bytes(layout, 48) <= 3 * head


SHAPE, AFFINE = (40, 40, 90), np.diag([4.0, 4.0, 4.0, 1.0])


@pytest.fixture
def session():
    config = replace(TINY, spacing=(4.0, 4.0, 4.0), classes=(1, 3, 6, 26))
    image = (random_image(SHAPE, seed=5) * 900 - 400).astype(np.float32)
    return Segmenter(CountingBackend(seeded_network(config), config)).open(Volume(image, AFFINE))


@pytest.mark.parametrize("options", [{}, {"preset": "paper"}, {"restoration": "smooth"}, {"streaming": False}], ids=str)
def test_the_last_result_is_the_ordinary_one(session, options):
    parts = []
    grown = session.segment(
        [1, 3, 26], on_partial=lambda part: parts.append(part.fraction), order_from=(80, 80, 250), **options
    )
    session.free_caches()
    ordinary = session.segment([1, 3, 26], **options)

    np.testing.assert_array_equal(grown.labels, ordinary.labels)
    np.testing.assert_array_equal(grown.masks[26], ordinary.masks[26])
    assert parts[0] == 0.0
    assert parts[-1] == 1.0
    assert parts == sorted(parts)
    assert len(parts) > 3


def test_the_slice_that_is_looked_at_is_right_long_before_the_others(session):
    shown, slices = {}, slice(80, 88)

    def show(part):
        shown[part.fraction] = part.segmentation().labels

    final = session.segment("liver", on_partial=show, order_from=(80, 80, 84 * 4)).labels
    half = shown[min(fraction for fraction in shown if fraction >= 0.5)]

    assert np.mean(half[:, :, slices] == final[:, :, slices]) > 0.9
    assert np.mean(shown[0.0] == final) < np.mean(half == final)


def test_partial_results_know_what_they_are(session):
    kept = []
    region = (40, 40, 100, 120, 120, 200)
    session.segment(["liver", 26], on_partial=kept.append, roi=region)
    segmentation = kept[-1].segmentation()

    assert segmentation.labels.shape == SHAPE
    assert [one.index for one in segmentation.structures] == [1, 26]
    assert not segmentation.labels[:8].any()
    assert segmentation.provenance["preset"] == "bundle"


@pytest.mark.parametrize("place", [(1.0, 2.0), (0.0, 0.0, float("nan"))])
def test_a_place_that_is_none_is_refused(session, place):
    with pytest.raises(InputError, match="three finite numbers"):
        session.segment("liver", on_partial=print, order_from=place)


def test_retained_features_need_no_partial_results(session):
    session.segment("liver")
    parts = []
    session.segment("spleen", on_partial=parts.append)

    assert parts == []


def test_somebody_who_has_seen_enough_can_cancel(session):
    progress = Progress()

    def show(part):
        if part.fraction > 0:
            progress.cancel()

    with pytest.raises(Cancelled):
        session.segment("liver", on_partial=show, progress=progress)
    assert session.segment("liver").labels.any()
