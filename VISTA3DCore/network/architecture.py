"""The VISTA3D network, assembled from MONAI's building blocks by a small configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.packages import left_out

# Where it is installed, MONAI imports it for language models that have nothing to do with ours: 190 MB and seconds.
with left_out("transformers"):
    from monai.networks.nets.segresnet_ds import SegResNetDS2
    from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM


def build_network(config: ModelConfig) -> VISTA3D:
    """Return the network with random weights, in evaluation mode.

    With the default configuration it equals ``monai.networks.nets.vista3d132()``; other widths and depths give the
    same network with fewer channels or levels. Parameter names are those of the released checkpoints.

    :param config: width (C), click_width, blocks_down (levels), n_classes and last_supported are used here.
    """
    encoder = SegResNetDS2(
        in_channels=1,
        blocks_down=tuple(config.blocks_down),
        norm="instance",
        out_channels=config.width,
        init_filters=config.width,
        dsdepth=1,
    )
    class_head = ClassMappingClassify(n_classes=config.n_classes, feature_size=config.width, use_mlp=True)
    if config.click_features != config.width:
        encoder.up_layers[-1]["head"] = nn.Conv3d(config.width, config.click_features, kernel_size=1)
    point_head = PointMappingSAM(
        feature_size=config.click_features, n_classes=config.n_classes, last_supported=config.last_supported
    )
    return VISTA3D(image_encoder=encoder, class_head=class_head, point_head=point_head).eval()


def empty_network(config: ModelConfig) -> VISTA3D:
    """Return the network without weights: its parameters take no memory, and are to be assigned."""
    with torch.device("meta"), _Unfilled():
        return build_network(config)


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters on the meta device as they are.

    To draw random numbers for them, or to compute with them, torch would load its compiler: 150 MB and seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn:  # a few numbers of the positional encoding
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)
