"""3 x 3 x 3 convolutions in OpenVINO with half as many products.

Winograd's F(4, 3) along x: four planes of the result come from six two-dimensional convolutions of combined planes and
not from twelve (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016). In channels-last layout
planes are contiguous, so that combining them is limited by memory alone. Along one axis the rounding errors of float32
stay about as small as they were; along two or three there would be still fewer products, but more bytes and errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_X = 2
_STEP = 4
"""Planes of the result that are computed together."""
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=np.float32,
)
_WEIGHTS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=np.float64) / 24
_RESULT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=np.float32
)
_CHANNELS = range(48, 193)
"""With fewer, combining planes takes longer than the products that it saves; with more, the weights, which double, take
too much memory."""
_BYTES = 192 << 20
"""Of combined planes that exist at a time. With more, the processor's caches help less; with less there are more parts,
which take longer to compile."""


def with_fewer_products(model: Any) -> Any:
    """Replace the convolutions for which it is worth it, in place.

    :param model: an OpenVINO ``Model`` for one size of window, float32.
    :return: the model.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_worth_it(node):
            faster = _convolved(node.input_value(0), node.input_value(1).get_node().data)
            node.output(0).replace(faster.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _is_worth_it(node: Any) -> bool:
    weight, attributes = node.input_value(1).get_node(), node.get_attributes()
    shape, planes = tuple(weight.output(0).get_shape()), node.input_value(0).get_shape()[_X]
    return (
        weight.get_type_name() == "Constant"
        and shape[2:] == (3, 3, 3)
        and all(channels in _CHANNELS for channels in shape[:2])
        and all(set(attributes[name]) == {1} for name in ("strides", "dilations", "pads_begin", "pads_end"))
        and planes % _STEP == 0
        and planes >= 2 * _STEP
    )


def _convolved(image: Any, weight: np.ndarray) -> Any:
    """Return the convolution of an image [1, C, x, y, z] with a weight [O, C, 3, 3, 3]."""
    from openvino import opset13 as op

    weights = [op.constant(part) for part in _combined_weights(weight)]
    planes = []
    for start, stop in _parts(tuple(image.get_shape()), len(weight)):
        neighbours = _neighbours(image, start, stop)
        products = [
            op.convolution(_combined(row, neighbours), one, [1, 1, 1], [0, 1, 1], [0, 1, 1], [1, 1, 1])
            for row, one in zip(_INPUT, weights, strict=True)
        ]
        results = [op.split(_combined(row, products), op.constant(_X), stop - start) for row in _RESULT]
        planes += [result.output(group) for group in range(stop - start) for result in results]
    return op.concat(planes, _X)


def _parts(shape: tuple[int, ...], channels: int) -> list[tuple[int, int]]:
    """Return groups of four planes, from and to, that are computed one part after the other; at least two at a time."""
    groups = shape[_X] // _STEP
    group_bytes = 4 * len(_INPUT) * (shape[1] + channels) * shape[3] * shape[4]
    count = max(1, groups // max(2, _BYTES // group_bytes))
    bounds = [groups * number // count for number in range(count + 1)]
    return list(pairwise(bounds))


def _combined_weights(weight: np.ndarray) -> list[np.ndarray]:
    """Return six weights [O, C, 1, 3, 3]."""
    combined = np.einsum("kx,ocxyz->kocyz", _WEIGHTS, weight.astype(np.float64))
    return list(combined.astype(np.float32)[:, :, :, None])


def _neighbours(image: Any, start: int, stop: int) -> list[Any]:
    """Return for groups of four planes the plane before each, its own four, and the one behind it."""
    return [_every_fourth(image, _STEP * start + offset, stop - start) for offset in range(-1, _STEP + 1)]


def _every_fourth(image: Any, first: int, count: int) -> Any:
    """Return every fourth plane of an image; what lies outside is zero."""
    from openvino import opset13 as op

    planes = image.get_shape()[_X]
    before, behind = int(first < 0), int(first + _STEP * (count - 1) >= planes)
    begin = first + _STEP * before
    end = begin + _STEP * (count - before - behind - 1) + 1
    inside = op.slice(image, _integers(begin), _integers(end), _integers(_STEP), _integers(_X))
    if not before and not behind:
        return inside
    widths = [_integers(0, 0, side, 0, 0) for side in (before, behind)]
    return op.pad(inside, *widths, "constant", op.constant(np.float32(0)))


def _combined(factors: Sequence[float], images: Sequence[Any]) -> Any:
    """Return the sum of images, each times its factor."""
    from openvino import opset13 as op

    total = None
    for factor, image in zip(factors, images, strict=True):
        if factor == 0:
            continue
        part = image if factor == 1 else op.multiply(image, op.constant(np.float32(factor)))
        total = part if total is None else op.add(total, part)
    return total


def _integers(*values: int) -> Any:
    from openvino import opset13 as op

    return op.constant(np.array(values, dtype=np.int64))
