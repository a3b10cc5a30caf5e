"""Scores and labels of the automatic branch against MONAI's sliding window on the same network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.apps.vista3d.transforms import VistaPostTransformd
from reference_pipeline import CountingBackend, Reference, random_image, seeded_network

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.inference.automatic.feature_map import FeatureMap, FeaturePass
from VISTA3DCore.inference.automatic.labels import ClassScores, LabelMap, score_block
from VISTA3DCore.inference.windows import PRESETS, WindowLayout
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

EVERYTHING = catalogue("vista3d-ct").everything
INDICES = [structure.index for structure in EVERYTHING]
SHAPES = {
    "smaller": (40, 50, 33),
    "equal": (64, 64, 64),
    "indivisible": (70, 64, 101),
}
LOGIT_TOLERANCE = 1e-4


def feature_pass(backend, image, preset):
    layout = WindowLayout(image.shape, backend.config.window, PRESETS[preset])
    return FeaturePass(backend, torch.from_numpy(image)[None, None], layout)


def streamed_labels(backend, image, preset, structures=EVERYTHING) -> LabelMap:
    label_map = LabelMap(ClassScores(backend, structures), image.shape)
    for block in feature_pass(backend, image, preset).stream(Progress()):
        label_map.take(block)
    return label_map


def retained_labels(backend, image, preset, dtype=torch.float32) -> LabelMap:
    return labels_of(feature_pass(backend, image, preset).retain(Progress(), dtype), backend)


def labels_of(features: FeatureMap, backend) -> LabelMap:
    label_map = LabelMap(ClassScores(backend, EVERYTHING), tuple(features.features.shape[1:]))
    for block in features.blocks():
        label_map.take(block)
    return label_map


def scores(backend, image, preset, indices) -> np.ndarray:
    return scores_of(feature_pass(backend, image, preset).retain(Progress()), backend, indices)


def scores_of(features: FeatureMap, backend, indices) -> np.ndarray:
    matrix = backend.class_matrix(indices)
    volumes = [
        np.concatenate([score_block(block, vector) for block in features.blocks()], axis=features.axis)
        for vector in matrix
    ]
    return np.stack(volumes)


def reference_labels(logits: torch.Tensor, indices: list[int]) -> np.ndarray:
    data = {"pred": logits[0].clone(), "label_prompt": torch.tensor(indices)}
    return VistaPostTransformd(keys="pred")(data)["pred"][0].numpy()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("preset", ["bundle", "paper"])
def test_scores_and_labels_equal_monai(backend, reference, preset, shape):
    image = random_image(shape)
    logits = reference.logits(image, INDICES, preset)
    layout = WindowLayout(shape, backend.config.window, PRESETS[preset])
    assert layout.windows == reference.windows
    some = [0, 17, 116]
    ours = scores(backend, image, preset, [INDICES[row] for row in some])
    np.testing.assert_allclose(ours, logits[0, some].numpy(), rtol=0, atol=LOGIT_TOLERANCE)
    labels = streamed_labels(backend, image, preset).labels
    assert np.mean(labels == reference_labels(logits, INDICES)) >= 0.9999


@pytest.mark.parametrize("preset", ["bundle", "paper"])
@pytest.mark.parametrize("shape", [(40, 33, 70), (75, 35, 20), (33, 65, 34)], ids=str)
def test_streaming_and_retained_agree_exactly(tiny_backend, preset, shape):
    image = random_image(shape, seed=1)
    streamed, retained = streamed_labels(tiny_backend, image, preset), retained_labels(tiny_backend, image, preset)
    np.testing.assert_array_equal(streamed.labels, retained.labels)
    assert len(np.unique(streamed.labels)) > 20


def test_every_window_alone_has_the_reference_logits(backend, small_network):
    """The fold of the class head, window by window, before any blending."""
    patch = torch.from_numpy(random_image((64, 64, 64), seed=3))[None, None]
    with torch.inference_mode():
        expected = small_network(patch, class_vector=torch.tensor(INDICES)[:, None], transpose=True)[0]
    found = torch.tensordot(backend.class_matrix(INDICES), backend.automatic_features(patch), dims=1)
    assert (found - expected).abs().max() <= LOGIT_TOLERANCE


def test_half_precision_storage_is_an_option_with_known_agreement(tiny_backend):
    """Stored as float16 the features give at least 99.9 % of the labels, here on noise, the hardest case."""
    image = random_image((40, 33, 70), seed=2)
    exact = retained_labels(tiny_backend, image, "bundle")
    halved = retained_labels(tiny_backend, image, "bundle", torch.float16)
    assert np.mean(exact.labels == halved.labels) >= 0.999


def test_half_precision_is_the_same_in_both_lives(tiny_backend):
    image = random_image((40, 33, 70), seed=2)
    streamed = LabelMap(ClassScores(tiny_backend, EVERYTHING), image.shape)
    for block in feature_pass(tiny_backend, image, "bundle").stream(Progress(), torch.float16):
        streamed.take(block)
    retained = retained_labels(tiny_backend, image, "bundle", torch.float16)
    np.testing.assert_array_equal(streamed.labels, retained.labels)


def test_a_single_class_is_its_positive_scores(backend, reference):
    image = random_image((64, 64, 70), seed=4)
    logits = reference.logits(image, [3], "bundle")
    labels = streamed_labels(backend, image, "bundle", catalogue().resolve("spleen")).labels
    assert np.mean((labels == 3) == (logits[0, 0].numpy() > 0)) >= 0.9999
    assert set(np.unique(labels)) == {0, 3}


def test_overlapping_structures_have_masks_and_leave_the_labels_alone(tiny_backend):
    """In the reference an organ and its tumour compete; here the organ stays whole."""
    image = random_image((32, 32, 40), seed=5)
    organs = catalogue().resolve(["liver", "spleen"])
    both = catalogue().resolve(["liver", "hepatic tumor", "spleen"])
    alone, together = (
        streamed_labels(tiny_backend, image, "bundle", organs),
        streamed_labels(tiny_backend, image, "bundle", both),
    )
    np.testing.assert_array_equal(alone.labels, together.labels)
    assert list(together.masks) == [26]
    expected = scores(tiny_backend, image, "bundle", [26])[0] > 0
    assert np.mean(together.masks[26] == expected) >= 0.9999
    assert together.masks[26].any()


def test_only_overlapping_structures_leave_an_empty_label_map(tiny_backend):
    label_map = streamed_labels(tiny_backend, random_image((32, 32, 32)), "bundle", catalogue().resolve("airway"))
    assert not label_map.labels.any()
    assert label_map.masks[132].any()


def test_the_first_of_equal_scores_wins(backend):
    structures = catalogue().resolve(["spleen", "liver"])
    scoring = ClassScores(backend, structures)
    scoring._matrix = torch.ones(8, 2)
    features = torch.tensor([[1.0], [-1.0]]).expand(2, 8).T
    labels, _ = scoring.classify(features)
    assert labels.tolist() == [3, 0]


def test_everything_has_no_untrained_class(backend):
    """B10: the research repository's list ends with index 133, an untrained embedding."""
    assert len(EVERYTHING) == 117
    assert max(ClassScores(backend, EVERYTHING).exclusive) < 132


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(128, 128, 128)], ids=str)
def test_a_full_size_window_equals_monai(shape):
    config = ModelConfig()
    network = seeded_network(config)
    image = random_image(shape, seed=6)
    logits = Reference(network, config).logits(image, INDICES, "bundle")
    backend = CountingBackend(network, config)
    features = feature_pass(backend, image, "bundle").retain(Progress())
    ours = scores_of(features, backend, INDICES)
    np.testing.assert_allclose(ours, logits[0].numpy(), rtol=0, atol=LOGIT_TOLERANCE)
    labels = labels_of(features, backend).labels
    assert np.mean(labels == reference_labels(logits, INDICES)) >= 0.9999
