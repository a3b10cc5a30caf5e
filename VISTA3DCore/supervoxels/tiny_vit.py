"""TinyViT as LiteMedSAM uses it: a hierarchical vision transformer, 256x256 slices to 256 channels at 64x64.

Written from the papers (Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022,
section 3.2 and table 1, TinyViT-5M; Kirillov et al., "Segment Anything", ICCV 2023, appendix A, for the neck) and from
the names and shapes of the tensors in LiteMedSAM's checkpoint, which the modules are named after. Where LiteMedSAM
differs from the paper, the shapes tell: its patch embedding consists of 1x1 convolutions, so that the input is not
reduced before the first stage.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
STRIDES = (2, 2, 1)
"""Of the reductions between stages; the last one keeps the 64x64 pixels that the decoder expects."""
EMBEDDING = 256
EXPANSION = 4


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation, which :meth:`fold` joins into one convolution."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.c(x))

    def fold(self) -> nn.Conv2d:
        """Return the same function, in evaluation, as one convolution."""
        return nn.utils.fusion.fuse_conv_bn_eval(self.c, self.bn)


class ConvBlock(nn.Module):
    """Inverted residual: widen, filter each channel, narrow, add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, EXPANSION * width)
        self.conv2 = ConvNorm(EXPANSION * width, EXPANSION * width, 3, groups=EXPANSION * width)
        self.conv3 = ConvNorm(EXPANSION * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Reduction(nn.Module):
    """From one stage to the next: other width, fewer pixels."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(before, after)
        self.conv2 = ConvNorm(after, after, 3, stride, groups=after)
        self.conv3 = ConvNorm(after, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Self-attention inside a square window, with one learned bias per head and absolute offset (|dy|, |dx|)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("offsets", _absolute_offsets(window), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within windows.

        :param x: [windows, pixels, width].
        """
        count, pixels, width = x.shape
        # Query, key and value of one head stand side by side in the checkpoint.
        joined = self.qkv(self.norm(x)).view(count, pixels, self.heads, 3, width // self.heads)
        query, key, value = joined.permute(3, 0, 2, 1, 4).unbind(0)
        assert isinstance(self.offsets, torch.Tensor)
        bias = self.attention_biases[:, self.offsets].to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.proj(mixed.transpose(1, 2).reshape(count, pixels, width))


def _absolute_offsets(window: int) -> torch.Tensor:
    """Return [pixels, pixels]: which bias belongs to a pair of pixels of a window, counted row by row."""
    places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).reshape(-1, 2)
    rows, columns = (places[:, None] - places[None]).abs().unbind(-1)
    return rows * window + columns


class Mlp(nn.Module):
    """The transformer's two-layer perceptron, normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TransformerBlock(nn.Module):
    """Window attention, a convolution of each channel with its neighbourhood, a perceptron."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attended(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)

    def _attended(self, x: torch.Tensor) -> torch.Tensor:
        """Cut [b, h, w, c] into windows, zeros added at the lower and right border, attend, and put together."""
        batch, height, width, channels = x.shape
        side = self.window
        down, across = -(-height // side), -(-width // side)
        x = F.pad(x, (0, 0, 0, across * side - width, 0, down * side - height))
        x = x.reshape(batch, down, side, across, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels))
        x = x.reshape(batch, down, across, side, side, channels).transpose(2, 3)
        return x.reshape(batch, down * side, across * side, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one width and, but for the last stage, the reduction after them."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(self._block(number) for _ in range(DEPTHS[number])))
        last = number == len(WIDTHS) - 1
        self.downsample = nn.Identity() if last else Reduction(WIDTHS[number], WIDTHS[number + 1], STRIDES[number])

    @staticmethod
    def _block(number: int) -> nn.Module:
        width = WIDTHS[number]
        return TransformerBlock(width, HEADS[number], WINDOWS[number]) if number else ConvBlock(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.blocks(x))


class PatchEmbedding(nn.Module):
    """Two 1x1 convolutions from 3 channels to the first stage's width."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, WIDTHS[0] // 2), nn.GELU(), ConvNorm(WIDTHS[0] // 2, WIDTHS[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.seq(x)


class LayerNorm2d(nn.Module):
    """Normalises the channels of each pixel."""

    def __init__(self, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.epsilon)
        return x.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """The image encoder: [b, 3, 256, 256] in 0..1 -> [b, 256, 64, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding()
        self.layers = nn.Sequential(*(Stage(number) for number in range(len(WIDTHS))))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], EMBEDDING, 1, bias=False),
            LayerNorm2d(EMBEDDING),
            nn.Conv2d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neck(self.layers(self.patch_embed(x)))


def upscaling() -> nn.Sequential:
    """Return the mask decoder's up-scaling layers, [b, 256, h, w] -> [b, 32, 4 h, 4 w] (Segment Anything, app. A)."""
    return nn.Sequential(
        nn.ConvTranspose2d(EMBEDDING, EMBEDDING // 4, 2, 2),
        LayerNorm2d(EMBEDDING // 4),
        nn.GELU(),
        nn.ConvTranspose2d(EMBEDDING // 4, EMBEDDING // 8, 2, 2),
        nn.GELU(),
    )


def fold_norms(module: nn.Module) -> None:
    """Replace every :class:`ConvNorm` by one convolution; for evaluation alone."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, child.fold())
        else:
            fold_norms(child)
