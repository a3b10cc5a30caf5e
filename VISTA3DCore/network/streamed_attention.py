"""The interactive head's two-way transformer for one object on a processor, in one pass over the image per layer.

The image has a quarter of a million tokens, the prompts have a handful. So the image is never projected: its linear
maps are folded into those of the prompts, q . (W x + b) = (W^T q) . x + q . b, and weighted means are taken before they
are projected. What one layer makes of a chunk of the image is what the next one looks at, while the chunk is still in
the processor's cache. The weighted means over all of the image are summed up with running maxima (online softmax,
Milakov and Gimelshein 2018).

In this module n is the number of image tokens, t that of prompt tokens, h that of heads, c a head's channels.
"""

from __future__ import annotations

import math

import torch
from torch import nn

_CHUNK = 8192
"""Image tokens at a time."""


def two_way(
    transformer: nn.Module, image: torch.Tensor, place: torch.Tensor, prompts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run MONAI's ``TwoWayTransformer``, without gradients.

    :param image: [n, C]; it stays as it is.
    :param place: [n, C], the position code of the image tokens.
    :param prompts: [t, C].
    :return: the prompts' tokens [t, C] and the image's [n, C].
    """
    tokens = attend_to_themselves(transformer.layers[0], prompts[None], prompts[None])[0]
    looks = [layer.cross_attn_token_to_image for layer in transformer.layers] + [transformer.final_attn_token_to_image]
    look = _StreamedLook(looks[0], tokens + prompts)
    for start in range(0, len(image), _CHUNK):
        chunk = image[start : start + _CHUNK]
        look.add(chunk + place[start : start + _CHUNK], chunk)
    result = torch.empty_like(image)
    for number, layer in enumerate(transformer.layers):
        tokens = layer.norm2(tokens + look.seen())
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        back = LookBack(layer.cross_attn_image_to_token, tokens + prompts, tokens)
        if number + 1 < len(transformer.layers):
            tokens = attend_to_themselves(transformer.layers[number + 1], tokens[None], prompts[None])[0]
        look = _StreamedLook(looks[number + 1], tokens + prompts)
        for start in range(0, len(image), _CHUNK):
            part = slice(start, start + _CHUNK)
            seen = torch.addmm(image[part], back.weights(image[part] + place[part]).T, back.values).add_(back.bias)
            result[part] = layer.norm4(seen)
            look.add(result[part] + place[part], result[part])
        image = result
    return transformer.norm_final_attn(tokens + look.seen()), result


def attend_to_themselves(layer: nn.Module, tokens: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """Run the first part of a layer: the tokens [B, t, C] look at each other."""
    if layer.skip_first_layer_pe:
        return layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
    placed = tokens + prompts
    return layer.norm1(tokens + layer.self_attn(q=placed, k=placed, v=tokens))


class Look:
    """What the prompts see of the image, which is never projected.

    :param queries: [t, C].
    """

    def __init__(self, attention: nn.Module, queries: torch.Tensor) -> None:
        self._attention, self._count = attention, len(queries)
        projected = _by_head(attention, attention.q_proj(queries))
        # The bias of the keys adds the same to all scores of a query, which a softmax does not see.
        keys = _by_head(attention, attention.k_proj.weight.T).transpose(1, 2)
        self._queries = (projected @ keys).flatten(0, 1) / math.sqrt(projected.shape[-1])

    def of(self, placed: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return what attention gives [t, C] for the whole image [n, C]; ``placed`` has the position code as well."""
        return self._projected(torch.softmax(self._queries @ placed.T, dim=1) @ image)

    def _projected(self, means: torch.Tensor) -> torch.Tensor:
        """Return what attention gives for the weighted means [h * t, C] of the image."""
        attention = self._attention
        values = means.unflatten(0, (attention.num_heads, self._count)) @ _by_head(attention, attention.v_proj.weight.T)
        values = values + attention.v_proj.bias.unflatten(0, (attention.num_heads, 1, -1))
        return attention.out_proj(values.transpose(0, 1).flatten(1))


class _StreamedLook(Look):
    """The same, of an image that is shown chunk by chunk."""

    def __init__(self, attention: nn.Module, queries: torch.Tensor) -> None:
        super().__init__(attention, queries)
        self._highest = queries.new_full((len(self._queries), 1), -math.inf)
        self._total = torch.zeros_like(self._highest)
        self._sums = torch.zeros_like(self._queries)

    def add(self, placed: torch.Tensor, chunk: torch.Tensor) -> None:
        """Show a chunk of the image [m, C], and the same with its position code."""
        scores = self._queries @ placed.T
        highest = torch.maximum(self._highest, scores.amax(dim=1, keepdim=True))
        fading = torch.exp(self._highest - highest)
        weights = scores.sub_(highest).exp_()
        self._total.mul_(fading).add_(weights.sum(dim=1, keepdim=True))
        self._sums.mul_(fading).addmm_(weights, chunk)
        self._highest = highest

    def seen(self) -> torch.Tensor:
        """Return what attention gives [t, C]."""
        return self._projected(self._sums / self._total)


class LookBack:
    """What the image sees of the prompts.

    :param keys: [t, C]; :param values: likewise.
    :param blind: [t], added to scores: -inf for prompts that it does not see; or None.
    """

    def __init__(
        self, attention: nn.Module, keys: torch.Tensor, values: torch.Tensor, blind: torch.Tensor | None = None
    ) -> None:
        self.bias, self._heads = attention.out_proj.bias, attention.num_heads
        projected = _by_head(attention, attention.k_proj(keys))
        queries = _by_head(attention, attention.q_proj.weight.T).transpose(1, 2)
        scale = 1 / math.sqrt(projected.shape[-1])
        self._keys = (projected @ queries).flatten(0, 1) * scale
        bias = attention.q_proj.bias.unflatten(0, (self._heads, -1, 1))
        self._key_bias = (projected @ bias).flatten(0, 1) * scale
        if blind is not None:
            self._key_bias = self._key_bias + blind.repeat(self._heads)[:, None]
        out = _by_head(attention, attention.out_proj.weight).transpose(1, 2)
        self.values = (_by_head(attention, attention.v_proj(values)) @ out).flatten(0, 1)
        """[h * t, C]; what is seen is their weighted sum, and :attr:`bias`."""

    def weights(self, placed: torch.Tensor) -> torch.Tensor:
        """Return the weights [h * t, m] for a part of the image with its position code [m, C]."""
        scores = torch.addmm(self._key_bias, self._keys, placed.T)
        return torch.softmax(scores.unflatten(0, (self._heads, -1)), dim=1).flatten(0, 1)


def _by_head(attention: nn.Module, projected: torch.Tensor) -> torch.Tensor:
    """Split [rows, h * c] into [h, rows, c]."""
    return projected.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
