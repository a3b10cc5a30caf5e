"""The dense loss: what each voxel may be, and what it costs to call it something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, PatchData
from VISTA3DCore.training.dense import DenseTargets, allowed_classes, dense_loss, dense_targets

LIVER, SPLEEN, KIDNEY, TUMOR, UPPER, LOWER = 1, 3, 14, 26, 28, 29
CLASSES = (LIVER, SPLEEN, KIDNEY, UPPER, LOWER)


def names(row: np.ndarray) -> set[int]:
    """Return what a row of the table allows: catalogue indices, 0 for background."""
    return {(0, *CLASSES)[column] for column in np.flatnonzero(row)}


def test_a_complete_protocol_leaves_nothing_open():
    table = allowed_classes(LabelMeaning(annotated=(LIVER,), complete=True), CLASSES)
    assert names(table[0]) == {0}
    assert names(table[LIVER]) == {LIVER}
    assert names(table[SPLEEN]) == {SPLEEN}


def test_unlabeled_voxels_of_a_partial_protocol_may_be_what_was_not_annotated():
    meaning = LabelMeaning(annotated=(LIVER, SPLEEN))
    table = allowed_classes(meaning, CLASSES)
    assert names(table[0]) == {0, KIDNEY, UPPER, LOWER}
    assert names(table[LIVER]) == {LIVER}


def test_a_union_may_be_any_of_its_members_and_an_unknown_object_anything():
    meaning = LabelMeaning(unions=((UPPER, LOWER), ()), annotated=(FIRST_UNION,))
    table = allowed_classes(meaning, CLASSES)
    assert names(table[FIRST_UNION]) == {UPPER, LOWER}
    assert names(table[FIRST_UNION + 1]) == {0, *CLASSES}
    assert names(table[0]) == {0, LIVER, SPLEEN, KIDNEY}


def test_a_tumor_that_the_model_does_not_know_is_liver():
    table = allowed_classes(LabelMeaning(annotated=(LIVER, TUMOR), complete=True), CLASSES)
    assert names(table[TUMOR]) == {LIVER}
    with_tumors = allowed_classes(LabelMeaning(annotated=(LIVER,), complete=True), (LIVER, TUMOR))
    assert with_tumors[LIVER].tolist() == [False, True, True]  # not annotated: liver may hold one


def test_predictions_count_only_where_nothing_was_annotated():
    label = np.array([[[LIVER, 0, 0, 0, IGNORE]]], np.uint8)
    pseudo = np.array([[[SPLEEN, SPLEEN, 0, IGNORE, SPLEEN]]], np.uint8)
    patch = PatchData(np.zeros(label.shape, np.float32), label, LabelMeaning(annotated=(LIVER,)), pseudo)
    targets = dense_targets(patch, CLASSES, 200.0, 0.25, np.random.default_rng(0))
    found = {int(v): names(row.numpy()) for v, row in zip(targets.voxels, targets.allowed, strict=True)}
    assert found == {0: {LIVER}, 1: {SPLEEN}, 2: {0}, 3: {0, SPLEEN, KIDNEY, UPPER, LOWER}}  # 4 is unknown: left out
    few = PatchData(patch.image, label, LabelMeaning(annotated=(LIVER,), predicted=(SPLEEN,)), pseudo)
    table = allowed_classes(few.meaning, CLASSES)
    assert names(table[256]) == {
        0,
        KIDNEY,
        UPPER,
        LOWER,
    }  # the model behind the predictions looked for the spleen alone
    weights = {int(v): round(float(w), 6) for v, w in zip(targets.voxels, targets.weights, strict=True)}
    assert weights[1] == pytest.approx(0.25 * weights[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_weighted_voxels_estimate_sums_over_all_voxels(seed, small):
    """Even choice would see a small structure in few voxels; the uneven choice must not change any mean."""
    rng = np.random.default_rng(seed)
    label = np.zeros((12, 12, 12), np.uint8)
    label.reshape(-1)[:small] = SPLEEN
    label.reshape(-1)[small : 700 + small] = LIVER
    patch = PatchData(np.zeros(label.shape, np.float32), label, LabelMeaning(annotated=(1, 3), complete=True))
    targets = dense_targets(patch, CLASSES, 20.0, 1.0, rng)
    row = targets.allowed.int().argmax(1)
    shares = [float((targets.weights * (row == column)).mean()) for column in (0, 1, 2)]
    expected = [np.mean(label == code) for code in (0, LIVER, SPLEEN)]
    assert np.allclose(shares, expected, rtol=0.1, atol=0.001)
    assert float(targets.weights.mean()) == pytest.approx(1, abs=0.05)


def certain(rows: list[int]) -> DenseTargets:
    allowed = torch.nn.functional.one_hot(torch.tensor(rows), 1 + len(CLASSES)).bool()
    return DenseTargets(torch.arange(len(rows)), torch.ones(len(rows)), allowed)


def test_with_certain_voxels_it_is_cross_entropy_plus_dice():
    torch.manual_seed(0)
    logits, rows = torch.randn(6, len(CLASSES)), [0, 1, 1, 2, 0, 5]
    found = dense_loss(logits, certain(rows), binary=0.0)

    scores = torch.cat([torch.zeros(6, 1), logits], 1)
    entropy = torch.nn.functional.cross_entropy(scores, torch.tensor(rows))
    p = scores.softmax(1)
    dice = []
    for column in (1, 2, 5):
        target = torch.tensor([float(row == column) for row in rows])
        dice.append((2 * (p[:, column] * target).sum() + 0.5) / (p[:, column].sum() + target.sum() + 0.5))
    assert float(found) == pytest.approx(float(entropy + 1 - torch.stack(dice).mean()), abs=1e-5)


def test_what_is_possible_costs_nothing_and_what_is_not_costs_more_the_surer_it_is():
    allowed = torch.tensor([[True, False, False, True, True, True]])
    targets = DenseTargets(torch.arange(1), torch.ones(1), allowed)
    kidney = torch.tensor([[-9.0, -9.0, 9.0, -9.0, -9.0]])
    liver = torch.tensor([[9.0, -9.0, -9.0, -9.0, -9.0]])
    assert float(dense_loss(kidney, targets, 0.3)) < 0.01
    assert float(dense_loss(liver / 2, targets, 0.0)) > 4
    assert float(dense_loss(liver, targets, 0.0)) > 8


def test_an_annotated_class_is_a_negative_everywhere_even_alone():
    """A class that is asked for alone is found where its score is above 0: the binary part brings it below."""
    spleen = torch.tensor([[5.0, 20.0, -9.0, -9.0, -9.0]], requires_grad=True)
    dense_loss(spleen, certain([2]), 0.0).backward()
    assert float(spleen.grad[0, 0]) < 1e-3
    spleen.grad = None
    dense_loss(spleen, certain([2]), 0.3).backward()
    assert float(spleen.grad[0, 0]) > 0.2


def test_a_patch_of_which_nothing_is_known_has_no_gradient():
    label = np.full((4, 4, 4), IGNORE, np.uint8)
    patch = PatchData(np.zeros(label.shape, np.float32), label, LabelMeaning())
    targets = dense_targets(patch, CLASSES, 0.5, 1.0, np.random.default_rng(0))
    logits = torch.randn(len(targets.voxels), len(CLASSES), requires_grad=True)
    loss = dense_loss(logits, targets, 0.3)
    loss.backward()
    assert loss.item() == 0
    assert float(logits.grad.abs().max()) == 0


def test_the_whole_default_run_is_negative_where_a_case_is_complete():
    everything = tuple(one.index for one in catalogue().everything)
    table = allowed_classes(LabelMeaning(complete=True), everything)
    assert table[0].sum() == 1
