"""Window layout and weights against MONAI's functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from VISTA3DCore.errors import InputError
from VISTA3DCore.inference.windows import PRESETS, WindowLayout, find_preset, gaussian_weights

sides = st.integers(1, 420)


def monai_windows(shape, window, overlap):
    padded = tuple(max(size, side) for size, side in zip(shape, window, strict=True))
    interval = _get_scan_interval(padded, window, 3, (overlap,) * 3)
    return [tuple(int(axis.start) for axis in place) for place in dense_patch_slices(padded, window, interval)]


@given(shape=st.tuples(sides, sides, sides), window=st.sampled_from([(128, 128, 128), (64, 64, 64), (192, 192, 128)]))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_windows_are_those_of_monai_in_the_same_order(preset, shape, window):
    assert WindowLayout(shape, window, preset).windows == monai_windows(shape, window, preset.overlap)


def test_bundle_really_overlaps_by_a_quarter():
    """B9: the bundle declares 0.3 but never passes it on; the starts were read off its own inferer."""
    assert WindowLayout((267, 400, 128), (128,) * 3, PRESETS["bundle"]).starts == ([0, 96, 139], [0, 96, 192, 272], [0])


def test_paper_overlaps_by_five_eighths_with_gaussian_weights():
    layout = WindowLayout((267, 128, 128), (128,) * 3, PRESETS["paper"])
    assert layout.starts[0] == [0, 48, 96, 139]
    assert layout.weights() is not None


@pytest.mark.parametrize("window", [(128, 128, 128), (64, 64, 64), (48, 32, 64)])
def test_gaussian_weights_are_those_of_monai(window):
    assert torch.equal(gaussian_weights(window), compute_importance_map(window, mode="gaussian", sigma_scale=0.125))


@given(shape=st.tuples(sides, sides, sides))
@settings(max_examples=50, deadline=None)
def test_layers_hold_every_window_once_and_finish_every_plane(shape):
    layout = WindowLayout(shape, (64,) * 3, PRESETS["bundle"])
    assert sorted(window for layer in layout.layers for window in layer) == sorted(layout.windows)
    assert layout.boundaries[0] == 0
    assert layout.boundaries[-1] == layout.padded_shape[layout.slab_axis]
    assert layout.boundaries == sorted(set(layout.boundaries))


def test_small_volumes_are_padded_by_repeating_the_border():
    """As the released bundle does; B8: the offset is known before the first window is computed."""
    layout = WindowLayout((3, 4, 8), (8, 8, 8), PRESETS["bundle"])
    image = torch.arange(96.0).reshape(1, 1, 3, 4, 8)
    padded = layout.pad(image)
    assert padded.shape[2:] == (8, 8, 8)
    assert layout.pad_before == (2, 2, 0)
    assert torch.equal(padded[..., 2:5, 2:6, :], image)
    assert torch.equal(padded[0, 0, 0, 0], image[0, 0, 0, 0])
    assert torch.equal(padded[0, 0, 7, 7], image[0, 0, 2, 3])


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match="bundle, paper"):
        find_preset("fast")
