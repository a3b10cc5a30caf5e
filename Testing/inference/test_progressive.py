"""Results that grow: the last one is the ordinary one to the bit, in whatever order the windows ran."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_bytes import LiveBytes
from reference_pipeline import TINY, CountingBackend, random_image, seeded_network
from threshold_backend import ThresholdBackend

from VISTA3DCore import Progress, Segmenter, Volume
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.inference.automatic import device_memory
from VISTA3DCore.inference.automatic.block_sums import BlockSums, growing_bytes
from VISTA3DCore.inference.automatic.feature_cache import FeatureStore
from VISTA3DCore.inference.automatic.feature_map import FeaturePass, slab_bytes
from VISTA3DCore.inference.automatic.progressive import Watched, WatchedPass, outward
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


@settings(max_examples=25)
@given(st.tuples(st.integers(9, 40), st.integers(9, 40), st.integers(17, 90)), st.none() | st.floats(-10, 100))
def test_sums_in_any_order_take_what_is_reckoned(shape, plane):
    layout, channels = WindowLayout(shape, WINDOW, PRESETS["bundle"]), 8
    order, sums = outward(layout, plane), BlockSums(layout, channels, "cpu")
    with torch.inference_mode(), LiveBytes() as traced:
        for layer in order:
            for start in layout.layers[layer]:
                sums.add(start, torch.ones((channels, *WINDOW)))
            for _ in sums.close(layer):
                pass
    # Beside the sums there are a window's features, and a head while its block takes it over.
    beside = 4 * (channels + 1) * (16**3 + 16 * layout.padded_shape[0] * layout.padded_shape[1])
    reckoned = growing_bytes(layout, channels, order)

    assert reckoned <= traced.peak <= reckoned + beside


def test_the_ordinary_order_takes_hardly_more_than_a_slab():
    layout = WindowLayout((267, 267, 400), (128, 128, 128), PRESETS["bundle"])

    assert growing_bytes(layout, 48, outward(layout, None)) < 1.03 * slab_bytes(layout, 48)
    assert growing_bytes(layout, 48, outward(layout, 300)) < 3 * slab_bytes(layout, 48)


@pytest.mark.parametrize(("room", "expected"), [(3.0, [2, 3, 1, 0]), (1.5, [0, 1, 2, 3])])
def test_without_room_for_what_waits_layers_run_in_the_ordinary_order(monkeypatch, room, expected):
    backend = NoisyBackend()
    layout = WindowLayout((20, 20, 52), WINDOW, PRESETS["bundle"])
    grid = SimpleNamespace(crop=lambda _box: SimpleNamespace(tensor=torch.zeros(layout.shape)))
    store, layers = FeatureStore(backend, grid, torch.float32), []
    free = int(2 * room * slab_bytes(layout, backend.config.width))
    monkeypatch.setattr(device_memory, "free_memory", lambda _device: free)

    def watch(box, _features):
        if box[2].start not in layers:
            layers.append(box[2].start)

    box = tuple(slice(0, size) for size in layout.shape)
    for _ in store.blocks(box, layout, True, Progress(), Watched(watch, 32)):
        pass

    assert layers == [layout.starts[2][layer] for layer in expected]


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
