"""Convolutions with what lies around them, in the kernel that is the fastest for an image where it is."""

from __future__ import annotations

import torch

from VISTA3DCore.backends.cuda.kernels import cuda_convolve, triton_convolve, triton_normalize
from VISTA3DCore.backends.cuda.kernels.operations import Convolution, Entry, Moments


def convolve_fused(
    image: torch.Tensor,
    convolution: Convolution,
    entry: Entry | None = None,
    after: torch.Tensor | None = None,
    *,
    on_chip: bool = True,
) -> tuple[torch.Tensor, Moments] | None:
    """Return convolution(activation(norm(image))) + after and its moments, or None where no kernel is worth it.

    :param image: [B, C, x, y, z] on a CUDA device.
    :param on_chip: whether the kernel that holds all weights on the chip may be used.
    """
    plain = entry is None or not entry.activation.gelu
    if on_chip and plain and cuda_convolve.suits(image, convolution):
        return cuda_convolve.convolve(image, convolution, entry, after)
    if not (triton_convolve.suits(image, convolution) and triton_convolve.pays(image, convolution)):
        return None
    kind = convolution.weight.shape, convolution.stride, image.dtype, image.device
    if entry is not None:
        # Where the kernel fails, it is at the first time, and then the image must still be there.
        overwrite = entry.overwrite and kind in _RAN
        image = triton_normalize.normalise(
            image, entry.normalisation, entry.activation, moments=entry.moments, overwrite=overwrite
        )
    result = triton_convolve.convolve(image, convolution, after)
    _RAN.add(kind)
    return result


_RAN: set[tuple] = set()
