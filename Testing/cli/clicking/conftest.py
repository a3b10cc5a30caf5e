"""Volumes, models and bases to click at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click_cases import CONFIG, LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN, TUMOUR, VOXEL, in_mm

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume


@pytest.fixture(scope="module")
def volume(ct_file: Path) -> Volume:
    return Volume.read(ct_file)


@pytest.fixture(scope="module")
def model(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of random weights, the first that answers a click in the middle of the liver with yes."""
    import torch

    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.models.checkpoints import save_checkpoint
    from VISTA3DCore.network.architecture import build_network
    from VISTA3DCore.network.config import ModelConfig

    config = ModelConfig(name="tiny", classes=(LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, 23), **CONFIG)
    click = Click(in_mm(volume, VOXEL))
    for seed in range(50):
        torch.manual_seed(seed)
        network = build_network(config)
        with Segmenter.from_network(network, config).open(volume) as session:
            found = [session.click(structure, [click]) for structure in ("liver", None)]
        if all(result.mask[VOXEL] and not result.mask.all() for result in found):
            path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
            save_checkpoint(path, config, network.state_dict())
            return path
    pytest.fail("No random network answers the click.")


@pytest.fixture
def click(vista3d: Callable, ct_file: Path, model: Path, tmp_path: Path) -> Callable:
    """Run ``click`` on the phantom; return the result, and the summary if it was asked for."""

    def run(*arguments: object, output: str = "out.seg.nrrd") -> object:
        result = vista3d("click", ct_file, "-m", model, "-o", tmp_path / output, *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout) if "--json" in arguments else result

    return run


@pytest.fixture
def base(volume: Volume, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A base with a liver around the click, a tumour in it, a spleen, and a segment that nobody knows."""
    masks = {name: np.zeros(volume.shape, bool) for name in ("Liver", "Spleen", "Hepatic tumor", "Strange")}
    masks["Liver"][17:23, 13:20, 15:22] = True
    masks["Hepatic tumor"][19:21, 15:18, 17:20] = True
    masks["Spleen"][30:34, 10:14, 10:20] = True
    structures = tuple(catalogue()[index] for index in (LIVER, SPLEEN, TUMOUR, 4))
    labels = masks["Liver"] * LIVER + masks["Spleen"] * SPLEEN
    labels[1:3, 1:3, 1:3] = 4
    masks["Strange"][1:3, 1:3, 1:3] = True
    path = tmp_path / "base.seg.nrrd"
    Segmentation(labels, {TUMOUR: masks["Hepatic tumor"]}, structures, volume.affine).write(path)
    content = path.read_bytes().replace(b"Name:=Pancreas", b"Name:=Strange").replace(b"VISTA3D.index:4|", b"")
    path.write_bytes(content.replace(b"SCT^15776009^Pancreas", b"SCT^85756007^Tissue"))
    return path, masks
