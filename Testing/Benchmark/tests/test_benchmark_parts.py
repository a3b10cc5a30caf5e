"""What the benchmark is made of: sides, volumes, clocks, weights, and the gate that refuses wrong results."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from beside_reference import gate, volumes, weights
from beside_reference.measuring import Stopwatch, Summary, counted_methods
from beside_reference.ours import OurSide
from beside_reference.process import SideError, SideProcess
from beside_reference.roofline import peak_gemm, probe
from beside_reference.scene import Scene
from beside_reference.sides import SideName, parse_side, parse_sides
from beside_reference.theirs import ReferenceSide

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.preprocessing import preprocess
from VISTA3DCore.network.config import ModelConfig

SMALL = ModelConfig(width=8, window=(32, 32, 32), blocks_down=(1, 1, 1))
CPU = torch.device("cpu")


def test_sides_are_read_and_named_alike():
    sides = parse_sides("ours, ours:openvino:bfloat16,ours:float32,reference,ours")

    assert [str(one) for one in sides] == ["ours", "ours:openvino:bfloat16", "ours:float32", "reference"]
    assert sides[1] == SideName("ours", "openvino", "bfloat16")


@pytest.mark.parametrize(
    ("text", "words"), [("theirs", "no side 'theirs'"), ("ours:int8", "'int8'"), ("reference:openvino", "openvino")]
)
def test_unknown_sides_are_refused_with_what_is_known(text, words):
    with pytest.raises(InputError, match=words):
        parse_side(text)


def test_sizes_by_letter_by_number_and_in_full():
    assert volumes.parse_size("a").shape == (512, 512, 600)
    assert volumes.parse_size("160") == volumes.Size("160", (160, 160, 160), (1.5, 1.5, 1.5))
    assert volumes.parse_size("20x30x40@2").spacing == (2.0, 2.0, 2.0)
    assert volumes.parse_size("20x30x40@0.8,0.8,2").spacing == (0.8, 0.8, 2.0)
    with pytest.raises(InputError, match="is no size"):
        volumes.parse_size("huge")


def test_a_phantom_is_a_ct_that_the_foreground_crop_leaves_whole(tmp_path):
    size = volumes.parse_size("40x36x30@2,2,3")
    volumes.write_volume(tmp_path / "ct.nii.gz", volumes.phantom(size, seed=1))
    volume = Volume.read(tmp_path / "ct.nii.gz")

    assert volume.shape == size.shape
    assert volume.spacing == pytest.approx(size.spacing)
    assert volume.array.min() < -900
    assert 150 < volume.array.max() <= 3000
    assert np.array_equal(volume.array, volumes.phantom(size, seed=1).array)
    image = preprocess(volume, replace(SMALL, spacing=(2.0, 2.0, 3.0))).image
    assert image.shape == size.shape


@pytest.mark.parametrize("window", [32, 64, 128])
def test_the_volume_for_clicks_fills_one_window(window):
    sides = (window,) * 3
    size = volumes.one_window(sides, (1.5, 1.5, 1.5))
    model = [round((count - 1) * step / 1.5) + 1 for count, step in zip(size.shape, size.spacing, strict=True)]

    assert tuple(model) == sides
    assert max(volumes.one_window(sides, (1.5, 1.5, 1.5), 0.75).shape) < max(size.shape)


def test_a_stage_does_not_count_what_it_calls():
    watch, started = Stopwatch(CPU), time.perf_counter()
    with watch.stage("outer"):
        time.sleep(0.02)
        with watch.stage("inner"):
            time.sleep(0.05)

    assert watch.stages["inner"] >= 0.05
    assert watch.stages["outer"] >= 0.02
    assert sum(watch.stages.values()) <= time.perf_counter() - started


def test_counted_methods_are_as_before_afterwards():
    class Work:
        def do(self):
            return 7

    work, watch = Work(), Stopwatch(CPU)
    before = Work.do
    with counted_methods(watch, [(Work, "do", "of the class"), (work, "do", "of the object")]):
        assert work.do() == 7

    assert set(watch.stages) == {"of the class", "of the object"}
    assert Work.do is before
    assert "do" not in vars(work)


def test_repetitions_are_summarised():
    summary = Summary.of([4.0, 1.0, 2.0, 3.0, 5.0], cold=9.0)

    assert (summary.median, summary.minimum, summary.lower_quartile, summary.upper_quartile) == (3.0, 1.0, 2.0, 4.0)
    assert (summary.repetitions, summary.cold) == (5, 9.0)


def test_the_roof_has_a_rate_for_each_type_of_number():
    roof = probe(CPU, 1, side=64, copy_bytes=1 << 16)

    assert peak_gemm(roof, "float32", 1) > 0
    assert roof["gemm"]["bfloat16"]["1"] > 0
    assert roof["copy"]["1"] > 0
    assert peak_gemm(roof, "float16", 1) is None


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    weights.write_weights(folder / "model.safetensors", "random", SMALL)
    files = [folder / "clicks.nii.gz", folder / "gate.nii.gz"]
    for path, share in zip(files, (1.0, 0.75), strict=True):
        volumes.write_volume(path, volumes.phantom(volumes.one_window(SMALL.window, SMALL.spacing, share)))
    return Scene(str(folder / "model.safetensors"), *map(str, files), str(folder), "cpu", 1)


@pytest.fixture(scope="module")
def truth(scene) -> dict[str, str]:
    return ReferenceSide(parse_side("reference:float32"), scene).gate()


def test_our_results_pass_the_gate(scene, truth):
    name = parse_side("ours:torch")
    agreement = gate.judge(name, "float32", OurSide(name, scene).gate(), truth)

    assert agreement.refused is None
    assert agreement.logits < 1e-4
    assert agreement.clicks < 1e-4
    assert agreement.labels >= 0.999
    assert agreement.winners >= 0.999


def test_a_side_with_other_results_is_refused_with_the_reason(tmp_path, scene, truth):
    weights.write_weights(tmp_path / "other.safetensors", "random", SMALL, seed=1)
    other = replace(scene, model=str(tmp_path / "other.safetensors"), folder=str(tmp_path))
    agreement = gate.judge(parse_side("ours"), "float32", OurSide(parse_side("ours:torch"), other).gate(), truth)

    assert "class logits of 'ours' differ from the reference's" in agreement.refused
    assert agreement.labels < 0.9


def test_results_that_are_not_finite_are_refused(tmp_path, truth):
    np.save(tmp_path / "bad.npy", np.full_like(np.load(truth["logits"]), np.nan))
    files = {**truth, "logits": str(tmp_path / "bad.npy")}

    assert gate.judge(parse_side("ours"), "bfloat16", files, truth).refused


def test_labels_alone_can_be_the_reason(tmp_path, truth):
    np.save(tmp_path / "bad.npy", np.load(truth["labels"]) + 1)
    refused = gate.judge(parse_side("ours"), "float32", {**truth, "labels": str(tmp_path / "bad.npy")}, truth).refused

    assert "0.00 % of the labels" in refused


def test_structured_weights_label_the_phantom_in_pieces():
    random, structured = (_phantom_labels(kind) for kind in ("random", "structured"))

    assert len(np.unique(structured)) >= 3
    assert _smoothness(structured) > max(0.9, _smoothness(random))


def test_class_vectors_are_written_exactly():
    network = weights.seeded_network(SMALL)
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.standard_normal((8, 3)))[0]
    vectors = generator.standard_normal((4, 3)) * [[1.0], [0.1], [10.0], [2.0]]
    weights.write_class_vectors(network.class_head, [1, 3, 5, 14], vectors, basis)
    head = network.class_head
    found = head.mlp(head.class_embeddings(torch.tensor([[1], [3], [5], [14]])))[:, 0].detach().numpy()

    np.testing.assert_allclose(found, vectors @ basis.T, atol=1e-3)


def test_a_process_that_ends_is_told_from_one_that_refuses(scene):
    with SideProcess("ours:torch", scene) as side:
        assert side.ask("about")["device"] == "cpu"
        with pytest.raises(SideError, match="KeyError"):
            side.ask("run", measure="nothing known", repetition=0)
        side._process.kill()
        with pytest.raises(SideError, match="process of 'ours:torch' ended with code"):
            side.ask("about")


def _phantom_labels(kind: str) -> np.ndarray:
    from VISTA3DCore import Segmenter
    from VISTA3DCore.imaging.phantom import paint_phantom

    network = weights.seeded_network(SMALL)
    if kind == "structured":
        weights.structure(network, SMALL)
    array = paint_phantom((32, 32, 32))[0].array
    volume = Volume(array, np.diag([1.5, 1.5, 1.5, 1.0]), modality="CT")
    return Segmenter.from_network(network, SMALL).open(volume).segment("everything").labels


def _smoothness(labels: np.ndarray) -> float:
    """Return the share of neighbouring voxels with the same label."""
    return float(np.mean([np.mean(np.diff(labels.astype(int), axis=axis) == 0) for axis in range(3)]))
