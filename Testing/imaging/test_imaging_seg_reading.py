"""Masks from segmentation files of Slicer, of ours, and from label maps: the same voxels, on the grid of the image."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.anatomy.structure import new_object
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.seg_reading import StoredSegmentation, read_mask
from VISTA3DCore.imaging.geometry import lps_to_ras, reoriented_affine
from VISTA3DCore.imaging.placing import place
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume

SHAPE = (20, 18, 16)
LIVER, SPLEEN, KIDNEY, TUMOUR = 1, 3, 14, 26


def _box(i: tuple, j: tuple, k: tuple, shape: tuple = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[slice(*i), slice(*j), slice(*k)] = True
    return mask


A = _box((5, 12), (4, 9), (3, 9))
B = _box((8, 14), (6, 10), (5, 12))
C = _box((14, 18), (12, 17), (0, 16))


@pytest.fixture
def volume(oblique: np.ndarray) -> Volume:
    return Volume(np.zeros(SHAPE, np.int16), oblique, "ct")


@pytest.fixture
def save_in_slicer(tmp_path: Path, oblique: np.ndarray) -> Callable[..., Path]:
    """Return a function that saves masks as segments with Slicer's storage node, cropped or on the whole grid."""
    slicer = pytest.importorskip("slicer")
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    def image_of(mask: np.ndarray, affine: np.ndarray) -> object:
        image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        image.SetExtent(*(bound for size in mask.shape for bound in (0, size - 1)))
        image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(order="F"), deep=1))
        matrix.DeepCopy(affine.ravel())
        image.SetImageToWorldMatrix(matrix)
        return image

    def save(
        segments: dict[str, np.ndarray],
        cropped: bool = True,
        terminology: dict[str, str] | None = None,
        affine: np.ndarray = oblique,
        name: str = "slicer.seg.nrrd",
    ) -> Path:
        scene, node = slicer.vtkMRMLScene(), slicer.vtkMRMLSegmentationNode()
        scene.AddNode(node)
        geometry = slicer.vtkSegmentationConverter.SerializeImageGeometry(image_of(A, affine))
        node.GetSegmentation().SetConversionParameter("Reference image geometry", geometry)
        for title, mask in segments.items():
            node.AddSegmentFromBinaryLabelmapRepresentation(image_of(mask, affine), title, [1, 0, 0])
        for title, entry in (terminology or {}).items():
            node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(title)).SetTag(
                "TerminologyEntry", entry
            )
        storage = slicer.vtkMRMLSegmentationStorageNode()
        scene.AddNode(storage)
        storage.SetCropToMinimumExtent(cropped)
        storage.SetFileName(str(tmp_path / name))
        assert storage.WriteData(node) == 1
        return tmp_path / name

    return save


@pytest.fixture
def ours(tmp_path: Path, oblique: np.ndarray) -> Path:
    """A file of ours: liver and left kidney, a tumour that overlaps the liver, and a spleen that was not found."""
    labels = np.where(A, LIVER, np.where(C, KIDNEY, 0))
    structures = tuple(catalogue()[index] for index in (LIVER, KIDNEY, SPLEEN, TUMOUR))
    segmentation = Segmentation(labels, {TUMOUR: B}, structures, oblique)
    segmentation.write(tmp_path / "ours.seg.nrrd")
    return tmp_path / "ours.seg.nrrd"


@pytest.mark.parametrize("cropped", [False, True])
def test_overlapping_segments_that_slicer_saved(save_in_slicer: Callable, volume: Volume, cropped: bool) -> None:
    path = save_in_slicer({"Hepar": A, "Lésion 3": B, "milz": C}, cropped)
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == 2
    assert (image.GetSize() == SHAPE) == (not cropped)
    np.testing.assert_array_equal(read_mask(path, volume, catalogue()["liver"]), A)
    np.testing.assert_array_equal(read_mask(path, volume, None, "Lésion 3"), B)
    np.testing.assert_array_equal(read_mask(path, volume, catalogue()["liver"], "lésion_3"), B)
    np.testing.assert_array_equal(read_mask(path, volume, None, "milz"), C)
    stored = StoredSegmentation.read(path)
    by_id = stored.segments[1].id
    np.testing.assert_array_equal(read_mask(path, volume, None, by_id), B)


@pytest.mark.parametrize("cropped", [False, True])
def test_ours_after_a_round_through_slicer(
    ours: Path, tmp_path: Path, volume: Volume, open_in_slicer: Callable, cropped: bool
) -> None:
    import slicer

    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(ours))
    assert storage.ReadData(node) == 1
    # Renamed and with changed colours, as people do: the tag with the index tells what it is.
    node.GetSegmentation().GetSegment("left_kidney").SetName("Follow-up")
    storage.SetFileName(str(tmp_path / "again.seg.nrrd"))
    storage.SetCropToMinimumExtent(cropped)
    assert storage.WriteData(node) == 1
    for path in (ours, tmp_path / "again.seg.nrrd"):
        for structure, mask in (("liver", A), ("left kidney", C), ("hepatic tumor", B)):
            np.testing.assert_array_equal(read_mask(path, volume, catalogue()[structure]), mask)


def test_found_by_terminology(save_in_slicer: Callable, volume: Volume) -> None:
    general = "Segmentation category and type - 3D Slicer General Anatomy list"
    structure = catalogue()["left kidney"]
    path = save_in_slicer(
        {"Segment_1": A, "Segment_2": C}, terminology={"Segment_2": structure.terminology_entry(general)}
    )
    np.testing.assert_array_equal(read_mask(path, volume, structure), C)
    with pytest.raises(InputError, match="no segment 'right kidney'"):
        read_mask(path, volume, catalogue()["right kidney"])


def test_generic_tissue_is_nobodys_terminology(save_in_slicer: Callable, volume: Volume) -> None:
    path = save_in_slicer({"Segment_1": A, "Segment_2": C})
    with pytest.raises(InputError, match="several segments; choose one of 'Segment_1', 'Segment_2' with --segment"):
        read_mask(path, volume)
    for structure in (new_object(), catalogue()["liver"], *catalogue()["lung"].members):
        with pytest.raises(InputError, match=r"no segment .* choose one of 'Segment_1', 'Segment_2' with --segment"):
            read_mask(path, volume, catalogue()[structure] if isinstance(structure, int) else structure)


def test_the_only_segment_needs_no_name_unless_it_is_something_else(save_in_slicer: Callable, volume: Volume) -> None:
    path = save_in_slicer({"Segment_1": A})
    np.testing.assert_array_equal(read_mask(path, volume), A)
    np.testing.assert_array_equal(read_mask(path, volume, catalogue()["spleen"]), A)
    path = save_in_slicer({"Liver": A}, name="liver.seg.nrrd")
    np.testing.assert_array_equal(read_mask(path, volume), A)
    with pytest.raises(InputError, match="no segment 'spleen'; choose one of 'Liver' with --segment"):
        read_mask(path, volume, catalogue()["spleen"])
    np.testing.assert_array_equal(read_mask(path, volume, catalogue()["spleen"], "Liver"), A)


def test_segments_of_one_name_are_told_apart_by_their_id(save_in_slicer: Callable, volume: Volume) -> None:
    path = save_in_slicer({"Liver": A, "liver": C})
    with pytest.raises(InputError, match="more than one segment 'liver'"):
        read_mask(path, volume, catalogue()["liver"])
    np.testing.assert_array_equal(read_mask(path, volume, None, StoredSegmentation.read(path).segments[1].id), C)


def test_files_of_slicer_4_10_have_a_layer_for_each_segment(
    tmp_path: Path, volume: Volume, save_in_slicer: Callable
) -> None:
    content = save_in_slicer({"Liver": A, "Spleen": B}).read_bytes()
    lines = content.split(b"\n")
    kept = [line for line in lines if not line.startswith((b"Segment0_L", b"Segment1_L", b"Segment0_Tags"))]
    (tmp_path / "old.seg.nrrd").write_bytes(b"\n".join(kept))
    np.testing.assert_array_equal(read_mask(tmp_path / "old.seg.nrrd", volume, catalogue()["liver"]), A)
    np.testing.assert_array_equal(read_mask(tmp_path / "old.seg.nrrd", volume, catalogue()["spleen"]), B)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_label_maps(tmp_path: Path, volume: Volume, suffix: str) -> None:
    structures = tuple(catalogue()[index] for index in (LIVER, KIDNEY))
    path = tmp_path / f"labels{suffix}"
    Segmentation(np.where(A, LIVER, np.where(C, KIDNEY, 0)), {}, structures, volume.affine).write(path)
    np.testing.assert_array_equal(read_mask(path, volume, catalogue()["left kidney"]), C)
    np.testing.assert_array_equal(read_mask(path, volume, None, "14"), C)
    np.testing.assert_array_equal(read_mask(path, volume, None, "Left Kidney"), C)
    with pytest.raises(InputError, match="no segment 'spleen'; choose one of 'liver', 'left kidney' with --segment"):
        read_mask(path, volume, catalogue()["spleen"])


def test_a_mask_of_ones_may_be_anything(tmp_path: Path, volume: Volume) -> None:
    nib.save(nib.Nifti1Image(A.astype(np.float64), volume.affine), tmp_path / "mask.nii.gz")
    for structure in (None, catalogue()["spleen"], new_object()):
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", volume, structure), A)
    nib.save(nib.Nifti1Image(A.astype(np.uint8) * 5, volume.affine), tmp_path / "five.nii")
    with pytest.raises(InputError, match="choose one of 'right kidney'"):
        read_mask(tmp_path / "five.nii", volume, catalogue()["spleen"])


@pytest.mark.parametrize("value", [255, 65535])
def test_a_mask_of_the_highest_value_may_be_anything_too(tmp_path: Path, volume: Volume, value: int) -> None:
    nib.save(nib.Nifti1Image(np.where(A, value, 0).astype(np.uint16), volume.affine), tmp_path / "mask.nii.gz")
    stored = StoredSegmentation.read(tmp_path / "mask.nii.gz")
    for structure in (None, catalogue()["spleen"], new_object(), catalogue()["liver"]):
        segment = stored.find(structure)
        np.testing.assert_array_equal(stored.mask(segment, volume), A)
        assert stored.structure(segment, catalogue("vista3d-ctmr")) is None
    # Beside other labels it is a label like any other.
    both = np.where(A, value, np.where(C, LIVER, 0)).astype(np.uint16)
    nib.save(nib.Nifti1Image(both, volume.affine), tmp_path / "labels.nii.gz")
    with pytest.raises(InputError, match="no segment 'spleen'; choose one of 'liver'"):
        read_mask(tmp_path / "labels.nii.gz", volume, catalogue()["spleen"])


HIGH = 4_000_000_007


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_labels_of_32_bits(tmp_path: Path, volume: Volume, suffix: str) -> None:
    values = np.where(A, HIGH, np.where(C, 70000, 0)).astype(np.uint32)
    image = sitk.GetImageFromArray(values.T)
    lps = lps_to_ras(volume.affine)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path = tmp_path / f"labels{suffix}"
    sitk.WriteImage(image, str(path))
    stored = StoredSegmentation.read(path)
    assert [segment.value for segment in stored.segments] == [70000, HIGH]
    np.testing.assert_array_equal(read_mask(path, volume, None, str(HIGH)), A)
    (labels,) = stored.label_maps(dict(zip(stored.segments, (7, 8), strict=True)), volume)
    np.testing.assert_array_equal(labels, np.where(A, 8, np.where(C, 7, 0)))


@pytest.mark.parametrize("values", [A * 0.5, -A.astype(np.float32), np.where(A, np.inf, 0), np.where(A, np.nan, 0)])
def test_what_is_no_label_map(tmp_path: Path, volume: Volume, values: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), volume.affine), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="not a label map"):
        read_mask(tmp_path / "a.nii.gz", volume)


def test_empty_segments(ours: Path, tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(InputError, match=r"'Spleen' in 'ours.seg.nrrd' is empty; leave --base out"):
        read_mask(ours, volume, catalogue()["spleen"])
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), volume.affine), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"'a.nii.gz' is empty; leave --base out"):
        read_mask(tmp_path / "a.nii.gz", volume, catalogue()["spleen"])


def test_unreadable_files(tmp_path: Path, volume: Volume, ours: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_mask(tmp_path / "none.seg.nrrd", volume)
    with pytest.raises(InputError, match="not a file"):
        read_mask(tmp_path, volume)
    (tmp_path / "text.seg.nrrd").write_text("Dear colleague,")
    with pytest.raises(InputError, match=r"'text.seg.nrrd' cannot be read"):
        read_mask(tmp_path / "text.seg.nrrd", volume)
    content = ours.read_bytes()
    for name, old, new in (
        ("layer.seg.nrrd", b"Segment0_Layer:=0", b"Segment0_Layer:=9"),
        ("value.seg.nrrd", b"Segment0_LabelValue:=1", b"Segment0_LabelValue:=x"),
    ):
        assert old in content
        (tmp_path / name).write_bytes(content.replace(old, new))
        with pytest.raises(InputError, match=f"'{name}'.* save it again in Slicer"):
            read_mask(tmp_path / name, volume, catalogue()["liver"])
    (tmp_path / "short.seg.nrrd").write_bytes(content[: len(content) - 40])
    with pytest.raises(InputError, match=r"'short.seg.nrrd'"):
        read_mask(tmp_path / "short.seg.nrrd", volume, catalogue()["liver"])
    colour = sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3)
    sitk.WriteImage(colour, str(tmp_path / "colour.mha"))
    with pytest.raises(InputError, match="color or vector image"):
        read_mask(tmp_path / "colour.mha", volume)


def _shifted(affine: np.ndarray, offset: tuple[float, float, float]) -> np.ndarray:
    result = affine.copy()
    result[:3, 3] += affine[:3, :3] @ offset
    return result


def _refuses(affine: np.ndarray, volume: Volume, words: str) -> None:
    with pytest.raises(InputError, match=f"another geometry than the image .*{words}.*--resample-base"):
        place(A, affine, volume, "a.seg.nrrd")


def test_another_geometry_is_refused_and_resampling_offered(volume: Volume) -> None:
    from scipy.spatial.transform import Rotation

    _refuses(volume.affine @ np.diag([1.1, 1, 1, 1]), volume, "its spacing is 0.88 x 0.9 x 2.5 mm, the image's 0.8 x")
    _refuses(_shifted(volume.affine, (0.5, 0, 0)), volume, "between those of the image")
    turned = volume.affine.copy()
    turned[:3, :3] = Rotation.from_euler("z", 7, degrees=True).as_matrix() @ turned[:3, :3]
    _refuses(turned, volume, "other directions")


def test_rounded_headers_are_the_same_geometry(volume: Volume) -> None:
    np.testing.assert_array_equal(place(A, np.float32(np.round(volume.affine, 5)), volume, "a"), A)
    np.testing.assert_array_equal(place(A, _shifted(volume.affine, (0.01, 0.01, -0.01)), volume, "a"), A)


@given(
    order=st.permutations((0, 1, 2)),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    start=st.tuples(*[st.integers(0, 3)] * 3),
    labels=st.booleans(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_of_the_grid_in_any_storage_order_are_pasted(
    volume: Volume, order: list[int], flips: tuple, start: tuple, labels: bool
) -> None:
    whole = np.where(A, 7, np.where(C, 300, 0)).astype(np.uint16) if labels else A
    cut = whole[tuple(slice(n, None) for n in start)]
    affine = reoriented_affine(_shifted(volume.affine, start), cut.shape, tuple(order), flips)
    stored = cut[tuple(slice(None, None, -1 if flip else None) for flip in flips)].transpose(order)
    expected = np.zeros_like(whole)
    expected[tuple(slice(n, None) for n in start)] = cut
    for resample in (False, True):
        placed = place(stored, affine, volume, "a", resample)
        assert placed.dtype == whole.dtype
        np.testing.assert_array_equal(placed, expected)


@given(offset=st.tuples(*[st.integers(-25, 25)] * 3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_lies_outside_the_image_is_left_out_and_said(volume: Volume, offset: tuple[int, int, int]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        placed = place(A, _shifted(volume.affine, offset), volume, "a")
    inside = np.argwhere(A) + offset
    inside = inside[np.all((inside >= 0) & (inside < SHAPE), axis=1)]
    assert {tuple(voxel) for voxel in np.argwhere(placed)} == {tuple(voxel) for voxel in inside}
    assert len(caught) == (len(inside) < A.sum())


def test_a_segmentation_of_another_place(tmp_path: Path, volume: Volume) -> None:
    nib.save(nib.Nifti1Image(A.astype(np.uint8), _shifted(volume.affine, (50, 0, 0))), tmp_path / "a.nii.gz")
    with pytest.warns(UserWarning, match="beyond the image"), pytest.raises(InputError, match="outside the image"):
        read_mask(tmp_path / "a.nii.gz", volume)


def test_resampling_is_the_nearest_neighbour_as_simpleitk_finds_it(tmp_path: Path, volume: Volume) -> None:
    from scipy.spatial.transform import Rotation

    affine = volume.affine.copy()
    affine[:3, :3] = (
        Rotation.from_euler("xyz", [9, 4, -11], degrees=True).as_matrix() @ affine[:3, :3] @ np.diag([1.3, 0.7, 0.9])
    )
    affine[:3, 3] += 0.37, 1.21, -0.83
    nib.save(nib.Nifti1Image(A.astype(np.uint8), affine), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="--resample-base"):
        read_mask(tmp_path / "a.nii.gz", volume)
    found = read_mask(tmp_path / "a.nii.gz", volume, resample=True)

    def image(array: np.ndarray, own: np.ndarray) -> sitk.Image:
        result, lps = sitk.GetImageFromArray(array.T.astype(np.uint8)), lps_to_ras(own)
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        result.SetSpacing(spacing.tolist())
        result.SetOrigin(lps[:3, 3].tolist())
        result.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        return result

    expected = sitk.Resample(
        image(A, affine), image(volume.array, volume.affine), sitk.Transform(), sitk.sitkNearestNeighbor
    )
    expected = sitk.GetArrayFromImage(expected).T.astype(bool)
    assert expected.any()
    assert np.count_nonzero(found != expected) <= 2  # ITK rounds exact halves the other way


def test_label_maps_of_all_layers(ours: Path, volume: Volume) -> None:
    stored = StoredSegmentation.read(ours)
    known = catalogue()
    assert [stored.structure(segment, known).index for segment in stored.segments] == [LIVER, KIDNEY, SPLEEN, TUMOUR]
    first, second = stored.label_maps({segment: segment.index + 100 for segment in stored.segments}, volume)
    np.testing.assert_array_equal(first, np.where(A, LIVER + 100, np.where(C, KIDNEY + 100, 0)))
    np.testing.assert_array_equal(second, np.where(B, TUMOUR + 100, 0))
    (only,) = stored.label_maps({stored.segments[0]: 9}, volume)
    np.testing.assert_array_equal(only, np.where(A, 9, 0))


def test_a_new_object_can_be_read_back(tmp_path: Path, volume: Volume, open_in_slicer: Callable) -> None:
    thing = new_object()
    Segmentation(A * thing.index, {}, (thing,), volume.affine).write(tmp_path / "a.seg.nrrd")
    (segment,) = open_in_slicer(tmp_path / "a.seg.nrrd", SHAPE)
    assert (segment.name, segment.terminology) == ("New object", thing.terminology_entry())
    np.testing.assert_array_equal(segment.mask, A)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.seg.nrrd", volume, thing), A)
    assert thing.index not in catalogue("vista3d-ctmr")
