"""The bundle's own chain of MONAI transforms around its sliding window, and phantoms in various geometries."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from beside_reference import reference
from monai.transforms import Compose
from reference_pipeline import Reference
from scipy import ndimage

from VISTA3DCore.network.config import ModelConfig


def preprocessing(config: ModelConfig) -> Compose:
    """Return the transforms from a file to the network's image."""
    return Compose([*reference.reading().transforms, *reference.preprocessing(config).transforms])


def segment_by_monai(path: Path, pipeline: Reference, classes: list[int], preset: str = "bundle") -> np.ndarray:
    """Return the reference's label map on the grid of the file."""
    transforms = preprocessing(pipeline.config)
    data = transforms({"image": str(path)})
    image = data["image"]
    logits = pipeline.logits(image[0].numpy(), classes, preset)
    data["pred"] = type(image)(logits[0].clone(), meta=image.meta)
    data["label_prompt"] = torch.tensor(classes)
    return np.rint(Compose([reference.labelling(), reference.restoration(transforms)])(data)["pred"][0].numpy()).astype(
        np.uint16
    )


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def ct_phantom(shape: tuple[int, int, int], affine: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a body with organs, bone and lung in air, in HU, defined in RAS mm around the grid's centre."""
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T
    points -= points.reshape(-1, 3).mean(axis=0)

    def ellipsoid(centre, radii):
        return np.sum(((points - centre) / radii) ** 2, axis=-1) < 1

    image = np.full(shape, -1000.0)
    for hu, centre, radii in [
        (20, (0, 0, 0), (80, 60, 400)),
        (-800, (-35, 5, 30), (25, 35, 30)),
        (-780, (35, 5, 30), (25, 35, 30)),
        (65, (25, 10, -30), (35, 30, 30)),
        (50, (-40, -10, -30), (18, 20, 25)),
        (450, (0, -40, 0), (12, 12, 400)),
        (160, (5, -20, 0), (8, 8, 400)),
    ]:
        image[ellipsoid(centre, radii)] = hu
    noise = np.random.default_rng(seed).standard_normal(shape) * 12
    return np.round(ndimage.gaussian_filter(image, 0.6) + noise).clip(-1024, 3000).astype(np.float32)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), affine), path)
    return path
