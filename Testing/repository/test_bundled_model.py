"""The small model that the repository carries means something."""

from __future__ import annotations

from collections.abc import Callable

import nibabel
import numpy as np
import pytest

from VISTA3DCore import Segmentation, Segmenter, Volume
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.evaluation.clicking import honest
from VISTA3DCore.evaluation.statistics import dice
from VISTA3DCore.models.store import ModelStore

CT = catalogue()


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained("mini", device="cpu", claimed_only=False)


@pytest.fixture(scope="module")
def demonstration(segmenter, ct_data) -> tuple[Segmentation, np.ndarray]:
    """Everything in a CT that the model never saw, and TotalSegmentator's labels of it."""
    folder = ct_data / "ts_example_ct"
    with segmenter.open(Volume.read(folder / "ct.nii.gz")) as session:
        found = session.segment("everything")
    return found, np.asarray(nibabel.load(folder / "label_vista3d.nii.gz").dataobj)


def test_it_is_small_and_says_what_it_knows(segmenter):
    assert ModelStore().resolve("mini").stat().st_size < 20_000_000
    assert set(segmenter.available) <= {structure.index for structure in CT.everything}
    assert segmenter.config.window == (64, 64, 64)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("liver", 0.85),
        ("spleen", 0.75),
        ("left kidney", 0.8),
        ("left autochthon", 0.8),
        ("left hip", 0.8),
        ("bladder", 0.8),
        ("vertebrae L3", 0.75),
    ],
)
def test_organs_of_a_patient_it_never_saw_are_found(demonstration, name, least):
    found, reference = demonstration

    assert dice(found[name], reference == CT[name].index) > least


def test_left_and_right_are_not_confused(demonstration):
    found, _ = demonstration
    sides = [found.affine[0, :3] @ np.argwhere(found[name]).mean(0) for name in ("left autochthon", "right autochthon")]

    assert sides[0] < sides[1]  # RAS: the first coordinate grows towards the patient's right


def test_a_real_chest_gives_lungs(segmenter, ct_data):
    volume = Volume.read(ct_data / "ts_pulmonary_report" / "ct.nii.gz")
    with segmenter.open(volume) as session:
        lungs = session.segment("lung")
    found = lungs.labels > 0

    assert found.any()
    assert volume.array[found].mean() < -500


TEN = (
    "liver",
    "left kidney",
    "right kidney",
    "spleen",
    "aorta",
    "inferior vena cava",
    "sacrum",
    "vertebrae L3",
    "vertebrae L5",
    "left autochthon",
)


@pytest.fixture(scope="module")
def clicked(segmenter, ct_data) -> Callable[..., np.ndarray]:
    """Mean Dice over structures of the demonstration CT after 0, 1, ... honest simulated clicks."""
    folder = ct_data / "ts_example_ct"
    volume = Volume.read(folder / "ct.nii.gz")
    reference = np.asarray(nibabel.load(folder / "label_vista3d.nii.gz").dataobj)
    with segmenter.open(volume) as session:

        def mean_dice(names, automatic=False, zero_shot=False):
            found = session.segment(list(names), preset="paper", restoration="smooth") if automatic else None
            curves = [
                honest(
                    session,
                    None if zero_shot else name,
                    reference == CT[name].index,
                    volume.affine,
                    found[name] if automatic else None,
                ).dice
                for name in names
            ]
            return np.mean(curves, axis=0)

        yield mean_dice


LARGE = ("bladder", "left femur", "right femur", "right gluteus maximus")


def test_five_clicks_find_large_structures_from_nothing(clicked):
    dices = clicked(LARGE)

    assert dices[0] == 0
    assert dices[5] > 0.6


def test_clicks_on_the_results_of_claimed_structures_do_no_harm(ct_data):
    """As ``vista3d evaluate clicks --claimed`` measures: what a user gets, from the result that a user gets."""
    folder = ct_data / "ts_example_ct"
    volume = Volume.read(folder / "ct.nii.gz")
    reference = np.asarray(nibabel.load(folder / "label_vista3d.nii.gz").dataobj)
    with Segmenter.from_pretrained("mini", device="cpu").open(volume) as session:
        found = session.segment("everything", preset="paper", restoration="smooth")
        shown = [one for one in found.structures if np.any(reference == one.index)]
        targets = [(one.name, reference == one.index, found[one.name]) for one in shown]
        curves = np.array([honest(session, name, target, volume.affine, mask).dice for name, target, mask in targets])

    assert len(curves) > 25
    assert np.all(np.diff(curves.mean(0)[[0, 1, 3, 5]]) > 0)
    assert np.all(curves.min(1) > curves[:, 0] - 0.02)


@pytest.mark.xfail(
    strict=True, reason="clicks of the small model change only what is near them, because it has learned too little"
)
def test_five_clicks_improve_automatic_results(clicked):
    dices = clicked(TEN, automatic=True)

    assert dices[5] > dices[0] + 0.03


def test_clicks_alone_find_structures(clicked):
    dices = clicked(TEN)

    assert dices[1] > 0.15
    assert dices[5] > 0.4


def test_an_object_without_a_name_is_found_better_with_more_clicks(clicked):
    dices = clicked(TEN, zero_shot=True)

    assert dices[5] > dices[1] + 0.1 > 0.2
