"""Instance normalisation in OpenVINO's float32, exact where its own operation is not.

``MVN`` adds up a channel voxel by voxel in float32. For the two million voxels of a window of 128^3, mean and variance
are then off by about 1e-4, and after forty layers the scores by 4e-3 of the largest one. Sums along one axis after the
other are as good as PyTorch's (3e-6), in the same time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_X, _Y, _Z = 2, 3, 4


def with_exact_normalisation(model: Any) -> Any:
    """Replace each normalisation over the three axes of an image [1, C, x, y, z], in place.

    :param model: an OpenVINO ``Model``, float32.
    :return: the model.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MVN" and node.get_attributes()["normalize_variance"]:
            exact = _normalised(node.input_value(0), node.get_attributes()["eps"])
            node.output(0).replace(exact.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _normalised(image: Any, epsilon: float) -> Any:
    from openvino import opset13 as op

    mean, square = _mean(image), _mean_square(image)
    # Mean and deviation of a convolution's output are of one size, so little cancels; rounding may go below zero.
    variance = op.relu(op.subtract(square, op.multiply(mean, mean)))
    deviation = op.sqrt(op.add(variance, _number(epsilon)))
    return op.multiply(op.subtract(image, mean), op.divide(_number(1.0), deviation))


def _mean(image: Any) -> Any:
    """Return the mean over x, y and z, [1, C, 1, 1, 1].

    Sums and means alternate because OpenVINO joins two of a kind to one operation, which adds up voxel by voxel.
    """
    from openvino import opset13 as op

    columns = op.reduce_mean(image, _axes(_Z), keep_dims=True)
    total = op.reduce_mean(op.reduce_sum(columns, _axes(_Y), keep_dims=True), _axes(_X), keep_dims=True)
    return op.divide(total, _size(image, _Y))


def _mean_square(image: Any) -> Any:
    """Return the mean of the squares over x, y and z, [1, C, 1, 1, 1]; the image is read once and copied nowhere."""
    from openvino import opset13 as op

    lengths = op.reduce_l2(image, _axes(_Z), keep_dims=True)
    sums = op.reduce_sum(op.multiply(lengths, lengths), _axes(_Y), keep_dims=True)
    total = op.reduce_mean(sums, _axes(_X), keep_dims=True)
    return op.divide(op.divide(total, _size(image, _Y)), _size(image, _Z))


def _size(image: Any, axis: int) -> Any:
    """Return the number of voxels along an axis, float32; a constant once the window's size is known."""
    from openvino import opset13 as op

    sizes = op.shape_of(image, output_type="i64")
    return op.convert(op.gather(sizes, _axes(axis), op.constant(np.int64(0))), "f32")


def _axes(axis: int) -> Any:
    from openvino import opset13 as op

    return op.constant(np.array([axis], dtype=np.int64))


def _number(value: float) -> Any:
    from openvino import opset13 as op

    return op.constant(np.float32(value))
