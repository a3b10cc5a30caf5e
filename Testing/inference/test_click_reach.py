"""Clicks of the small model change only what lies near them: what is far stays, whatever the network answers.

The network of these tests is untrained: its answers are wrong nearly everywhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click_backends import ball, minus, open_scene, plus, scene, straight, texture
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pipeline import TINY, seeded_network

from VISTA3DCore import Click, Segmenter
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.errors import InputError

SHAPE = (46, 32, 36)
MM = 1.5
SESSION = Segmenter(TorchBackend(seeded_network(TINY), TINY)).open(texture(SHAPE, seed=3))
MASK = np.zeros(SHAPE, dtype=bool)
MASK[8:38, 6:26, 10:30] = True


def reach_of(click: Click, mask: np.ndarray) -> float:
    """Return how far a click reaches, from the distances to all voxels."""
    distances = np.linalg.norm(MM * np.argwhere(mask == click.positive) - click.position, axis=1)
    return 1.5 * distances.min() + 1.0


@settings(max_examples=30)
@given(st.tuples(*(st.integers(0, size - 1) for size in SHAPE)))
def test_nothing_beyond_the_reach_changes(voxel):
    click = Click(tuple(MM * index for index in voxel), not MASK[voxel])

    near = SESSION.click("liver", [click], MASK, variant="near").mask
    changed = np.argwhere(near != MASK)

    assert np.all(np.linalg.norm(MM * changed - click.position, axis=1) <= reach_of(click, MASK) + 1e-6)
    assert np.all(near[tuple(changed.T)] == click.positive)
    paper = SESSION.click("liver", [click], MASK, variant="paper").mask
    assert np.all((paper != MASK)[tuple(changed.T)])


def test_a_click_in_a_spill_keeps_the_object_of_which_the_network_knows_nothing():
    points = 2.0 * np.indices((40, 40, 40)).transpose(1, 2, 3, 0)
    target, spill = ball((40, 40, 30), 16)(points) > 0, ball((40, 40, 51), 6)(points) > 0
    clicks = [minus(40, 40, 53)]

    with open_scene(scene((40, 40, 40), straight())) as session:  # tissue alone: the answer is empty
        paper, near = (
            session.click("liver", clicks, target | spill, variant=variant).mask for variant in ("paper", "near")
        )

    assert not paper.any()
    assert np.mean(near[target & ~spill]) > 0.99
    assert np.mean(near[spill & ~target]) < 0.6


def test_from_nothing_a_click_takes_all_that_it_touches():
    near, paper = (SESSION.click("liver", [plus(20, 16, 18)], variant=kind).mask for kind in ("near", "paper"))

    assert near.any()
    assert np.array_equal(near, paper)


@pytest.mark.parametrize(("name", "variant"), [("mini", "near"), ("tiny", "paper")])
def test_the_model_decides_unless_the_user_does(name, variant):
    config = replace(TINY, name=name)
    session = Segmenter(TorchBackend(seeded_network(config), config)).open(texture(SHAPE, seed=3))
    clicks = [Click((MM * 20, MM * 16, MM * 12), False)]
    masks = {kind: session.click("liver", clicks, MASK, variant=kind).mask for kind in ("near", "paper", None)}

    assert not np.array_equal(masks["near"], masks["paper"])
    assert np.array_equal(masks[None], masks[variant])


def test_unknown_variants_are_named():
    with pytest.raises(InputError, match="There is no variant 'far'; use one of: paper, permissive, reference, near"):
        SESSION.click("liver", [plus(20, 16, 18)], variant="far")
