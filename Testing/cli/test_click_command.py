"""`vista3d click` from end to end: numbers and markups files, bases of Slicer and ours, what is written and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.anatomy.structure import NEW_OBJECT_INDEX
from VISTA3DCore.cli.preview import planes_of
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine, reoriented_affine
from VISTA3DCore.imaging.seg_reading import StoredSegmentation
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume

VOXEL = (20, 16, 18)
LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, TUMOUR = 1, 3, 5, 14, 26
CONFIG = {"width": 8, "blocks_down": (1, 1, 1), "window": (32, 32, 32), "spacing": (12.0, 12.0, 12.0)}


@pytest.fixture(scope="module")
def volume(ct_file: Path) -> Volume:
    return Volume.read(ct_file)


@pytest.fixture(scope="module")
def model(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of random weights, the first that answers a click in the middle of the liver with yes."""
    import torch

    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.network.architecture import build_network
    from VISTA3DCore.network.checkpoints import save_checkpoint
    from VISTA3DCore.network.config import ModelConfig

    config = ModelConfig(name="tiny", classes=(LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, 23), **CONFIG)
    click = Click(_mm(volume, VOXEL))
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


def _mm(volume: Volume, voxel: tuple[float, float, float]) -> tuple[float, float, float]:
    return tuple(apply_affine(volume.affine, voxel).tolist())


def _text(position: tuple[float, float, float]) -> str:
    return ",".join(map(repr, map(float, position)))


@pytest.fixture
def click(vista3d: Callable, ct_file: Path, model: Path, tmp_path: Path) -> Callable:
    """Run ``click`` on the phantom; return the result, and the summary if it was asked for."""

    def run(*arguments: object, output: str = "out.seg.nrrd") -> object:
        result = vista3d("click", ct_file, "-m", model, "-o", tmp_path / output, *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout) if "--json" in arguments else result

    return run


def _masks(path: Path) -> dict[str, np.ndarray]:
    """Read a .seg.nrrd with SimpleITK alone: segment name -> bool [i, j, k]."""
    image = sitk.ReadImage(str(path))
    layers = sitk.GetArrayFromImage(image).T.reshape(-1, *image.GetSize())
    found, number = {}, 0
    while image.HasMetaDataKey(f"Segment{number}_Name"):
        name, value, layer = (image.GetMetaData(f"Segment{number}_{key}") for key in ("Name", "LabelValue", "Layer"))
        found[name] = layers[int(layer)] == int(value)
        number += 1
    return found


def test_one_click_from_nothing(click: Callable, volume: Volume, tmp_path: Path) -> None:
    position = _mm(volume, VOXEL)
    summary = click("-c", "Hepar", "--positive", _text(position), "--preview", tmp_path / "a.png", "--json")
    assert sorted(summary["files"]) == [str(tmp_path / "a.png"), str(tmp_path / "out.seg.nrrd")]
    assert summary["structure"] == {"index": LIVER, "name": "liver"}
    assert summary["clicks"] == [{"position": list(position), "positive": True, "touched": True}]
    assert summary["windows_encoded"] >= 1
    assert summary["provenance"]["clicks"] == "1 positive, 0 negative"
    (mask,) = _masks(tmp_path / "out.seg.nrrd").values()
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
            for label, (x, y, z) in zip(("F-1", "neg-1"), (_mm(volume, place) for place in places), strict=True)
        ],
    }
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [markup]}))
    ways = [
        ("--voxel", "--positive", _text(places[0]), "--negative", _text(places[1])),
        ("--positive", _text(_mm(volume, places[0])), "--negative", _text(_mm(volume, places[1]))),
        ("--markups", tmp_path / "a.mrk.json"),
    ]
    summaries, files = [], []
    for number, way in enumerate(ways):
        summaries.append(click("-c", "liver", *way, "--json", output=f"{number}.nrrd"))
        files.append(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))))
    for summary, labels in zip(summaries, files, strict=True):
        np.testing.assert_allclose(
            [one["position"] for one in summary["clicks"]], [_mm(volume, place) for place in places], atol=1e-6
        )
        assert [one["positive"] for one in summary["clicks"]] == [True, False]
        np.testing.assert_array_equal(labels, files[0])
    assert files[0].any()


def test_each_markups_file_may_have_its_polarity(click: Callable, volume: Volume, tmp_path: Path) -> None:
    for name, place in (("a", VOXEL), ("neg", (5, 6, 30))):
        point = {"label": "F-1", "position": list(_mm(volume, place))}
        markup = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [point]}
        (tmp_path / f"{name}.mrk.json").write_text(json.dumps({"markups": [markup]}))
    both = ("--markups", tmp_path / "a.mrk.json", "--markups", tmp_path / "neg.mrk.json", "-c", "liver", "--json")

    def polarities(*more: str) -> list[bool]:
        return [one["positive"] for one in click(*both, *more)["clicks"]]

    assert polarities() == [True, False]
    assert polarities("--polarity", "positive") == [True, True]
    assert polarities("--polarity", "positive", "--polarity", "negative") == [True, False]


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


@pytest.mark.parametrize("output", ["out.seg.nrrd", "out.nii.gz"])
def test_others_of_the_base_stay_as_they_are(
    click: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path, output: str
) -> None:
    path, masks = base
    summary = click("-c", "liver", "--base", path, "-p", _text(_mm(volume, (5, 16, 18))), "--json", output=output)
    assert any("'Strange'" in note for note in summary["notes"])
    assert summary["structure"]["name"] == "liver"
    if output == "out.seg.nrrd":
        found = _masks(tmp_path / output)
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
    place = ("-p", _text(_mm(volume, VOXEL)))
    summary = click("--new-object", "--base", path, "--segment", "strange", *place, "--json")
    assert summary["structure"] == {"index": NEW_OBJECT_INDEX, "name": "Strange"}
    found = _masks(tmp_path / "out.seg.nrrd")
    assert found.keys() == {"Strange", "Liver", "Spleen", "Hepatic tumor"}
    assert (found["Strange"] & masks["Strange"]).sum() == masks["Strange"].sum()
    np.testing.assert_array_equal(found["Liver"], masks["Liver"])
    summary = click("--new-object", "--base", path, "--segment", "Spleen", *place, "--json")
    assert summary["structure"]["name"] == "spleen"
    summary = click("-c", "left kidney", "--base", path, "--segment", "Strange", *place, "--json")
    assert summary["structure"]["name"] == "left kidney"


def test_a_new_object_opens_in_slicer_and_can_be_corrected(click: Callable, volume: Volume, tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer")
    place = _text(_mm(volume, VOXEL))
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
    before, after = (_masks(tmp_path / name)["New object"] for name in ("out.seg.nrrd", "again.seg.nrrd"))
    assert (before & ~after).sum() == summary["voxels_removed"] == 0


def test_a_click_on_a_group_goes_to_one_member(click: Callable, volume: Volume, tmp_path: Path) -> None:
    place = ("-p", _text(_mm(volume, VOXEL)))
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
    found = _masks(tmp_path / "out.seg.nrrd")
    for index, mask in masks.items():
        added = found[catalogue()[index].display_name] & ~mask
        assert added.sum() == (again["voxels_added"] if index == kidney["index"] else 0)


def test_a_class_that_the_model_does_not_know_is_a_new_object_to_it(click: Callable, volume: Volume) -> None:
    place = ("-p", _text(_mm(volume, VOXEL)), "--json")
    known, unknown = click("-c", "pancreas", *place), click("--new-object", *place)
    assert known["notes"] == ["The model was not trained for 'pancreas'; it is treated as a new object."]
    assert known["structure"]["name"] == "pancreas"
    assert known["voxels_added"] == unknown["voxels_added"] > 0


def test_what_is_said(click: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path) -> None:
    place = ("-p", _text(_mm(volume, VOXEL)))
    spoken = click("-c", "liver", *place).stderr
    assert "Liver: " in spoken
    assert "voxels added, 0 removed" in spoken
    assert "Running on" in spoken
    assert f"Wrote {tmp_path / 'out.seg.nrrd'}" in spoken
    quiet = click("-c", "liver", *place, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_a_click_without_effect_is_said(click: Callable, volume: Volume, tmp_path: Path) -> None:
    click("-c", "liver", "-p", _text(_mm(volume, VOXEL)), "-q")
    mask = _masks(tmp_path / "out.seg.nrrd")["Liver"]
    nothing = np.argwhere(~mask)
    far = nothing[np.argmax(np.abs(nothing - VOXEL).sum(axis=1))]
    alone = ("-c", "liver", "--base", tmp_path / "out.seg.nrrd", "-n", _text(_mm(volume, far)))
    said = click(*alone, output="again.seg.nrrd").stderr
    assert "Nothing changed: the result equals the base." in said
    assert "Without effect, because the model proposes no change there: negative click at" in said
    np.testing.assert_array_equal(_masks(tmp_path / "again.seg.nrrd")["Liver"], mask)
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
    arguments = ("-c", "liver", "--base", tmp_path / "fine.nii.gz", "-n", _text(_mm(volume, (1, 1, 1))))
    result = vista3d("click", ct_file, "-m", model, "-o", tmp_path / "out.seg.nrrd", *arguments)
    assert result.exit_code == 3
    assert "another geometry" in result.stderr
    assert "--resample-base" in result.stderr
    assert not (tmp_path / "out.seg.nrrd").exists()
    summary = click(*arguments, "--resample-base", "--json")
    before = np.zeros(volume.shape, bool)
    before[17:23, 13:20, 15:22] = True
    found = _masks(tmp_path / "out.seg.nrrd")["Liver"]
    assert (before & ~found).sum() == summary["voxels_removed"]
    assert not (found & ~before).any()


@pytest.fixture
def refuses(vista3d: Callable, ct_file: Path, model: Path, tmp_path: Path) -> Callable:
    """Run ``click`` and check that it ends with one sentence and without any output."""

    def run(exit_code: int, *words: str, more: tuple, image: Path = ct_file, weights: object = model) -> None:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        files = ("-o", out / "a.seg.nrrd", "--preview", out / "a.png")
        result = vista3d("click", image, "-m", weights, *files, "-q", *more)
        assert result.exit_code == exit_code, result.stderr
        assert "Traceback" not in result.stderr
        said = " ".join(result.stderr.split()).lower()
        for word in words:
            assert word.lower() in said
        assert result.stdout == ""
        assert list(out.iterdir()) == []

    return run


LIVER_HERE = ("-c", "liver", "--voxel", "-p", "20,16,18")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("--class NAME, or --new-object", ("-p", "1,2,3")),
        ("--class NAME, or --new-object", ("-p", "1,2,3", "-c", "liver", "--new-object")),
        ("at least one click", ("-c", "liver")),
        ("not three numbers", ("-c", "liver", "-p", "1,2")),
        ("not three numbers", ("-c", "liver", "-p", "1,2,3,4")),
        ("not three numbers", ("-c", "liver", "-n", "a,b,c")),
        ("--polarity", ("-c", "liver", "-p", "1,2,3", "--polarity", "negative")),
        ("--polarity", ("-c", "liver", "--markups", "a", *("--polarity", "auto") * 2)),
        ("--base", ("-c", "liver", "-p", "1,2,3", "--segment", "Liver")),
        ("--base", ("-c", "liver", "-p", "1,2,3", "--resample-base")),
        ("both", ("-c", "liver", "--markups", "a", "--polarity", "both")),
        ("fast", (*LIVER_HERE, "--policy", "fast")),
        ("livr", ("-c", "livr", "-p", "1,2,3")),
        ("rectum", ("-c", "rectum", "-p", "0,0,0")),  # a dead slot: no trained weights
    ],
)
def test_wrong_usage(refuses: Callable, words: str, more: tuple[str, ...]) -> None:
    refuses(2, words, more=more)


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("outside the volume", ("-c", "liver", "-p", "5000,0,0")),
        ("outside the volume", ("-c", "liver", "--voxel", "-p", "40,0,0")),
        ("outside the volume", ("--new-object", "--voxel", "-p", "-1,0,0")),
        ("finite", ("-c", "liver", "-p", "nan,0,0")),
        ("finite", ("-c", "liver", "--voxel", "-p", "0,inf,0")),
        ("one voxel", (*LIVER_HERE, "-n", "20.2,16,18")),
        ("positive click", ("-c", "liver", "--voxel", "-n", "20,16,18")),
        ("does not exist", ("-c", "liver", "--markups", "nowhere.mrk.json")),
        ("does not exist", (*LIVER_HERE, "--base", "nowhere.seg.nrrd")),
    ],
)
def test_input_that_cannot_be_used(refuses: Callable, words: str, more: tuple[str, ...]) -> None:
    refuses(3, words, more=more)


def test_bases_that_cannot_be_used(refuses: Callable, volume: Volume, base: tuple[Path, dict], tmp_path: Path) -> None:
    path, _ = base
    refuses(
        3, "no segment 'aorta'", "'liver', 'spleen'", "--segment", more=("-c", "aorta", "--base", path, "-p", "0,0,0")
    )
    refuses(3, "several segments", more=("--new-object", "--base", path, "-p", "0,0,0"))
    refuses(3, "no segment 'x'", more=(*LIVER_HERE, "--base", path, "--segment", "x"))
    empty = tmp_path / "empty.seg.nrrd"
    Segmentation(np.zeros(volume.shape), {}, (catalogue()[LIVER],), volume.affine).write(empty)
    refuses(3, "'Liver' in 'empty.seg.nrrd' is empty", "leave --base out", more=(*LIVER_HERE, "--base", empty))
    (tmp_path / "text.seg.nrrd").write_text("Dear colleague,")
    refuses(3, "text.seg.nrrd", more=(*LIVER_HERE, "--base", tmp_path / "text.seg.nrrd"))


def test_a_model_without_a_click_branch(refuses: Callable, tmp_path: Path) -> None:
    from VISTA3DCore.network.architecture import build_network
    from VISTA3DCore.network.checkpoints import save_checkpoint
    from VISTA3DCore.network.config import ModelConfig

    config = ModelConfig(name="automatic", click_branch=False, classes=(LIVER,), **CONFIG)
    path = tmp_path / "automatic.safetensors"
    save_checkpoint(path, config, build_network(config).state_dict())
    refuses(4, "not trained for clicks", weights=path, more=LIVER_HERE)


def test_no_input_is_overwritten(
    vista3d: Callable, ct_file: Path, model: Path, base: tuple[Path, dict], tmp_path: Path
) -> None:
    path, _ = base
    before = path.read_bytes()
    result = vista3d("click", ct_file, "-m", model, *LIVER_HERE, "--base", path, "-o", path)
    assert result.exit_code == 6
    assert "would be overwritten" in result.stderr
    assert path.read_bytes() == before


@settings(max_examples=20)
@given(
    order=st.permutations((0, 1, 2)),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    voxel=st.tuples(st.integers(0, 11), st.integers(0, 9), st.integers(0, 7)),
)
def test_the_picture_marks_the_voxel_that_was_clicked(order: list[int], flips: tuple, voxel: tuple) -> None:
    array = np.zeros((12, 10, 8), np.float32)
    array[voxel] = 100.0
    affine = np.array([[-0.8, 0.1, 0.0, 30.0], [0.1, 0.8, 0.0, -20.0], [0.0, 0.0, 2.5, 7.0], [0, 0, 0, 1]])
    position = tuple(apply_affine(affine, voxel))
    stored = array[tuple(slice(None, None, -1 if flip else None) for flip in flips)].transpose(order)
    image = Volume(stored, reoriented_affine(affine, array.shape, tuple(order), flips))
    empty = Segmentation(np.zeros(stored.shape), {}, (), image.affine)
    clicks = [Click((position[0] + 2, position[1], position[2]), False), Click(position)]
    for plane in planes_of(image, empty, clicks):
        row, column = np.unravel_index(np.argmax(plane.image), plane.image.shape)
        assert plane.image[row, column] == 100.0
        other, mark = plane.marks
        assert (mark.positive, other.positive) == (True, False)
        assert mark.distance == pytest.approx(0.0, abs=1e-6)
        assert mark.x == pytest.approx((column + 0.5) * plane.pixel[0])
        assert mark.y == pytest.approx((row + 0.5) * plane.pixel[1])


# What follows: a real CT as an oblique NRRD, and markups files from Slicer in LPS.

CROP = (slice(30, 90), slice(20, 80), slice(60, 110))
PLACES = [(12, 9, 30), (33, 41, 7), (50, 22, 44)]


@pytest.fixture
def oblique_ct(ct_data: Path, tmp_path: Path) -> Volume:
    """A part of a real CT, turned by some 40 degrees and stored left-handedly, as NRRD: ct.nrrd."""
    from scipy.spatial.transform import Rotation

    array = np.asarray(nibabel.load(ct_data / "ts_example_ct" / "ct.nii.gz").dataobj)[CROP].astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [17, -24, 33], degrees=True).as_matrix() @ np.diag([-3.0, 3.0, 3.0])
    affine[:3, 3] = 113.7, -41.3, 512.9
    _write_nrrd(tmp_path / "ct.nrrd", array, affine)
    volume = Volume.read(tmp_path / "ct.nrrd")
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(volume.array, array)
    return volume


def _write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array.T)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))


def _place_in_slicer(path: Path, ct: Path, voxels: list[tuple], system: str = "LPS") -> None:
    """Let Slicer load the CT, turn voxel indices into its world, and save points there as markups."""
    slicer = pytest.importorskip("slicer")
    import vtk

    scene = slicer.vtkMRMLScene()
    image, reader = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLNRRDStorageNode()
    scene.AddNode(image)
    scene.AddNode(reader)
    reader.SetFileName(str(ct))
    assert reader.ReadData(image) == 1
    to_world = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(to_world)
    node = slicer.vtkMRMLMarkupsFiducialNode()
    scene.AddNode(node)
    for voxel in voxels:
        node.AddControlPoint(vtk.vtkVector3d(*to_world.MultiplyPoint((*voxel, 1.0))[:3]))
    fcsv = path.name.endswith(".fcsv")
    storage = slicer.vtkMRMLMarkupsFiducialStorageNode() if fcsv else slicer.vtkMRMLMarkupsJsonStorageNode()
    scene.AddNode(storage)
    storage.SetCoordinateSystem(getattr(slicer.vtkMRMLStorageNode, f"CoordinateSystem{system}"))
    storage.SetFileName(str(path))
    assert storage.WriteData(node) == 1


@pytest.mark.parametrize(("name", "system"), [("neg.mrk.json", "LPS"), ("neg.fcsv", "LPS"), ("neg.mrk.json", "RAS")])
def test_points_of_slicer_hit_exactly_their_voxels_of_an_oblique_ct(
    vista3d: Callable, oblique_ct: Volume, tmp_path: Path, name: str, system: str
) -> None:
    """The base is a lattice of single voxels: each negative click takes away the one that it lies in."""
    lattice = np.zeros(oblique_ct.shape, np.uint8)
    lattice[::3, ::4, ::3] = 1
    voxels = [tuple(3 * (i // 3) if axis != 1 else 4 * (i // 4) for axis, i in enumerate(place)) for place in PLACES]
    assert all(lattice[voxel] for voxel in voxels)
    _write_nrrd(tmp_path / "base.nrrd", lattice, oblique_ct.affine)
    inside = [(-0.45, 0.4, 0.3), (0.2, -0.48, 0.48), (0.0, 0.0, 0.0)]
    _place_in_slicer(tmp_path / name, tmp_path / "ct.nrrd", list(np.add(voxels, inside)), system)
    result = vista3d(
        "click", tmp_path / "ct.nrrd", "-m", "mini", "-c", "spleen", "--base", tmp_path / "base.nrrd",
        "--markups", tmp_path / name, "-o", tmp_path / "out.seg.nrrd", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    places = apply_affine(np.linalg.inv(oblique_ct.affine), [one["position"] for one in summary["clicks"]])
    np.testing.assert_allclose(places, np.add(voxels, inside), atol=1e-4)
    gone = lattice.astype(bool) & ~_masks(tmp_path / "out.seg.nrrd")["Spleen"]
    assert sorted(map(tuple, np.argwhere(gone).tolist())) == sorted(voxels)


@pytest.mark.parametrize("weights", ["random", "mini"])
def test_a_point_of_slicer_lies_in_what_it_segments(
    vista3d: Callable, oblique_ct: Volume, model: Path, tmp_path: Path, weights: str
) -> None:
    from skimage.measure import label

    voxel = (56, 27, 45)  # in the liver
    _place_in_slicer(tmp_path / "F.mrk.json", tmp_path / "ct.nrrd", [voxel])
    result = vista3d(
        "click", tmp_path / "ct.nrrd", "-m", "mini" if weights == "mini" else model, "-c", "liver",
        "--markups", tmp_path / "F.mrk.json", "-o", tmp_path / "out.seg.nrrd", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["clicks"][0]["touched"]
    mask = _masks(tmp_path / "out.seg.nrrd")["Liver"]
    assert mask[voxel]
    assert label(mask, connectivity=3).max() == 1
    image = sitk.ReadImage(str(tmp_path / "out.seg.nrrd"))
    x, y, z = summary["clicks"][0]["position"]
    assert image.TransformPhysicalPointToIndex((-x, -y, z)) == voxel
    seen = _in_slicer(tmp_path / "out.seg.nrrd", (x, y, z))
    assert seen == 1


def _in_slicer(path: Path, position: tuple[float, float, float]) -> float:
    """Return the value of the first segment's labelmap in Slicer at a place in RAS mm."""
    import slicer
    import vtk

    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    image = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    from_world = vtk.vtkMatrix4x4()
    image.GetWorldToImageMatrix(from_world)
    index = np.rint(from_world.MultiplyPoint((*position, 1.0))[:3]).astype(int)
    return image.GetScalarComponentAsDouble(*index.tolist(), 0)


def test_what_was_written_can_be_read_again(click: Callable, volume: Volume, tmp_path: Path) -> None:
    click("-c", "liver", "-p", _text(_mm(volume, VOXEL)), "-q")
    stored = StoredSegmentation.read(tmp_path / "out.seg.nrrd")
    mask = stored.mask(stored.find(catalogue()["liver"]), volume)
    np.testing.assert_array_equal(mask, _masks(tmp_path / "out.seg.nrrd")["Liver"])
