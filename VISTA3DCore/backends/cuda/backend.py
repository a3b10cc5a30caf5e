"""The runtime for GPUs: half precision, channels-last images, fused kernels, and CUDA graphs.

The same code runs without Triton and without graphs on every other device, where it is tested and where Apple's GPUs
may use it by name.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from VISTA3DCore.backends.cuda.fused_click_head import FusedClickHead, PlacedTokens
from VISTA3DCore.backends.cuda.fused_network import Decoder, Encoder, Rebuilder
from VISTA3DCore.backends.cuda.graphs import GraphCache
from VISTA3DCore.backends.cuda.kernels.choice import Kernels, kernels_for
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.network.click_head import ClickTokens, ImageSide
from VISTA3DCore.network.config import ModelConfig

# Batches of windows that may wait for the device: enough to keep it busy, few enough for a prompt cancellation.
_AHEAD = 2

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Mode:
    """How convolutions are computed.

    :param precision: a key of :data:`DTYPES`.
    :param channels_last: how images lie in memory.
    :param tensor_float: float32 factors may be rounded to 10 bits (TF32), which is float16's precision.
    """

    precision: str = "float16"
    channels_last: bool = True
    tensor_float: bool = False

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last_3d if self.channels_last else torch.contiguous_format


class CudaBackend:
    """Runs one network on one GPU. What it returns may be overwritten by its next call of the same kind.

    :param network: what :func:`VISTA3DCore.network.architecture.build_network` returns; it is moved to the CPU.
    :param config: the network's configuration.
    :param device: where to run; the weights of each branch are converted and moved there at its first use.
    :param kernels: which form of the kernels; by default what suits the device.
    :param graphs: whether to use CUDA graphs.
    :param batch: windows that are computed at once. On an H100 four of them take 3 % less time than one after the
        other, and 2.6 GB more memory.
    :raises UnknownLayerError: if the network has a layer that cannot be rebuilt.
    """

    def __init__(
        self,
        network: nn.Module,
        config: ModelConfig,
        device: torch.device | str = "cuda",
        mode: Mode = Mode(),
        *,
        kernels: Kernels | None = None,
        graphs: bool = True,
        batch: int = 1,
    ) -> None:
        self.config, self.device, self.mode = config, torch.device(device), mode
        self.kernels = kernels or kernels_for(self.device)
        self.batch = batch
        self._reference = TorchBackend(network, config, "cpu")
        self._network = network
        self._graphs = GraphCache(self.device, graphs)
        self._rebuild = Rebuilder(self.kernels, self.device, mode.dtype, mode.memory_format)
        self._underway: deque[torch.cuda.Event] = deque()

    runtime = "cuda"

    @property
    def precision(self) -> str:
        return self.mode.precision

    @property
    def channels_last(self) -> bool:
        """Whether features lie channels-last in memory."""
        return self.mode.channels_last

    def on(self, device: torch.device | str) -> CudaBackend | TorchBackend:
        """Return the same network on another device; this one stays where it is."""
        if torch.device(device).type == "cpu":
            return self._reference
        return CudaBackend(self._network, self.config, device, self.mode, graphs=self._graphs.enabled)

    def shrink(self) -> bool:
        """Halve the batch and free what the larger one took; return False if it is one window already."""
        if self.batch == 1:
            return False
        self.batch //= 2
        self.forget()
        return True

    def forget(self) -> None:
        """Free what graphs hold; they are captured again when they are needed."""
        self._graphs.forget()

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        """As :meth:`TorchBackend.automatic_features`."""
        return self.automatic_features_batch(patch)[0].to(torch.float32, copy=True)

    @torch.inference_mode()
    def automatic_features_batch(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the features of several windows.

        :param patches: [B, 1, w, w, w], intensities scaled to [0, 1], on any device.
        :return: [B, C, w, w, w] in this backend's precision, valid until the next call. The device may still be
            computing them; at most two batches are underway.
        """
        self._wait()
        features = self._run("automatic", self._automatic, patches)
        self._note()
        return features

    def class_matrix(self, indices: Sequence[int]) -> torch.Tensor:
        """As :meth:`TorchBackend.class_matrix`."""
        return self._reference.class_matrix(indices).to(self.device)

    @torch.inference_mode()
    def click_features(self, patch: torch.Tensor) -> torch.Tensor:
        """As :meth:`TorchBackend.click_features`."""
        return self._run("clicks", self._clicks, patch)[0].to(torch.float32, copy=True)

    @torch.inference_mode()
    def click_image(self, features: torch.Tensor) -> ImageSide:
        """As :meth:`TorchBackend.click_image`."""
        tokens = features.to(self.device, torch.float32)
        return self._click_head.image_side(tokens[None])

    @torch.inference_mode()
    def click_scores(self, features: torch.Tensor | ImageSide, tokens: ClickTokens) -> torch.Tensor:
        """As :meth:`TorchBackend.click_scores`."""
        side = features if isinstance(features, ImageSide) else self.click_image(features)
        placed = PlacedTokens.of(tokens, self.device)
        prompts = placed.coordinates, placed.labels, placed.zero_shot, placed.empty

        def scores(image: torch.Tensor, *prompts: torch.Tensor) -> torch.Tensor:
            return self._click_head.scores(ImageSide(image, side.shape, None), *prompts)

        with self._convolutions():
            return self._graphs.call(f"scores {side.shape}", scores, side.tokens, *prompts, constant=1)[0].clone()

    def _run(self, name: str, branch: tuple[Encoder, Decoder], patches: torch.Tensor) -> torch.Tensor:
        encode, decode = branch
        patches = patches.to(self.device, self.mode.dtype, non_blocking=True).contiguous()
        if self.mode.channels_last:
            patches = _channels_last(patches)
        with self._convolutions():
            return self._graphs.call(name, lambda images: decode(encode(images)), patches)

    @cached_property
    def _encoder(self) -> Encoder:
        return self._rebuild.encoder(self._network.image_encoder.encoder)

    @cached_property
    def _automatic(self) -> tuple[Encoder, Decoder]:
        tail = self._network.class_head.image_post_mapping
        return self._encoder, self._rebuild.decoder(self._network.image_encoder.up_layers_auto, tail)

    @cached_property
    def _clicks(self) -> tuple[Encoder, Decoder]:
        tail = self._network.point_head.feat_downsample
        return self._encoder, self._rebuild.decoder(self._network.image_encoder.up_layers, tail)

    @cached_property
    def _click_head(self) -> FusedClickHead:
        head = copy.deepcopy(self._network.point_head).to(self.device)
        return FusedClickHead(head, self._rebuild, self.mode.dtype, self.mode.memory_format)

    def _convolutions(self) -> AbstractContextManager[None]:
        """Let cuDNN measure which of its algorithms is fastest; float32 stays exact unless the mode says otherwise."""
        return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=self.mode.tensor_float)

    def _wait(self) -> None:
        """Let the device catch up, so that progress is true and a cancellation ends the work soon."""
        while len(self._underway) >= _AHEAD:
            self._underway.popleft().synchronize()

    def _note(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.device))
            self._underway.append(event)


def _channels_last(patches: torch.Tensor) -> torch.Tensor:
    """Return contiguous patches [B, 1, x, y, z] with the strides of channels-last ones.

    With one channel the memory is the same either way, but the strides tell the first convolution what to give.
    """
    _, _, x, y, z = patches.shape
    return patches.as_strided(patches.shape, (x * y * z, 1, y * z, z, 1))
