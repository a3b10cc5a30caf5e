"""The released bundle's pipeline as MONAI runs it: transforms, sliding window over class logits, click windows.

Needs monai (and nibabel, with which it reads NIfTI); nothing else of the project is used, so that it can be compared
with ours. The steps are those of NV-Segment-CT 0.6.0 (configs/inference.json, scripts/inferer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.apps.vista3d.inferer import point_based_window_inferer
from monai.apps.vista3d.transforms import VistaPostTransformd
from monai.inferers import SlidingWindowInferer, SlidingWindowInfererAdapt
from monai.transforms import (
    CastToTyped,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
)

from VISTA3DCore.network.config import ModelConfig


def reading() -> Compose:
    """Return the transform that reads a file."""
    return Compose([LoadImaged(keys="image", image_only=True)])


def preprocessing(config: ModelConfig, device: torch.device | str = "cpu") -> Compose:
    """Return the transforms between the file and the network; they run on the device, as the bundle has it."""
    low, high = config.intensity_range
    return Compose(
        [
            EnsureChannelFirstd(keys="image"),
            EnsureTyped(keys="image", device=torch.device(device), track_meta=True),
            Spacingd(keys="image", pixdim=config.spacing, mode="bilinear"),
            CropForegroundd(keys="image", source_key="image", margin=10, allow_smaller=True),
            ScaleIntensityRanged(keys="image", a_min=low, a_max=high, b_min=0, b_max=1, clip=True),
            Orientationd(keys="image", axcodes="RAS"),
            CastToTyped(keys="image", dtype=torch.float32),
        ]
    )


def labelling() -> VistaPostTransformd:
    """Return the transform from logits to labels."""
    return VistaPostTransformd(keys="pred")


def restoration(transforms: Compose) -> Invertd:
    """Return the transform that brings labels back to the file's grid."""
    return Invertd(keys="pred", transform=transforms, orig_keys="image", nearest_interp=True, to_tensor=True)


def writing(folder: Path) -> SaveImaged:
    """Return the transform that writes labels as the bundle does: compressed NIfTI of float32."""
    return SaveImaged(
        keys="pred", resample=False, output_dir=folder, output_ext=".nii.gz", output_dtype=np.float32,
        separate_folder=False, print_log=False,
    )  # fmt: skip


@dataclass
class Reference:
    """The reference's network with its two inferers.

    :param network: what ``build_network`` returns, in evaluation mode, on its device.
    :param half: float16 autocast, as the bundle's evaluator does on CUDA (``amp``).
    :param batch: windows at a time; 1 in the bundle.
    :param windows: first voxels of the windows of the last run.
    """

    network: torch.nn.Module
    config: ModelConfig
    half: bool = False
    batch: int = 1
    windows: list = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def inferer(self, preset: str) -> SlidingWindowInferer:
        """Return MONAI's sliding window: ``bundle`` as NV-Segment-CT/scripts/inferer.py builds it, or ``paper``."""
        common = {"sw_batch_size": self.batch, "with_coord": True, "padding_mode": "replicate"}
        window = list(self.config.window)
        if preset == "bundle":
            return SlidingWindowInfererAdapt(roi_size=window, **common)
        return SlidingWindowInferer(roi_size=window, overlap=0.625, mode="gaussian", **common)

    @torch.inference_mode()
    def logits(self, image: np.ndarray | torch.Tensor, classes: Sequence[int], preset: str = "bundle") -> torch.Tensor:
        """Return the class logits [1, K, x, y, z] of an image [x, y, z] on the model grid."""
        self.windows = []

        def predictor(patch: torch.Tensor, coords: list, **options: object) -> torch.Tensor:
            self.windows += [tuple(axis.start for axis in one[2:]) for one in coords]
            return self.network(patch, patch_coords=coords, **options)

        image = torch.as_tensor(image, dtype=torch.float32, device=self.device)
        with self._precision():
            return self.inferer(preset)(
                image[None, None], predictor, transpose=True, class_vector=self._column(classes)
            )

    @torch.inference_mode()
    def window_logits(self, patch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Return the class logits [1, K, w, w, w] of one window [1, 1, w, w, w]."""
        with self._precision():
            return self.network(patch.to(self.device), class_vector=self._column(classes), transpose=True)

    @torch.inference_mode()
    def click_logits(self, image: torch.Tensor, places: np.ndarray, positive: Sequence[bool], class_index: int):
        """Return one object's logits [1, 1, x, y, z]: a window around each click, all of them anew.

        :param image: [1, 1, x, y, z]; :param places: [n, 3] voxel coordinates; :param positive: [n] polarity.
        """
        points = torch.as_tensor(places, dtype=torch.float32, device=self.device)[None]
        labels = torch.tensor([list(positive)], device=self.device).long()
        prompt = self._column([class_index])
        with self._precision():
            return point_based_window_inferer(
                image.to(self.device), self.config.window, self.network, points, labels,
                prompt_class=prompt, transpose=True,
            )  # fmt: skip

    def _column(self, classes: Sequence[int]) -> torch.Tensor:
        return torch.tensor(list(classes), device=self.device)[:, None]

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.float16) if self.half else nullcontext()
