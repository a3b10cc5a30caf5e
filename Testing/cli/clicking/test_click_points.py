"""Points that Slicer placed in an oblique CT: they hit their voxels, and a picture marks them there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from click_cases import masks_of
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.cli.planes import planes_of
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine, reoriented_affine
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume

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
    gone = lattice.astype(bool) & ~masks_of(tmp_path / "out.seg.nrrd")["Spleen"]
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
    mask = masks_of(tmp_path / "out.seg.nrrd")["Liver"]
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
