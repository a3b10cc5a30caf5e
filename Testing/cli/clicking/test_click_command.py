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
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.formats.seg_reading import StoredSegmentation
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
    assert any(f"'Strange' (label {NEW_OBJECT_INDEX + 1})" in note for note in summary["notes"])
    assert summary["structure"]["name"] == "liver"
    if output == "out.seg.nrrd":
        found = masks_of(tmp_path / output)
        liver = found.pop("Liver")
        assert found.keys() == {"Spleen", "Hepatic tumor", "Strange"}
    else:
        labels = np.asarray(nibabel.load(tmp_path / output).dataobj)
        liver = labels == LIVER
        extra = tmp_path / "out_hepatic_tumor.nii.gz"
        found = {"Spleen": labels == SPLEEN, "Hepatic tumor": np.asarray(nibabel.load(extra).dataobj) > 0}
        found["Strange"] = labels == NEW_OBJECT_INDEX + 1
        for name in ("Spleen", "Strange"):
            beside = tmp_path / f"out_{name if name == 'Strange' else name.lower()}.nii.gz"
            if beside.exists():  # the corrected liver reaches into it
                found[name] = np.asarray(nibabel.load(beside).dataobj) > 0
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, masks[name])
    assert (liver & ~masks["Liver"]).sum() == summary["voxels_added"]
    assert (masks["Liver"] & ~liver).sum() == summary["voxels_removed"] == 0


def _slicer_base(path: Path, volume: Volume, segments: dict[str, tuple[int, np.ndarray]]) -> None:
    """Write a segmentation as Slicer does: one layer of 32 bits, any labels, names, colors and codes."""
    labels = sum(np.where(mask, np.uint32(value), np.uint32(0)) for value, mask in segments.values())
    image = sitk.GetImageFromArray(labels.T)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    image.SetSpacing(list(volume.spacing))
    image.SetDirection((lps[:3, :3] / volume.spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    for number, (name, (value, _)) in enumerate(segments.items()):
        keys = {"ID": f"Segment_{number}", "Name": name, "LabelValue": value, "Layer": 0, "Color": "0.2 0.4 0.6"}
        keys["Tags"] = "TerminologyEntry:T~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~A~^^~^^|"
        for key, text in keys.items():
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), useCompression=True)


def test_segments_survive_whatever_their_labels_and_names(click: Callable, volume: Volume, tmp_path: Path) -> None:
    boxes = [(slice(2 + 5 * n, 6 + 5 * n), slice(10, 14), slice(10, 20)) for n in range(6)]
    names = ["Liver", "Spleen", "my tumor", "My_Tumor", "liver", "Segment_1"]
    values = [70000, 3, 65536, 4_000_000_000, 9, 255]
    masks = {name: np.zeros(volume.shape, bool) for name in names}
    for name, box in zip(names, boxes, strict=True):
        masks[name][box] = True
    path = tmp_path / "base.seg.nrrd"
    _slicer_base(path, volume, dict(zip(names, zip(values, masks.values(), strict=True), strict=True)))
    place = ("-p", as_text(in_mm(volume, VOXEL)))
    click("-c", "spleen", "--base", path, *place, "-q")
    found = masks_of(tmp_path / "out.seg.nrrd")
    assert found.keys() == set(names)
    for name in set(names) - {"Spleen"}:
        np.testing.assert_array_equal(found[name], masks[name])
    image = sitk.ReadImage(str(tmp_path / "out.seg.nrrd"))
    ids = [image.GetMetaData(f"Segment{number}_ID").casefold() for number in range(len(names))]
    assert len(set(ids)) == len(names)
    number = next(n for n in range(len(names)) if image.GetMetaData(f"Segment{n}_Name") == "my tumor")
    assert image.GetMetaData(f"Segment{number}_Color") == "0.2 0.4 0.6"
    assert "SCT^4147007^Mass" in image.GetMetaData(f"Segment{number}_Tags")
    # What was kept is kept again.
    click("-c", "spleen", "--base", tmp_path / "out.seg.nrrd", *place, "-q", output="again.seg.nrrd")
    again = masks_of(tmp_path / "again.seg.nrrd")
    for name in set(names) - {"Spleen"}:
        np.testing.assert_array_equal(again[name], masks[name])


def test_unknown_labels_of_a_label_map_stay_what_they_are(click: Callable, volume: Volume, tmp_path: Path) -> None:
    labels = np.zeros(volume.shape, np.int32)
    for number, value in enumerate((LIVER, 400, 70000, NEW_OBJECT_INDEX)):
        labels[2 + 5 * number : 6 + 5 * number, 10:14, 10:20] = value
    nibabel.save(nibabel.Nifti1Image(labels, volume.affine), tmp_path / "labels.nii.gz")
    place = ("-p", as_text(in_mm(volume, (34, 25, 30))))
    summary = click("-c", "liver", "--base", tmp_path / "labels.nii.gz", *place, "--json", output="out.nii.gz")
    found = np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj)
    for stored, kept in ((400, 400), (70000, NEW_OBJECT_INDEX + 1), (NEW_OBJECT_INDEX, NEW_OBJECT_INDEX)):
        voxels = found == kept
        extra = next(iter(tmp_path.glob(f"out_{stored}.nii.gz")), None)  # the liver reached into it
        voxels = voxels if extra is None else np.asarray(nibabel.load(extra).dataobj) > 0
        np.testing.assert_array_equal(voxels, labels == stored)
    assert any(f"'70000' (label {NEW_OBJECT_INDEX + 1})" in note for note in summary["notes"])


def test_a_mask_of_0_and_255_is_the_object_that_is_clicked(click: Callable, volume: Volume, tmp_path: Path) -> None:
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:6, 10:14, 10:20] = 255
    nibabel.save(nibabel.Nifti1Image(mask, volume.affine), tmp_path / "mask.nii.gz")
    place = ("-p", as_text(in_mm(volume, VOXEL)), "--base", tmp_path / "mask.nii.gz", "--json")
    for kind, name in ((("-c", "liver"), "Liver"), (("--new-object",), "New object")):
        summary = click(*kind, *place)
        found = masks_of(tmp_path / "out.seg.nrrd")
        assert found.keys() == {name}
        assert (found[name] & (mask > 0)).sum() == (mask > 0).sum()
        assert summary["voxels_added"] == found[name].sum() - (mask > 0).sum()


def test_nothing_found_is_said(click: Callable, volume: Volume, model: Path, tmp_path: Path) -> None:
    from VISTA3DCore.inference.segmenter import Segmenter

    with Segmenter.from_pretrained(model).open(volume) as session:
        places = [in_mm(volume, voxel) for voxel in np.ndindex(*np.floor_divide(volume.shape, 7))]
        empty = next(one for one in places if not session.click("liver", [Click(one)]).changed)
    summary = click("-c", "liver", "-p", as_text(empty), "--json")
    assert summary["empty"]
    assert any("Nothing was found" in note for note in summary["notes"])
    assert "Nothing was found" in click("-c", "liver", "-p", as_text(empty), "-q").stderr
    assert not click("-c", "liver", "-p", as_text(in_mm(volume, VOXEL)), "--json")["empty"]


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
    assert "the model proposes no change there: negative click at" in said
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
