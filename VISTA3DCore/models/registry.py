"""The models that can be had by name, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass

from VISTA3DCore.network.config import ModelConfig


@dataclass(frozen=True)
class RegistryEntry:
    """One model: source, pinned revision, licence and configuration.

    Hashes are those that the publisher prints; none is invented. Where none is published, the store records the hub's
    LFS SHA-256 at the first contact and checks against it from then on.

    :param repo: repository on the Hugging Face hub, or None.
    :param url: plain HTTPS address of the weights, or None for hub repositories and bundled files.
    :param revision: commit of the repository; ``main`` where no commit is known yet: the store then pins the commit
        that the hub reports at the first contact.
    :param filename: path inside the repository, of the download, or of the bundled resource.
    :param size: bytes, approximate: shown before the server was asked; a file that differs by more than 2 % is refused.
    :param licence_files: paths inside the repository in which the licence text stands; the first that exists counts.
    :param licence_url: page about the licence; for plain HTTPS entries it is the licence text itself.
    :param config: None where it travels inside the file (bundled model).
    :param cleanup: whether specks are removed from its automatic results unless the user chooses otherwise.
    :param near_clicks: whether its clicks change only what lies near them unless the user chooses otherwise.
    """

    name: str
    title: str
    filename: str
    size: int
    licence: str
    licence_url: str
    label_set: str
    config: ModelConfig | None
    repo: str | None = None
    url: str | None = None
    revision: str = ""
    sha256: str | None = None
    md5: str | None = None
    licence_files: tuple[str, ...] = ("LICENSE", "README.md")
    bundled: bool = False
    cleanup: bool = False
    near_clicks: bool = False

    @property
    def suffix(self) -> str:
        """The file's suffix, e.g. ``.safetensors``."""
        return "." + self.filename.rpartition(".")[2]


_RELEASED_SIZE = 871_900_000
"""217,964,982 parameters in float32 (and 72 numbers of the positional encoding): 871.9 MB."""

_ENTRIES = (
    RegistryEntry(
        name="vista3d-ct",
        title="VISTA3D for CT (NV-Segment-CT): 127 structures, automatic and by clicks",
        repo="nvidia/NV-Segment-CT",
        revision="afb51518689f71e6abb367ee6301b2cd0225c66a",
        filename="vista3d_pretrained_model/model.safetensors",
        size=_RELEASED_SIZE,
        licence="NVIDIA Open Model License",
        licence_url="https://huggingface.co/nvidia/NV-Segment-CT/blob/afb51518689f71e6abb367ee6301b2cd0225c66a/LICENSE",
        label_set="vista3d-ct",
        config=ModelConfig(name="vista3d-ct"),
    ),
    RegistryEntry(
        name="vista3d-ct-zoo",
        title="VISTA3D for CT as in MONAI's model zoo (bundle 0.5.4)",
        url="https://developer.download.nvidia.com/assets/Clara/monai/tutorials/model_zoo/model_vista3d.pt",
        revision="0.5.4",
        filename="model_vista3d.pt",
        size=_RELEASED_SIZE,
        md5="6ce45a8edde4400c5d28d5e74d7b61d5",  # models/vista3d/large_files.yml of the bundle
        licence="NVIDIA License (non-commercial)",
        licence_url="https://raw.githubusercontent.com/Project-MONAI/model-zoo/"
        "133b257e9efe954abae95a3ae2ddb1cace3ce72c/models/vista3d/LICENSE",
        label_set="vista3d-ct",
        config=ModelConfig(name="vista3d-ct-zoo"),
    ),
    RegistryEntry(
        name="vista3d-ctmr",
        title="VISTA3D for CT and MR (NV-Segment-CTMR): 345 labels, automatic only",
        repo="nvidia/NV-Segment-CTMR",
        revision="main",
        filename="vista3d_pretrained_model/model.safetensors",
        size=_RELEASED_SIZE,
        licence="NVIDIA License (non-commercial)",
        licence_url="https://huggingface.co/nvidia/NV-Segment-CTMR",
        label_set="vista3d-ctmr",
        # NV-Segment-CTMR/configs/inference.json: ScaleIntensityRangePercentilesd 1-99, patch_size 192x192x128.
        config=ModelConfig(
            name="vista3d-ctmr",
            window=(192, 192, 128),
            intensity_percentiles=(1.0, 99.0),
            label_set="vista3d-ctmr",
            click_branch=False,
        ),
    ),
    RegistryEntry(
        name="mini",
        title="Small demonstration model, part of VISTA3D for 3D Slicer; not a medical device",
        filename="Models/vista3d-mini.safetensors",
        size=20_000_000,
        licence="CC BY 4.0",
        licence_url="https://creativecommons.org/licenses/by/4.0/",
        label_set="vista3d-ct",
        config=None,
        bundled=True,
        cleanup=True,
        near_clicks=True,
    ),
)

REGISTRY: dict[str, RegistryEntry] = {entry.name: entry for entry in _ENTRIES}


def cleans_up(model: str) -> bool:
    """Return whether specks are removed by default from the automatic results of a model.

    :param model: the name in its configuration, so that a copy of the file behaves alike.
    """
    return model in REGISTRY and REGISTRY[model].cleanup


def clicks_near(model: str) -> bool:
    """Return whether clicks change only what lies near them by default.

    :param model: as for :func:`cleans_up`.
    """
    return model in REGISTRY and REGISTRY[model].near_clicks
