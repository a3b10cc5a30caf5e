"""`vista3d click` from end to end: numbers and markups files, bases of Slicer and ours, what is written and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from click_cases import LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN, VOXEL, as_text, in_mm, masks_of
from matplotlib.image import imread

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.anatomy.structure import NEW_OBJECT_INDEX
from VISTA3DCore.imaging.seg_reading import StoredSegmentation
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume


def test_one_click_from_nothing(click: Callable, volume: Volume, tmp_path: Path) -> None:
    position = in_mm(volume, VOXEL)
    summary = click("-c", "Hepar", "--positive", as_text(position), "--preview", tmp_path / "a.png", "--json")
    assert sorted(summary["files"]) == [str(tmp_path / "a.png"), str(tmp_path / "out.seg.nrrd")]
    assert summary["structure"] == {"index": LIVER, "name": "liver"}
    assert summary["clicks"] == [{"position": list(position), "positive": True, "touched": True}]
    assert summary["windows_encoded"] >= 1
    assert summary["provenance"]["clicks"] == "1 positive, 0 negative"
    (mask,) = masks_of(tmp_path / "out.seg.nrrd").values()
    assert mask.shape == volume.shape
    assert mask[VOXEL]
    assert summary["voxels_changed"] == summary["voxels_added"] == mask.sum()
    assert summary["volume_ml"] == pytest.approx(mask.sum() * np.prod(volume.spacing) / 1000, abs=1e-3)
    box = tuple(slice(*bounds) for bounds in summary["box"])
    assert mask[box].sum() == mask.sum()
    picture = imread(tmp_path / "a.png")[..., :3]
    assert (np.abs(picture - np.array([0x35, 0xD4, 0x61]) / 255).max(axis=2) < 0.05).sum() > 30  # three green crosses


def test_voxel_indices_millimetres_and_markups_are_the_same(click: Callable, volume: Volume, tmp_path: Path) -> None:
    places = [VOXEL, (5, 6.25, 30)]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "controlPoints": [
            {"label": label, "position": [-x, -y, z]}
            for label, (x, y, z) in zip(("F-1", "neg-1"), (in_mm(volume, place) for place in places), strict=True)
        ],
    }
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [markup]}))
    ways = [
        ("--voxel", "--positive", as_text(places[0]), "--negative", as_text(places[1])),
        ("--positive", as_text(in_mm(volume, places[0])), "--negative", as_text(in_mm(volume, places[1]))),
        ("--markups", tmp_path / "a.mrk.json"),
    ]
    summaries, files = [], []
    for number, way in enumerate(ways):
        summaries.append(click("-c", "liver", *way, "--json", output=f"{number}.nrrd"))
        files.append(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))))
    for summary, labels in zip(summaries, files, strict=True):
        np.testing.assert_allclose(
            [one["position"] for one in summary["clicks"]], [in_mm(volume, place) for place in places], atol=1e-6
        )
        assert [one["positive"] for one in summary["clicks"]] == [True, False]
        np.testing.assert_array_equal(labels, files[0])
    assert files[0].any()


def test_each_markups_file_may_have_its_polarity(click: Callable, volume: Volume, tmp_path: Path) -> None:
    for name, place in (("a", VOXEL), ("neg", (5, 6, 30))):
        point = {"label": "F-1", "position": list(in_mm(volume, place))}
        markup = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [point]}
        (tmp_path / f"{name}.mrk.json").write_text(json.dumps({"markups": [markup]}))
    both = ("--markups", tmp_path / "a.mrk.json", "--markups", tmp_path / "neg.mrk.json", "-c", "liver", "--json")

    def polarities(*more: str) -> list[bool]:
        return [one["positive"] for one in click(*both, *more)["clicks"]]

    assert polarities() == [True, False]
    assert polarities("--polarity", "positive") == [True, True]
    assert polarities("--polarity", "positive", "--polarity", "negative") == [True, False]


@pytest.mark.parametrize("output", ["out.seg.nrrd", "out.nii.gz"])
def test_others_of_the_base_stay_as_they_are(
    click: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path, output: str
) -> None:
    path, masks = base
    summary = click("-c", "liver", "--base", path, "-p", as_text(in_mm(volume, (5, 16, 18))), "--json", output=output)
    assert any("'Strange'" in note for note in summary["notes"])
    assert summary["structure"]["name"] == "liver"
    if output == "out.seg.nrrd":
        found = masks_of(tmp_path / output)
        liver = found.pop("Liver")
        assert found.keys() == {"Spleen", "Hepatic tumor"}
    else:
        labels = np.asarray(nibabel.load(tmp_path / output).dataobj)
        liver = labels == LIVER
        extra = tmp_path / "out_hepatic_tumor.nii.gz"
        found = {"Spleen": labels == SPLEEN, "Hepatic tumor": np.asarray(nibabel.load(extra).dataobj) > 0}
        if (tmp_path / "out_spleen.nii.gz").exists():  # the corrected liver reaches into it
            found["Spleen"] = np.asarray(nibabel.load(tmp_path / "out_spleen.nii.gz").dataobj) > 0
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, masks[name])
    assert (liver & ~masks["Liver"]).sum() == summary["voxels_added"]
    assert (masks["Liver"] & ~liver).sum() == summary["voxels_removed"] == 0


def test_a_segment_may_be_chosen_and_keeps_its_name(
    click: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path
) -> None:
    path, masks = base
    place = ("-p", as_text(in_mm(volume, VOXEL)))
    summary = click("--new-object", "--base", path, "--segment", "strange", *place, "--json")
    assert summary["structure"] == {"index": NEW_OBJECT_INDEX, "name": "Strange"}
    found = masks_of(tmp_path / "out.seg.nrrd")
    assert found.keys() == {"Strange", "Liver", "Spleen", "Hepatic tumor"}
    assert (found["Strange"] & masks["Strange"]).sum() == masks["Strange"].sum()
    np.testing.assert_array_equal(found["Liver"], masks["Liver"])
    summary = click("--new-object", "--base", path, "--segment", "Spleen", *place, "--json")
    assert summary["structure"]["name"] == "spleen"
    summary = click("-c", "left kidney", "--base", path, "--segment", "Strange", *place, "--json")
    assert summary["structure"]["name"] == "left kidney"


def test_a_new_object_opens_in_slicer_and_can_be_corrected(click: Callable, volume: Volume, tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer")
    place = as_text(in_mm(volume, VOXEL))
    assert click("--new-object", "-p", place, "--json")["structure"]["index"] == NEW_OBJECT_INDEX
    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    assert storage.ReadData(node) == 1
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "New object"
    again = ("--new-object", "--base", tmp_path / "out.seg.nrrd", "-p", place)
    summary = click(*again, "--json", output="again.seg.nrrd")
    assert summary["structure"]["name"] == "New object"
    before, after = (masks_of(tmp_path / name)["New object"] for name in ("out.seg.nrrd", "again.seg.nrrd"))
    assert (before & ~after).sum() == summary["voxels_removed"] == 0


def test_a_click_on_a_group_goes_to_one_member(click: Callable, volume: Volume, tmp_path: Path) -> None:
    place = ("-p", as_text(in_mm(volume, VOXEL)))
    kidney = click("-c", "kidney", *place, "--json")["structure"]
    assert kidney["index"] in (LEFT_KIDNEY, RIGHT_KIDNEY)
    masks = {index: np.zeros(volume.shape, bool) for index in (LEFT_KIDNEY, RIGHT_KIDNEY)}
    masks[LEFT_KIDNEY][2:9, 10:14, 10:20] = True
    masks[RIGHT_KIDNEY][30:34, 10:14, 10:20] = True
    labels = sum(mask * index for index, mask in masks.items())
    structures = tuple(catalogue()[index] for index in masks)
    Segmentation(labels, {}, structures, volume.affine).write(tmp_path / "kidneys.nii.gz")
    again = click("-c", "kidney", "--base", tmp_path / "kidneys.nii.gz", *place, "--json")
    assert again["structure"] == kidney
    found = masks_of(tmp_path / "out.seg.nrrd")
    for index, mask in masks.items():
        added = found[catalogue()[index].display_name] & ~mask
        assert added.sum() == (again["voxels_added"] if index == kidney["index"] else 0)


def test_a_class_that_the_model_does_not_know_is_a_new_object_to_it(click: Callable, volume: Volume) -> None:
    place = ("-p", as_text(in_mm(volume, VOXEL)), "--json")
    known, unknown = click("-c", "pancreas", *place), click("--new-object", *place)
    assert known["notes"] == ["The model was not trained for 'pancreas'; it is treated as a new object."]
    assert known["structure"]["name"] == "pancreas"
    assert known["voxels_added"] == unknown["voxels_added"] > 0


def test_what_is_said(click: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path) -> None:
    place = ("-p", as_text(in_mm(volume, VOXEL)))
    spoken = click("-c", "liver", *place).stderr
    assert "Liver: " in spoken
    assert "voxels added, 0 removed" in spoken
    assert "Running on" in spoken
    assert f"Wrote {tmp_path / 'out.seg.nrrd'}" in spoken
    quiet = click("-c", "liver", *place, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_a_click_without_effect_is_said(click: Callable, volume: Volume, tmp_path: Path) -> None:
    click("-c", "liver", "-p", as_text(in_mm(volume, VOXEL)), "-q")
    mask = masks_of(tmp_path / "out.seg.nrrd")["Liver"]
    nothing = np.argwhere(~mask)
    far = nothing[np.argmax(np.abs(nothing - VOXEL).sum(axis=1))]
    alone = ("-c", "liver", "--base", tmp_path / "out.seg.nrrd", "-n", as_text(in_mm(volume, far)))
    said = click(*alone, output="again.seg.nrrd").stderr
    assert "Nothing changed: the result equals the base." in said
    assert "Without effect, because the model proposes no change there: negative click at" in said
    np.testing.assert_array_equal(masks_of(tmp_path / "again.seg.nrrd")["Liver"], mask)
    summary = click(*alone, "--json", output="again.seg.nrrd")
    assert (summary["voxels_changed"], summary["box"]) == (0, None)
    assert [one["touched"] for one in summary["clicks"]] == [False]


def test_a_base_of_another_geometry_is_resampled_only_when_asked(
    vista3d: Callable, click: Callable, ct_file: Path, model: Path, volume: Volume, tmp_path: Path
) -> None:
    fine = np.zeros([2 * size for size in volume.shape], np.uint8)
    fine[34:46, 26:40, 30:44] = 1
    affine = volume.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] -= volume.affine[:3, :3] @ (0.25, 0.25, 0.25)
    nibabel.save(nibabel.Nifti1Image(fine, affine), tmp_path / "fine.nii.gz")
    arguments = ("-c", "liver", "--base", tmp_path / "fine.nii.gz", "-n", as_text(in_mm(volume, (1, 1, 1))))
    result = vista3d("click", ct_file, "-m", model, "-o", tmp_path / "out.seg.nrrd", *arguments)
    assert result.exit_code == 3
    assert "another geometry" in result.stderr
    assert "--resample-base" in result.stderr
    assert not (tmp_path / "out.seg.nrrd").exists()
    summary = click(*arguments, "--resample-base", "--json")
    before = np.zeros(volume.shape, bool)
    before[17:23, 13:20, 15:22] = True
    found = masks_of(tmp_path / "out.seg.nrrd")["Liver"]
    assert (before & ~found).sum() == summary["voxels_removed"]
    assert not (found & ~before).any()


def test_what_was_written_can_be_read_again(click: Callable, volume: Volume, tmp_path: Path) -> None:
    click("-c", "liver", "-p", as_text(in_mm(volume, VOXEL)), "-q")
    stored = StoredSegmentation.read(tmp_path / "out.seg.nrrd")
    mask = stored.mask(stored.find(catalogue()["liver"]), volume)
    np.testing.assert_array_equal(mask, masks_of(tmp_path / "out.seg.nrrd")["Liver"])
