"""The interactive head in three steps, so that what does not depend on the clicks is computed once per window.

The arithmetic is that of MONAI's ``PointMappingSAM.forward`` (networks/nets/vista3d.py), whose weights are used as they
are. Two things differ: what attention makes of the image alone is kept (or, on a processor, not needed: see
``streamed_attention``), and the last convolution (C -> C) and the hyper-network's dot product, which nothing separates,
are one convolution C -> 1: mask = h . (W * u + b) = (h . W) * u + h . b.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import pad

from VISTA3DCore.network.folding import folded_convolution, folded_tail, trained_tail
from VISTA3DCore.network.streamed_attention import attend_to_themselves, two_way

POSITIVE, NEGATIVE, PADDING = 1, 0, -1
SPECIAL = 2
"""Added to the labels of clicks for structures that need special tokens."""


@dataclass(frozen=True)
class ClickTokens:
    """What the clicks in a window tell the network about one object.

    :param positions: [n, 3] voxel coordinates in the window, float; a voxel's centre has whole numbers.
    :param positive: [n] polarity.
    :param special: the structure needs special tokens, because a click in it is ambiguous (a tumour in an organ).
    :param zero_shot: the object is none that the model knows.
    """

    positions: tuple[tuple[float, float, float], ...]
    positive: tuple[bool, ...]
    special: bool = False
    zero_shot: bool = False

    def tensors(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return coordinates [1, n, 3], labels [1, n] and the zero-shot flag [1]."""
        labels = [(POSITIVE if positive else NEGATIVE) + SPECIAL * self.special for positive in self.positive]
        return (
            torch.tensor([self.positions], dtype=torch.float32, device=device),
            torch.tensor([labels], dtype=torch.long, device=device),
            torch.tensor([self.zero_shot], device=device),
        )


@dataclass(frozen=True)
class ImageSide:
    """What the head knows of a window before any click; n is the number of its image tokens.

    :param tokens: [1, n, C].
    :param shape: the window at half resolution, n voxels.
    :param first: what the first layer makes of the tokens; None where attention is streamed.
    """

    tokens: torch.Tensor
    shape: tuple[int, int, int]
    first: Projections | None


@dataclass(frozen=True)
class Projections:
    """A layer's projections of the image's tokens, each [B, heads, n, c].

    :param keys: for the click tokens' look at the image; :param values: likewise.
    :param queries: for the image's look at the click tokens.
    """

    keys: torch.Tensor
    values: torch.Tensor
    queries: torch.Tensor

    @classmethod
    def of(cls, layer: nn.Module, image: torch.Tensor, place: torch.Tensor) -> Projections:
        """Project tokens [B, n, C] with the position code [1, n, C]."""
        look, back, placed = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token, image + place
        return cls(*_projected(look, placed, image), _heads(back, back.q_proj(placed)))


class ClickHead:
    """Runs a network's interactive head; with gradients where they are enabled.

    :param head: a MONAI ``PointMappingSAM``.
    :param upscaling: in which type its transposed convolution runs, most of the work for a click in an encoded window
        (33 of 45 GFLOP in the released network); other than float32 on processors and without gradients only.
    """

    def __init__(self, head: nn.Module, upscaling: torch.dtype = torch.float32) -> None:
        self._head = head
        self._upscaling = upscaling
        if upscaling != torch.float32:
            self._transposed = copy.deepcopy(head.output_upscaling[0])
            self._transposed.to(dtype=upscaling, memory_format=torch.channels_last_3d)
        self._positions: dict[tuple, torch.Tensor] = {}

    def features(self, decoded: torch.Tensor) -> torch.Tensor:
        """Return the click features [1, C, w/2, w/2, w/2] of decoded features [1, C, w, w, w]."""
        features = self._head.feat_downsample(decoded)
        if features.requires_grad:
            # On CPUs, torch (2.13) reads a channels-last gradient of an instance normalisation as if it were
            # contiguous: everything before it would learn from shuffled gradients.
            features.register_hook(torch.Tensor.contiguous)
        return features

    def image_side(self, features: torch.Tensor) -> ImageSide:
        """Return what of the first transformer layer depends on the click features [1, C, x, y, z] alone."""
        tokens, shape = features.flatten(2).transpose(1, 2).contiguous(), tuple(features.shape[2:])
        if _streams(tokens):
            return ImageSide(tokens, shape, None)
        first = self._head.transformer.layers[0]
        return ImageSide(tokens, shape, Projections.of(first, tokens, self._position_grid(shape, features.device)))

    def scores(
        self,
        side: ImageSide,
        coordinates: torch.Tensor,
        labels: torch.Tensor,
        zero_shot: torch.Tensor,
        empty: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the scores (logits) of objects in one window.

        :param coordinates: [B, N, 3] voxel coordinates of the clicks in the window.
        :param labels: [B, N]: 0 negative, 1 positive, 2 and 3 the same with special tokens, -1 padding.
        :param zero_shot: [B] bool.
        :param empty: [B, N] bool, places that change nothing, unlike padding, which the network sees; or None.
        :return: [B, w, w, w].
        """
        prompts = self._prompts(coordinates, labels, zero_shot, side.shape)
        tokens, image = self._transform(side, prompts, None if empty is None else _blindness(empty))
        return self._mask(image, self._head.output_hypernetworks_mlps(tokens[:, 0]), side.shape)

    def _prompts(
        self, coordinates: torch.Tensor, labels: torch.Tensor, zero_shot: torch.Tensor, shape: tuple[int, int, int]
    ) -> torch.Tensor:
        """Return the token sequence [B, 1 + N + 1, C]: mask, clicks, kind of object."""
        head = self._head
        window = tuple(2 * side for side in shape)
        clicks = head.pe_layer.forward_with_coords(coordinates.float() + 0.5, window)
        polarity = torch.where(
            (labels % 2 == POSITIVE)[..., None], head.point_embeddings[1].weight, head.point_embeddings[0].weight
        )
        clicks = clicks + polarity + (labels >= SPECIAL)[..., None] * head.special_class_embed.weight
        clicks = torch.where((labels == PADDING)[..., None], head.not_a_point_embed.weight, clicks)
        mask = head.mask_tokens.weight.expand(len(clicks), 1, -1)
        kind = torch.where(zero_shot[:, None, None], head.zeroshot_embed.weight, head.supported_embed.weight)
        return torch.cat([mask, clicks, kind], dim=1)

    def _transform(
        self, side: ImageSide, prompts: torch.Tensor, blind: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the two-way transformer and return its tokens [B, t, C] and the image's [B, n, C]."""
        transformer = self._head.transformer
        place = self._position_grid(side.shape, prompts.device)
        if _streams(prompts) and len(prompts) == 1 and blind is None:
            tokens, image = two_way(transformer, side.tokens[0], place[0], prompts[0])
            return tokens[None], image[None]
        tokens, image = prompts, side.tokens
        for number, layer in enumerate(transformer.layers):
            known = side.first if number == 0 else None
            projected = known or Projections.of(layer, image, place)
            tokens, image = self._layer(layer, tokens, prompts, image, projected, blind)
        last = transformer.final_attn_token_to_image
        seen = _attend(last, last.q_proj(tokens + prompts), *_projected(last, image + place, image))
        return transformer.norm_final_attn(tokens + seen), image

    @staticmethod
    def _layer(
        layer: nn.Module,
        tokens: torch.Tensor,
        prompts: torch.Tensor,
        image: torch.Tensor,
        projected: Projections,
        blind: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        look, back = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        tokens = among_themselves(layer, tokens, prompts, blind)
        tokens = layer.norm2(tokens + _attend(look, look.q_proj(tokens + prompts), projected.keys, projected.values))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        seen = _attend_heads(back, projected.queries, *_projected(back, tokens + prompts, tokens), blind)
        return tokens, layer.norm4(image + seen)

    def _mask(self, image: torch.Tensor, hyper: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Return hyper . upscaled image, [B, w, w, w], with the last convolution folded into the dot product."""
        transposed, norm, activation, last = self._head.output_upscaling
        kernel, bias = torch.einsum("bo,oixyz->bixyz", hyper, last.weight), hyper @ last.bias
        # The tokens lie channels-last in memory anyway, and the transposed convolution is fastest so.
        low = image.contiguous().view(len(image), *shape, -1).permute(0, 4, 1, 2, 3)
        exact = self._upscaling == torch.float32
        upscaled = transposed(low) if exact else self._transposed(low.to(self._upscaling))
        if _streams(low) and len(low) == 1:
            return folded_tail(upscaled, kernel, bias, norm.eps)
        if low.device.type == "cpu" and torch.is_grad_enabled():
            objects = zip(upscaled.split(1), kernel.split(1), bias.split(1), strict=True)
            return torch.cat([trained_tail(*one, norm.eps) for one in objects])
        return folded_convolution(activation(norm(upscaled.float())), kernel, bias)

    def _position_grid(self, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
        """Return the position code of the image tokens [1, n, C]; it depends on the window's size alone."""
        key = (shape, device)
        if key not in self._positions:
            with torch.no_grad():
                self._positions[key] = self._head.pe_layer(shape).flatten(1).T[None].to(device)
        return self._positions[key]


def _streams(tensor: torch.Tensor) -> bool:
    """Return whether the arithmetic for processors, which knows no gradients, is used."""
    return tensor.device.type == "cpu" and not torch.is_grad_enabled()


def _heads(attention: nn.Module, projected: torch.Tensor) -> torch.Tensor:
    """Split [B, n, heads * c] into [B, heads, n, c]."""
    return projected.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _projected(attention: nn.Module, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _heads(attention, attention.k_proj(keys)), _heads(attention, attention.v_proj(values))


def _blindness(empty: torch.Tensor) -> torch.Tensor:
    """Return what added to scores [B, heads, n, 1 + N + 1] keeps everything from looking at empty places [B, N]."""
    nothing = torch.zeros(empty.shape, device=empty.device).masked_fill(empty, -math.inf)
    return pad(nothing, (1, 1))[:, None, None]


def among_themselves(
    layer: nn.Module, tokens: torch.Tensor, prompts: torch.Tensor, blind: torch.Tensor | None
) -> torch.Tensor:
    """As :func:`attend_to_themselves`, but blind for empty places."""
    if blind is None:
        return attend_to_themselves(layer, tokens, prompts)
    attention, first = layer.self_attn, layer.skip_first_layer_pe
    placed = tokens if first else tokens + prompts
    seen = _attend(attention, attention.q_proj(placed), *_projected(attention, placed, tokens), blind)
    return layer.norm1(seen if first else tokens + seen)


def _attend(
    attention: nn.Module,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    blind: torch.Tensor | None = None,
) -> torch.Tensor:
    return _attend_heads(attention, _heads(attention, queries), keys, values, blind)


def _attend_heads(
    attention: nn.Module,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    blind: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend, with all tensors [B, heads, n, c] (B may be 1 on one side), and join the heads: [B, n, C].

    Written out because c is tiny (2 to 6), for which the libraries' fused attention is slower than this.
    """
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    weights = torch.softmax(scores if blind is None else scores + blind, dim=-1)
    return attention.out_proj((weights @ values).transpose(1, 2).flatten(2))
