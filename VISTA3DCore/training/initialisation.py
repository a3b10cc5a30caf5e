"""A start for the interactive head from which training on few CTs gets going."""

from __future__ import annotations

import torch
from torch import nn

_SHARPNESS = 3.0
_WAVELENGTH = 0.5
_TOKEN_SCALE = 0.1


@torch.no_grad()
def localise_attention(head: nn.Module) -> None:
    """Let every attention between clicks and image begin as a look at the click's surroundings.

    With random projections attention is spread over the whole window at first, and an answer does not depend on where
    the click is; on few CTs training stays there for thousands of steps. Here each attention head compares positions
    along independent directions of the position code, so that its weights fall off with the distance from the click.

    :param head: a MONAI ``PointMappingSAM``; changed in place.
    """
    matrix = head.pe_layer.positional_encoding_gaussian_matrix
    # Standard deviation of the frequencies, in cycles per half window: about four voxels of 48 stay in focus.
    matrix.copy_(torch.randn_like(matrix) * _WAVELENGTH)
    for embedding in (*head.point_embeddings, head.special_class_embed, head.not_a_point_embed):
        embedding.weight.mul_(_TOKEN_SCALE)
    transformer = head.transformer
    for layer in transformer.layers:
        _compare_positions(layer.cross_attn_token_to_image)
        _compare_positions(layer.cross_attn_image_to_token)
    _compare_positions(transformer.final_attn_token_to_image)


def _compare_positions(attention: nn.Module) -> None:
    """Make both projections of an attention pick sine and cosine of the same frequencies, different ones per head."""
    channels, inner = attention.embedding_dim, attention.internal_dim
    frequencies = torch.arange(inner // 2)
    picked = torch.stack([frequencies, frequencies + channels // 2], dim=1).flatten()
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.mul_(0.2)
        projection.weight[torch.arange(inner), picked] += _SHARPNESS
        projection.bias.zero_()


@torch.no_grad()
def expect_background(network: nn.Module, image: torch.Tensor, score: float = -5.0) -> None:
    """Let every class score about ``score`` everywhere, so that background, which scores 0, is what a voxel begins as.

    Class scores have no bias. Without this, hundreds of steps go by in which the features grow until all classes are
    denied everywhere, and it takes thousands to undo that.

    :param image: [1, 1, i, j, k], a patch as training sees it.
    """
    _, features = network.image_encoder(image, with_point=False, with_label=True)
    mean = network.class_head.image_post_mapping(features).mean((0, 2, 3, 4))
    network.class_head.mlp[-1].bias.copy_(score * mean / mean.square().sum())


@torch.no_grad()
def copy_class_decoder(network: nn.Module) -> None:
    """Let the click decoder begin as the trained decoder of the automatic branch, as far as their shapes agree.

    Its features tell anatomy apart already; a random decoder would have to learn that from clicks.
    """
    learned, target = network.image_encoder.up_layers_auto.state_dict(), network.image_encoder.up_layers.state_dict()
    same = {name: value for name, value in learned.items() if name in target and target[name].shape == value.shape}
    network.image_encoder.up_layers.load_state_dict(same, strict=False)
