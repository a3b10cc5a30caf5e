"""The bundled small model gives the labels of PyTorch's float32 with every runtime and precision of processors."""

from __future__ import annotations

import numpy as np
import pytest

from VISTA3DCore import Click, Segmentation, Segmenter, Volume
from VISTA3DCore.backends.processor import has_bfloat16
from VISTA3DCore.imaging.phantom import paint_phantom

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
# Shares of equal labels asked for: of all voxels, and of those that either result labels.
CASES = [
    pytest.param("openvino", "float32", (0.999, 0.999)),
    pytest.param("openvino", "bfloat16", (0.995, 0.98), marks=needs_bfloat16),
    pytest.param("torch", "bfloat16", (0.995, 0.98), marks=needs_bfloat16),
]


def segmented(volume: Volume, runtime: str, precision: str) -> Segmentation:
    """Return everything that the small model finds, after making sure that it is run as asked for."""
    segmenter = Segmenter.from_pretrained("mini", device="cpu", runtime=runtime, precision=precision)
    assert (segmenter.runtime, segmenter.precision) == (runtime, precision)
    with segmenter.open(volume) as session:
        return session.segment("everything")


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, Segmentation]:
    volume = paint_phantom((64, 64, 64))[0]
    return volume, segmented(volume, "torch", "float32")


@pytest.fixture(scope="module")
def patient(ct_data) -> tuple[Volume, Segmentation]:
    volume = Volume.read(ct_data / "ts_example_ct" / "ct.nii.gz")
    return volume, segmented(volume, "torch", "float32")


def compare(case: tuple[Volume, Segmentation], runtime: str, precision: str, least: tuple[float, float]) -> None:
    volume, expected = case
    found = segmented(volume, runtime, precision)
    inside = (expected.labels > 0) | (found.labels > 0)
    equal = found.labels == expected.labels
    print(f"{runtime} {precision}: {equal.mean():.5f} of all voxels, {equal[inside].mean():.5f} of the labelled ones")

    assert found.provenance["runtime"] == runtime
    assert found.provenance["precision"] == precision
    assert inside.any()
    assert equal.mean() >= least[0]
    assert equal[inside].mean() >= least[1]
    assert all(np.mean(found.masks[index] == mask) >= least[0] for index, mask in expected.masks.items())


@pytest.mark.parametrize(("runtime", "precision", "least"), CASES)
def test_a_phantom_gets_the_same_labels(request, phantom, runtime, precision, least):
    if precision == "bfloat16":
        reason = "the small model is unsure of a phantom: 99.4 % and 96.0 % equal (a patient: 99.9 % and 99.5 %)"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    compare(phantom, runtime, precision, least)


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "precision", "least"), CASES)
def test_a_patient_gets_the_same_labels(patient, runtime, precision, least):
    compare(patient, runtime, precision, least)


def clicked(volume: Volume, place: np.ndarray, runtime: str, precision: str, click_dtype: str) -> np.ndarray:
    """Return the small model's spleen from one click, without an automatic result."""
    segmenter = Segmenter.from_pretrained("mini", device="cpu", runtime=runtime, precision=precision)
    with segmenter.open(volume, click_dtype=click_dtype) as session:
        return session.click("spleen", [Click(tuple(place))]).mask


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "precision", "click_dtype", "least"),
    [
        ("torch", "float32", "float16", 0.999),
        ("openvino", "float32", "float32", 0.999),
        ("openvino", "float32", "float16", 0.999),
        pytest.param("openvino", "bfloat16", "float16", 0.98, marks=needs_bfloat16),
        pytest.param("torch", "bfloat16", "float16", 0.98, marks=needs_bfloat16),
    ],
)
def test_a_click_on_a_patient_gives_the_same_mask(ct_data, patient, runtime, precision, click_dtype, least):
    volume, automatic = patient
    spleen = np.argwhere(automatic["spleen"])
    middle = spleen[np.abs(spleen - spleen.mean(axis=0)).sum(axis=1).argmin()]
    place = volume.affine[:3, :3] @ middle + volume.affine[:3, 3]
    expected = clicked(volume, place, "torch", "float32", "float32")
    found = clicked(volume, place, runtime, precision, click_dtype)
    dice = 2 * np.sum(found & expected) / (found.sum() + expected.sum())
    print(f"{runtime} {precision}, kept in {click_dtype}: Dice {dice:.5f} of {expected.sum()} voxels")

    assert expected.sum() > 1000
    assert dice >= least
