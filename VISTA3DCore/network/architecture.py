"""The VISTA3D network, assembled from MONAI's building blocks by a small configuration."""

from __future__ import annotations

from monai.networks.nets.segresnet_ds import SegResNetDS2
from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM
from torch import nn

from VISTA3DCore.network.config import ModelConfig


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
