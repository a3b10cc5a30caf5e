"""The interactive head's two-way transformer for one object on a GPU: a few products of whole matrices.

As in :mod:`VISTA3DCore.network.streamed_attention`, the image is never projected: its linear maps are folded into those
of the prompts. The image's quarter of a million tokens are looked at in one piece, because there is room for that, and
the scores of all heads are one product, because many products of two to six columns would each be slow.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from VISTA3DCore.network.streamed_attention import Look, LookBack

Rows = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, nn.LayerNorm], torch.Tensor]
Among = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def two_way_at_once(
    transformer: nn.Module,
    image: torch.Tensor,
    place: torch.Tensor,
    prompts: torch.Tensor,
    blind: torch.Tensor | None,
    among: Among,
    rows: Rows,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run MONAI's ``TwoWayTransformer``, without gradients.

    :param image: [n, C]; it stays as it is.
    :param place: [n, C], the position code of the image tokens.
    :param prompts: [t, C].
    :param blind: [t], added to scores: -inf for prompts that nothing looks at; or None.
    :param among: a layer's first part, in which tokens [t, C] look at each other.
    :param rows: what :func:`VISTA3DCore.backends.cuda.kernels.operations.normalise_rows` does.
    :return: the prompts' tokens [t, C] and the image's [n, C].
    """
    tokens = prompts
    for layer in transformer.layers:
        tokens = among(layer, tokens, prompts)
        look = Look(layer.cross_attn_token_to_image, tokens + prompts)
        tokens = layer.norm2(tokens + look.of(image + place, image))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        back = LookBack(layer.cross_attn_image_to_token, tokens + prompts, tokens, blind)
        image = rows(image, back.weights(image + place).T @ back.values, back.bias, layer.norm4)
    look = Look(transformer.final_attn_token_to_image, tokens + prompts)
    return transformer.norm_final_attn(tokens + look.of(image + place, image)), image
