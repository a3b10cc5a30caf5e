"""Segments: making, finding, reading."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from mrml_scene import AFFINES, OTHER_GRID, RADIUS, SHAPE, Application, ball, middle_of, places_in_world, rigid

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.anatomy.structure import TISSUE, new_object
from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.labelmaps import oriented_image, reference_lattice
from VISTA3DSegmentLib.mrml.matrices import to_array
from VISTA3DSegmentLib.mrml.segments import (
    create_segmentation,
    ensure_segment,
    find_segment,
    get_tag,
    has_segment,
    is_empty,
    mask_box,
    read_mask,
    require_labelmaps,
    set_tag,
    structure_of,
    voxels_to_node,
)

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
CATALOGUE = catalogue()
LIVER, SPLEEN, LEFT_KIDNEY, RIGHT_KIDNEY = (
    CATALOGUE[name] for name in ("liver", "spleen", "left kidney", "right kidney")
)


@pytest.fixture
def segmentation(app: Application, ct: Volume) -> Segmentation:
    """Return an empty segmentation of the CT."""
    return create_segmentation(app.scene, ct)


def add(node: Segmentation, image: slicer.vtkOrientedImageData, name: str = "drawn", label: int = 1) -> str:
    """Add a segment that holds one label of a labelmap."""
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetLabelValue(label)
    segment.AddRepresentation("Binary labelmap", image)
    segment_id = node.GetSegmentation().GenerateUniqueSegmentID(name)
    assert node.GetSegmentation().AddSegment(segment, segment_id)
    return segment_id


# Creating a segmentation


def test_a_new_segmentation_belongs_to_its_volume(app: Application, any_ct: Volume) -> None:
    transform = app.add_transform(rigid((1, 2, 3), (4, 5, 6)))
    any_ct.SetAndObserveTransformNodeID(transform.GetID())
    node = create_segmentation(app.scene, any_ct)
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetName() == "CT segmentation"
    assert node.GetNodeReference(role) is any_ct
    assert node.GetParentTransformNode() is transform
    assert node.GetDisplayNode() is not None
    matrix = vtk.vtkMatrix4x4()
    any_ct.GetIJKToRASMatrix(matrix)
    assert np.allclose(reference_lattice(node), to_array(matrix), atol=1e-4)


def test_two_segmentations_have_two_names(app: Application, ct: Volume) -> None:
    names = {create_segmentation(app.scene, ct).GetName() for _ in range(2)}
    assert len(names) == 2
    assert create_segmentation(app.scene, ct, "organs").GetName() == "organs"


def test_a_segmentation_lies_beside_its_volume_under_the_study(app: Application, ct: Volume) -> None:
    hierarchy = app.subject_hierarchy
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.CreateItem(study, ct)
    node = create_segmentation(app.scene, ct, subject_hierarchy=hierarchy)
    item = hierarchy.GetItemByDataNode(node)
    assert hierarchy.GetItemParent(item) == study
    loose = app.add_volume(SHAPE, np.eye(4))
    loose_node = create_segmentation(app.scene, loose, subject_hierarchy=hierarchy)
    assert loose_node.GetScene() is app.scene


def test_a_volume_under_a_bending_transform_gets_no_segmentation(app: Application, ct: Volume) -> None:
    ct.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())
    with pytest.raises(InputError, match="non-linear"):
        create_segmentation(app.scene, ct)
    assert app.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


# Segments of structures


def test_a_segment_has_name_color_terminology_and_index(segmentation: Segmentation) -> None:
    segment_id = ensure_segment(segmentation, LEFT_KIDNEY, {"model": "mini"})
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    assert segment.GetName() == "Left kidney"
    assert np.allclose(segment.GetColor(), np.array(LEFT_KIDNEY.color) / 255)
    assert segment.GetTerminology() == LEFT_KIDNEY.terminology_entry()
    assert get_tag(segmentation, segment_id, "VISTA3D.index") == str(LEFT_KIDNEY.index)
    assert get_tag(segmentation, segment_id, "VISTA3D.model") == "mini"
    assert is_empty(segmentation, segment_id)


def test_a_segment_is_made_once_and_keeps_what_the_user_changed(segmentation: Segmentation) -> None:
    segment_id = ensure_segment(segmentation, LIVER)
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    segment.SetName("my liver")
    segment.SetColor(0.1, 0.2, 0.3)
    assert ensure_segment(segmentation, LIVER, {"model": "mini"}) == segment_id
    assert segment.GetName() == "my liver"
    assert np.allclose(segment.GetColor(), (0.1, 0.2, 0.3))
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1


@pytest.mark.parametrize("structure", list(CATALOGUE), ids=lambda one: one.name)
def test_every_structure_is_recognized(segmentation: Segmentation, structure: object) -> None:
    segment_id = ensure_segment(segmentation, structure)
    assert structure_of(segmentation, segment_id, CATALOGUE) == structure
    assert find_segment(segmentation, structure) == segment_id


def test_sides_are_told_apart_by_terminology_alone(segmentation: Segmentation) -> None:
    ids = {one: ensure_segment(segmentation, one) for one in (LEFT_KIDNEY, RIGHT_KIDNEY, CATALOGUE["kidney"])}
    for segment_id in ids.values():
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        segment.RemoveTag("VISTA3D.index")
        segment.SetName("x")
    for structure, segment_id in ids.items():
        assert structure_of(segmentation, segment_id, CATALOGUE) == structure
        assert find_segment(segmentation, structure) == segment_id


@pytest.mark.parametrize("name", ["Left kidney", "left_kidney", "kidney left"])
def test_a_segment_without_terminology_is_recognized_by_its_name(segmentation: Segmentation, name: str) -> None:
    segment_id = segmentation.GetSegmentation().AddEmptySegment("", name)
    assert structure_of(segmentation, segment_id, CATALOGUE) == LEFT_KIDNEY
    assert find_segment(segmentation, LEFT_KIDNEY) == segment_id
    generic = f"Segmentation category and type - 3D Slicer General Anatomy list~{TISSUE}~{TISSUE}~^^~Anatomic~^^~^^|"
    segmentation.GetSegmentation().GetSegment(segment_id).SetTerminology(generic)
    assert structure_of(segmentation, segment_id, CATALOGUE) == LEFT_KIDNEY


def test_terminology_of_slicers_own_lists_is_understood(segmentation: Segmentation) -> None:
    segment_id = segmentation.GetSegmentation().AddEmptySegment("", "Segment_1")
    entry = LEFT_KIDNEY.terminology_entry("Segmentation category and type - 3D Slicer General Anatomy list")
    segmentation.GetSegmentation().GetSegment(segment_id).SetTerminology(entry.replace("^Kidney", "^kidney (organ)"))
    assert structure_of(segmentation, segment_id, CATALOGUE) == LEFT_KIDNEY


def test_a_new_terminology_counts_more_than_our_tag(segmentation: Segmentation) -> None:
    segment_id = ensure_segment(segmentation, LIVER)
    segmentation.GetSegmentation().GetSegment(segment_id).SetTerminology(SPLEEN.terminology_entry())
    assert structure_of(segmentation, segment_id, CATALOGUE) == SPLEEN
    assert find_segment(segmentation, LIVER) is None
    assert find_segment(segmentation, SPLEEN) == segment_id


def added_after(node: Segmentation, segment_id: str, name: str) -> str:
    """Add a segment as Slicer's *Add* does: with the terminology of the last one."""
    added = node.GetSegmentation().AddEmptySegment("", name)
    entry = node.GetSegmentation().GetSegment(segment_id).GetTerminology()
    node.GetSegmentation().GetSegment(added).SetTerminology(entry)
    return added


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("name", ["Segment_1", "Tumor", ""])
def test_a_segment_that_was_added_after_another_is_a_new_object(
    segmentation: Segmentation, tagged: bool, name: str
) -> None:
    liver = ensure_segment(segmentation, LIVER)
    if not tagged:
        segmentation.GetSegmentation().GetSegment(liver).RemoveTag("VISTA3D.index")
    added = added_after(segmentation, liver, name)
    assert structure_of(segmentation, added, CATALOGUE) is None
    assert structure_of(segmentation, liver, CATALOGUE) == LIVER
    assert find_segment(segmentation, LIVER) == liver


def test_a_name_counts_more_than_the_terminology_that_add_has_copied(segmentation: Segmentation) -> None:
    liver = ensure_segment(segmentation, LIVER)
    added = added_after(segmentation, liver, "Spleen")
    assert structure_of(segmentation, added, CATALOGUE) == SPLEEN
    segmentation.GetSegmentation().RemoveSegment(liver)
    assert structure_of(segmentation, added, CATALOGUE) == SPLEEN
    assert find_segment(segmentation, LIVER) is None  # a run would overwrite it


def test_of_segments_with_the_same_terminology_a_run_replaces_the_one_with_the_name(segmentation: Segmentation) -> None:
    first = segmentation.GetSegmentation().AddEmptySegment("", "Segment_1")
    segmentation.GetSegmentation().GetSegment(first).SetTerminology(LIVER.terminology_entry())
    assert find_segment(segmentation, LIVER) == first
    second = added_after(segmentation, first, "Segment_2")
    assert find_segment(segmentation, LIVER) is None
    third = added_after(segmentation, second, "Liver")
    assert find_segment(segmentation, LIVER) == third


@pytest.mark.parametrize("name", ["", "Segment_1", "17", "new object", "lesion near the liver"])
def test_what_is_no_structure_is_none(segmentation: Segmentation, name: str) -> None:
    segment_id = segmentation.GetSegmentation().AddEmptySegment("one", name)
    assert structure_of(segmentation, segment_id, CATALOGUE) is None


def test_a_new_object_is_no_structure_of_a_label_set(segmentation: Segmentation) -> None:
    segment_id = ensure_segment(segmentation, new_object())
    assert structure_of(segmentation, segment_id, CATALOGUE) is None
    assert segmentation.GetSegmentation().GetSegment(segment_id).GetName() == "New object"


# Tags


def test_tags_are_set_and_read(segmentation: Segmentation) -> None:
    segment_id = ensure_segment(segmentation, LIVER)
    assert get_tag(segmentation, segment_id, "VISTA3D.Test") is None
    set_tag(segmentation, segment_id, "VISTA3D.Test", '{"a": [1, "ü:,"]}')
    assert get_tag(segmentation, segment_id, "VISTA3D.Test") == '{"a": [1, "ü:,"]}'
    set_tag(segmentation, segment_id, "VISTA3D.Test", "")
    assert get_tag(segmentation, segment_id, "VISTA3D.Test") == ""


def test_a_tag_that_a_file_would_cut_off_is_refused(segmentation: Segmentation) -> None:
    segment_id = ensure_segment(segmentation, LIVER)
    set_tag(segmentation, segment_id, "VISTA3D.Test", "before")
    with pytest.raises(InputError, match=r"'\|'"):
        set_tag(segmentation, segment_id, "VISTA3D.Test", "a|b")
    assert get_tag(segmentation, segment_id, "VISTA3D.Test") == "before"


def test_a_missing_segment_is_an_error_in_one_sentence(segmentation: Segmentation, ct: Volume) -> None:
    assert not has_segment(segmentation, "gone")
    assert not has_segment(segmentation, "")
    for call in (
        lambda: get_tag(segmentation, "gone", "a"),
        lambda: set_tag(segmentation, "gone", "a", "b"),
        lambda: read_mask(segmentation, "gone", ct),
        lambda: is_empty(segmentation, "gone"),
        lambda: structure_of(segmentation, "gone", CATALOGUE),
    ):
        with pytest.raises(InputError, match="The segment was deleted; choose another one"):
            call()


# Masks


def test_an_empty_segment_has_an_empty_mask(segmentation: Segmentation, ct: Volume) -> None:
    for segment_id in (ensure_segment(segmentation, LIVER), segmentation.GetSegmentation().AddEmptySegment("x")):
        mask = read_mask(segmentation, segment_id, ct)
        assert mask.shape == SHAPE
        assert mask.flags.f_contiguous
        assert not mask.any()
        assert is_empty(segmentation, segment_id)


@pytest.mark.parametrize("box", [((0, 44), (0, 40), (0, 26)), ((3, 9), (30, 40), (0, 1)), ((5, 5), (0, 2), (0, 2))])
def test_a_mask_is_read_whole_and_in_parts(segmentation: Segmentation, ct: Volume, box: tuple) -> None:
    part = np.random.default_rng(2).random((20, 30, 10)) < 0.5
    whole = np.zeros(SHAPE, bool)
    whole[7:27, 4:34, 9:19] = part
    segment_id = add(segmentation, oriented_image(part, AFFINES["oblique"], (7, 4, 9)))
    assert np.array_equal(read_mask(segmentation, segment_id, ct), whole)
    inner = tuple(slice(*ends) for ends in box)
    assert np.array_equal(mask_box(segmentation, segment_id, ct, box), whole[inner])
    assert not is_empty(segmentation, segment_id)


def test_what_sticks_out_of_the_volume_is_left_out(segmentation: Segmentation, ct: Volume) -> None:
    segment_id = add(segmentation, oriented_image(np.ones((20, 20, 20), bool), AFFINES["oblique"], (-15, 30, 20)))
    mask = read_mask(segmentation, segment_id, ct)
    assert mask.sum() == 5 * 10 * 6
    assert mask[:5, 30:, 20:].all()
    far = add(segmentation, oriented_image(np.ones((2, 2, 2), bool), AFFINES["oblique"], (100, 0, 0)))
    assert not read_mask(segmentation, far, ct).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_segments_that_share_a_labelmap_are_told_apart(segmentation: Segmentation, ct: Volume, dtype: type) -> None:
    labels = np.random.default_rng(3).integers(0, 4, SHAPE).astype(dtype)
    image = oriented_image(labels, AFFINES["oblique"])
    ids = [add(segmentation, image, f"s{label}", label) for label in (1, 2, 3, 200)]
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 1
    for label, segment_id in enumerate(ids[:3], start=1):
        assert np.array_equal(read_mask(segmentation, segment_id, ct), labels == label)
    assert is_empty(segmentation, ids[3])
    assert not is_empty(segmentation, ids[0])


def test_a_mask_is_read_where_slicer_shows_it(app: Application, placed: tuple[Volume, Segmentation]) -> None:
    """A ball that was drawn on another grid, with whatever transforms above volume and segmentation."""
    volume, segmentation = placed
    center = middle_of(volume)
    other = app.add_volume((60, 61, 62), OTHER_GRID)
    shift = np.eye(4)
    shift[:3, 3] = center - middle_of(other)
    to_node = np.linalg.inv(_world_of(segmentation))
    lattice = to_node @ shift @ OTHER_GRID
    drawn = ball(other)
    segment_id = add(segmentation, oriented_image(drawn, lattice))
    mask = read_mask(segmentation, segment_id, volume)
    assert np.allclose(places_in_world(segmentation, segment_id).mean(axis=0), center, atol=0.1)
    assert _agreement(mask, ball(volume)) > 0.93
    _assert_within_one_voxel(mask, volume, center)
    inner = ((10, 30), (8, 35), (5, 20))
    assert np.array_equal(mask_box(segmentation, segment_id, volume, inner), mask[10:30, 8:35, 5:20])


def test_a_segmentation_under_a_bending_transform_is_refused(
    app: Application, segmentation: Segmentation, ct: Volume
) -> None:
    segment_id = ensure_segment(segmentation, LIVER)
    segmentation.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())
    with pytest.raises(InputError, match="'CT segmentation' has a non-linear transform"):
        read_mask(segmentation, segment_id, ct)


def test_surfaces_can_be_read_and_are_not_written(app: Application, segmentation: Segmentation, ct: Volume) -> None:
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(middle_of(ct))
    sphere.SetRadius(RADIUS)
    sphere.SetThetaResolution(40)
    sphere.SetPhiResolution(40)
    sphere.Update()
    segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segment_id = segmentation.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "sphere")
    mask = read_mask(segmentation, segment_id, ct)
    assert _agreement(mask, ball(ct)) > 0.93
    assert segmentation.GetSegmentation().GetSegment(segment_id).GetRepresentation("Binary labelmap") is None
    assert not is_empty(segmentation, segment_id)
    with pytest.raises(InputError, match="is stored as 'Closed surface'"):
        require_labelmaps(segmentation)


def test_voxels_are_placed_in_the_coordinates_of_the_segmentation(placed: tuple[Volume, Segmentation]) -> None:
    volume, segmentation = placed
    world = [0.0] * 3
    segmentation.TransformPointToWorld((voxels_to_node(volume, segmentation) @ (3, 4, 5, 1))[:3], world)
    expected = [0.0] * 3
    volume.TransformPointToWorld((AFFINES["oblique"] @ (3, 4, 5, 1))[:3], expected)
    assert np.allclose(world, expected)


def _world_of(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, matrix)
    return to_array(matrix)


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.sum(one & other) / (one.sum() + other.sum())


def _assert_within_one_voxel(mask: np.ndarray, volume: Volume, center: np.ndarray) -> None:
    """The surface of a ball's mask is nowhere further than a voxel's diagonal from where it should be."""
    affine = _world_of(volume) @ AFFINES["oblique"]
    distances = np.linalg.norm(np.moveaxis(np.indices(mask.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - center,
                               axis=-1)  # fmt: skip
    voxel = np.linalg.norm(affine[:3, :3] @ (1, 1, 1))
    assert distances[mask].max() < RADIUS + voxel
    assert distances[~mask].min() > RADIUS - voxel
