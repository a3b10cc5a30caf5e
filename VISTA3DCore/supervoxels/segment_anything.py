"""Segment Anything as encoder, through transformers: any size, weights downloaded at the first use, never bundled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from VISTA3DCore.backends.devices import choose_device
from VISTA3DCore.errors import ModelError
from VISTA3DCore.models.digests import digest_file, require_hash
from VISTA3DCore.models.downloads import download
from VISTA3DCore.models.hub import hub_file
from VISTA3DCore.models.model_folder import disk_errors
from VISTA3DCore.models.sidecar import read_sidecar, write_sidecar
from VISTA3DCore.packages import require
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from transformers import SamModel

SIZES = ("base", "large", "huge")
FILES = ("config.json", "model.safetensors")
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, for values from 0 to 1: what Segment Anything was trained with."""


class SegmentAnything:
    """The image encoder and the mask decoder's up-scaling layers of a SamModel.

    :param model: a folder with ``config.json`` and ``model.safetensors`` (:func:`fetch_model`), or a loaded model.
    :param device: as for :func:`VISTA3DCore.backends.devices.choose_device`.
    :raises ModelError: if the weights do not fit the configuration.
    :raises DeviceError: if transformers is not installed.
    """

    window_hu = (-1000.0, 1000.0)  # as VISTA3D's published code
    channels: int

    def __init__(self, model: Path | SamModel, device: str = "auto") -> None:
        self.device = choose_device(device).device
        self.name = f"sam ({model.name})" if isinstance(model, Path) else "sam"
        self._model = (_loaded(model) if isinstance(model, Path) else model).eval().to(self.device)
        self.side = self._model.config.vision_config.image_size
        self.channels = self._model.mask_decoder.upscale_conv2.out_channels
        self._mean, self._deviation = (
            torch.tensor(values, device=self.device)[None, :, None, None] for values in (_MEAN, _DEVIATION)
        )

    @torch.inference_mode()
    def features(self, slices: torch.Tensor) -> torch.Tensor:
        """Encode slices; see :class:`VISTA3DCore.supervoxels.encoders.SliceEncoder`."""
        images = (slices[:, None] - self._mean) / self._deviation
        decoder = self._model.mask_decoder
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            embedding = self._model.vision_encoder(images).last_hidden_state
            x = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(embedding)))
            return decoder.activation(decoder.upscale_conv2(x)).float()


def fetch_model(size: str = "base", home: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the folder of ``facebook/sam-vit-<size>``, downloaded from the Hugging Face hub if it is not there.

    The commit and the SHA-256 that the hub reports at the first contact are recorded; both files are then compared
    with them at every use.

    :raises ModelError: if a file is damaged or the hub refuses.
    :raises OfflineError: if it is not on this computer and the hub may not, or cannot, be reached.
    :raises OutputError: if the disk is full or not writable.
    """
    if size not in SIZES:
        raise ModelError(f"There is no Segment Anything of the size '{size}'; choose {', '.join(SIZES)}.")
    name, progress = f"sam-vit-{size}", Progress.of(progress)
    folder = (home or user_data_dir()) / "models" / name
    weights = folder / FILES[1]
    if weights.is_file() and (facts := read_sidecar(weights)).get("files"):
        for file, sha256 in facts["files"].items():
            require_hash(file, digest_file(folder / file, progress), sha256, None)
        return folder
    _download(f"facebook/{name}", folder, progress)
    return folder


def _download(repo: str, folder: Path, progress: Progress) -> None:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    revision, hashes = "main", {}
    for number, file in enumerate(FILES):
        remote = hub_file(repo, file, revision)
        revision = remote.revision
        digest = download(remote, folder / file, progress.part(number / len(FILES), (number + 1) / len(FILES)))
        hashes[file] = digest.sha256
    write_sidecar(folder / FILES[1], {"name": folder.name, "repo": repo, "revision": revision, "files": hashes})


def _loaded(folder: Path) -> SamModel:
    require("Segment Anything", "transformers")
    from transformers import SamModel

    try:
        # With the loading information the library returns a pair, which its types do not say.
        loaded: Any = SamModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # each library has its own way to report a damaged file
        raise ModelError(f"The weights in '{folder}' cannot be loaded ({error}); delete the folder.") from error
    model, found = loaded
    wanted = [key for key in found["missing_keys"] if key.startswith(("vision_encoder.", "mask_decoder.upscale"))]
    if wanted:
        raise ModelError(f"The weights in '{folder}' lack '{wanted[0]}'; delete the folder to download them again.")
    return model
