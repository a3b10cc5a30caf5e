"""The reference runtime: plain PyTorch on the MONAI network. It defines what correct means."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.click_head import ClickHead, ClickTokens, ImageSide
from VISTA3DCore.network.config import ModelConfig


class TorchBackend:
    """Runs one network on one device.

    :param network: what :func:`VISTA3DCore.network.architecture.build_network` returns.
    :param config: the network's configuration.
    :param device: where to run; weights are moved there once.
    :param upscaling: as for :class:`ClickHead`.
    """

    runtime, precision = "torch", "float32"

    def __init__(
        self,
        network: nn.Module,
        config: ModelConfig,
        device: torch.device | str = "cpu",
        upscaling: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self._network = network.eval().to(self.device)
        self._click_head = ClickHead(self._network.point_head, upscaling)

    def on(self, device: torch.device | str) -> TorchBackend:
        """Return the same network on another device; this one stays where it is."""
        network = build_network(self.config)
        network.load_state_dict(self._network.state_dict())
        return TorchBackend(network, self.config, device)

    @torch.inference_mode()
    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        """Return the features F of one window; the score of class c is the dot product e_c . F.

        The class head is linear after its last convolution, so features can be blended like logits
        (``ClassMappingClassify.forward`` in MONAI).

        :param patch: [1, 1, w, w, w], intensities scaled to [0, 1], on any device.
        :return: [C, w, w, w], float32, on this backend's device.
        """
        with _exact_convolutions():
            decoded = self._network.image_encoder(patch.to(self.device), with_point=False, with_label=True)[1]
            return self._network.class_head.image_post_mapping(decoded)[0].float()

    @torch.inference_mode()
    def class_matrix(self, indices: Sequence[int]) -> torch.Tensor:
        """Return the class vectors e_c of some classes; they do not depend on the image.

        :param indices: K class indices.
        :return: [K, C], float32, on this backend's device.
        """
        rows = torch.as_tensor(indices, dtype=torch.long, device=self.device).reshape(-1, 1)
        head = self._network.class_head
        return head.mlp(head.class_embeddings(rows))[:, 0].float()

    @torch.inference_mode()
    def click_features(self, patch: torch.Tensor) -> torch.Tensor:
        """Return what clicks in one window need of the image; it does not depend on them, so it can be kept.

        :param patch: [1, 1, w, w, w], intensities scaled to [0, 1], on any device.
        :return: [C, w/2, w/2, w/2], float32, on this backend's device.
        """
        with _exact_convolutions():
            decoded = self._network.image_encoder(patch.to(self.device), with_point=True, with_label=False)[0]
            return self._click_head.features(decoded)[0].float()

    @torch.inference_mode()
    def click_image(self, features: torch.Tensor) -> ImageSide:
        """Return the image's part of the first attention layer, for several calls of :meth:`click_scores`."""
        return self._click_head.image_side(features.to(self.device, torch.float32)[None])

    @torch.inference_mode()
    def click_scores(self, features: torch.Tensor | ImageSide, tokens: ClickTokens) -> torch.Tensor:
        """Return one object's scores (logits) in a window.

        :param features: of :meth:`click_features` (any float type), or of :meth:`click_image`.
        :param tokens: the clicks in the window.
        :return: [w, w, w], float32, on this backend's device.
        """
        image = features if isinstance(features, ImageSide) else self.click_image(features)
        with _exact_convolutions():
            return self._click_head.scores(image, *tokens.tensors(self.device))[0].float()


def _exact_convolutions() -> AbstractContextManager[None]:
    """By default cuDNN rounds float32 convolutions to TF32 (10 bits), which is not the reference's float32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
