"""Features that come row by row are those that come plane by plane, to the last bit, from less memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_pipeline import TINY, random_image, seeded_network

from VISTA3DCore import Segmenter, Volume
from VISTA3DCore.inference.automatic.feature_cache import FeatureStore
from VISTA3DCore.inference.automatic.feature_map import FeaturePass, slab_bytes
from VISTA3DCore.inference.automatic.row_sums import RowPass, Rows, row_bytes, saves, streaming_bytes
from VISTA3DCore.inference.windows import PRESETS, WindowLayout
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

WINDOW = (8, 8, 8)
CHANNELS = 8


class Waves:
    """A runtime whose features tell where in its window a voxel lies, so that no two windows agree."""

    device = torch.device("cpu")

    def __init__(self, fails_at: int = -1, channels_last: bool = False) -> None:
        self.config = replace(TINY, window=WINDOW, width=CHANNELS)
        self.channels_last, self._fails_at, self._calls = channels_last, fails_at, 0

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        if self._calls == self._fails_at:
            raise MemoryError("no memory")
        steps = torch.linspace(0.1, 3, patch.shape[-1])
        wave = torch.sin(steps[:, None, None] + 2 * steps[:, None] + 3 * steps)
        return torch.stack([(patch[0, 0] + wave) * (number + 1) / 3 for number in range(CHANNELS)])

    def on(self, _) -> Waves:
        return self


def joined(blocks, shape) -> torch.Tensor:
    features = torch.full((CHANNELS, *shape), torch.nan)
    for block in blocks:
        place = features[(slice(None), *block.box)]
        assert place.shape == block.features.shape
        assert place.isnan().all(), "a voxel came twice"
        place.copy_(block.features)
    return features


def pass_of(kind, shape, preset, backend=None, skipped=frozenset()):
    layout = WindowLayout(shape, WINDOW, PRESETS[preset], skipped)
    return kind(backend or Waves(), torch.from_numpy(random_image(shape))[None, None], layout)


sides = st.integers(min_value=3, max_value=30)


@given(shape=st.tuples(sides, sides, sides), preset=st.sampled_from(["bundle", "paper"]))
def test_rows_give_the_features_of_planes_to_the_last_bit(shape, preset):
    expected = joined(pass_of(FeaturePass, shape, preset).stream(Progress()), shape)
    assert torch.equal(joined(pass_of(RowPass, shape, preset).stream(Progress()), shape), expected)
    assert not expected.isnan().any()


@given(shape=st.tuples(sides, sides, sides), data=st.data())
def test_windows_that_are_left_out_change_nothing_else(shape, data):
    windows = WindowLayout(shape, WINDOW, PRESETS["bundle"]).windows
    skipped = frozenset(data.draw(st.sets(st.sampled_from(windows), max_size=len(windows) - 1)))
    planes, rows = (pass_of(kind, shape, "bundle", skipped=skipped) for kind in (FeaturePass, RowPass))
    assert torch.equal(joined(rows.stream(Progress()), shape), joined(planes.stream(Progress()), shape))


@pytest.mark.parametrize("channels_last", [False, True])
def test_running_out_of_memory_in_mid_row_changes_nothing(channels_last):
    shape = (20, 22, 30)
    expected = joined(pass_of(FeaturePass, shape, "bundle").stream(Progress()), shape)
    found = pass_of(RowPass, shape, "bundle", Waves(fails_at=5, channels_last=channels_last))
    assert torch.equal(joined(found.stream(Progress()), shape), expected)


def test_retained_features_are_cut_as_streamed_ones():
    shape = (40, 44, 60)
    backend = Waves()
    layout = WindowLayout(shape, WINDOW, PRESETS["bundle"])
    assert saves(layout, CHANNELS)

    class Grid:
        def crop(self, _):
            return self

        tensor = torch.from_numpy(random_image(shape))

    box = tuple(slice(0, side) for side in shape)
    streamed, retained = (
        list(FeatureStore(backend, Grid(), torch.float32).blocks(box, layout, streaming, Progress(), None, False))
        for streaming in (True, False)
    )
    assert [one.box for one in streamed] == [one.box for one in retained]
    assert len(streamed) > len(layout.layers)
    assert all(
        one.rows is None for one in FeatureStore(backend, Grid(), torch.float32).blocks(box, layout, True, Progress())
    )


def test_a_large_volume_takes_less_and_a_small_one_no_more():
    config = ModelConfig()
    large, small = (
        WindowLayout(shape, config.window, PRESETS["bundle"]) for shape in ((266, 266, 400), (160, 160, 160))
    )
    assert row_bytes(large, 48) < 0.7 * slab_bytes(large, 48)
    assert streaming_bytes(small, 48) <= slab_bytes(small, 48)
    wide, longer = (WindowLayout((333, 333, z), config.window, PRESETS["bundle"]) for z in (512, 2048))
    assert row_bytes(wide, 48) < 0.55 * slab_bytes(wide, 48)
    assert row_bytes(longer, 48) == row_bytes(wide, 48)
    assert Rows.of(large).stops == (96, 138, 266)
    assert Rows.of(large).shared == 48


def test_both_restorations_label_alike_whether_rows_or_planes_come():
    """``smooth`` needs whole planes and ``nearest`` does not; of one volume both are right."""
    config = replace(TINY, window=(16, 16, 16), spacing=(2.0, 2.0, 2.0))
    segmenter = Segmenter.from_network(seeded_network(config), config)
    array = (random_image((44, 40, 60)) * 1200 - 1000).astype(np.int16)
    with segmenter.open(Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]))) as session:
        streamed = session.segment("everything", streaming=True)
        retained = session.segment("everything", streaming=False)
        smooth = session.segment("everything", restoration="smooth")
    np.testing.assert_array_equal(streamed.labels, retained.labels)
    np.testing.assert_array_equal(smooth.labels, retained.labels)  # the grids are one, so nothing is interpolated
