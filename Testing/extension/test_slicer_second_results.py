"""A second result in the same segmentation: a region changes only itself, and corrections are known and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mrml_scene import SHAPE, Application, affine_of, ball, middle_of, places_in_world, rotation
from result_cases import AORTA, LIVER, SPLEEN, TUMOR, VESSEL, Segmentation, Volume, label_array, paint

from VISTA3DCore.imaging.geometry import Region
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, read_clicks, store_clicks
from VISTA3DSegmentLib.mrml.corrections import corrected_segments
from VISTA3DSegmentLib.mrml.fingerprints import Fingerprint, label_fingerprints
from VISTA3DSegmentLib.mrml.layers import drained
from VISTA3DSegmentLib.mrml.results import write_in_steps, write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation, ensure_segment, read_mask
from VISTA3DSegmentLib.mrml.volumes import ijk_to_world, volume_shape

STRUCTURES = [LIVER, SPLEEN, AORTA]


@pytest.fixture
def segmentation(app: Application, ct: Volume) -> Segmentation:
    return create_segmentation(app.scene, ct)


def region_around(volume: Volume, low: tuple[float, ...], high: tuple[float, ...]) -> Region:
    """Return a region given by shares of the box around a volume, and at most that."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume_shape(volume)) - 1)
    places = corners @ ijk_to_world(volume)[:3, :3].T + ijk_to_world(volume)[:3, 3]
    start, size = places.min(axis=0), np.ptp(places, axis=0)
    return Region(tuple(start + size * low), tuple(start + size * high))


def inside_of(region: Region, volume: Volume) -> np.ndarray:
    """Return the voxels that a region touches, bool [i, j, k]: not the corners of the box that the engine takes."""
    shape, affine = volume_shape(volume), ijk_to_world(volume)
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    half = np.abs(affine[:3, :3]).sum(axis=1) / 2
    return np.all((places >= region.minimum - half) & (places <= region.maximum + half), axis=-1) & _box(region, volume)


def _box(region: Region, volume: Volume) -> np.ndarray:
    """Return the voxels that the engine segments for a region, bool [i, j, k]."""
    box = np.zeros(volume_shape(volume), dtype=bool)
    box[region.voxel_box(ijk_to_world(volume), box.shape)] = True
    return box


def cut(labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return labels as the engine gives them for a region."""
    return np.asfortranarray(np.where(inside, labels, 0).astype(labels.dtype))


# Regions


def test_a_region_replaces_only_itself_in_every_orientation(app: Application, any_ct: Volume) -> None:
    node, region = create_segmentation(app.scene, any_ct), region_around(any_ct, (0, 0.2, 0.1), (0.5, 1, 0.7))
    old, new, inside = ball(any_ct), ball(any_ct, middle_of(any_ct) - 6, 10), inside_of(region, any_ct)
    (liver,) = write_result(node, any_ct, label_array({LIVER: old}), {}, [LIVER], {"model": "first"})
    result = cut(label_array({LIVER: new}), _box(region, any_ct))
    assert write_result(node, any_ct, result, {}, [LIVER], {"model": "second"}, region=region) == [liver]
    assert np.array_equal(read_mask(node, liver, any_ct), np.where(inside, new, old))
    assert (old & ~inside).any()


def test_a_region_on_another_lattice_keeps_what_is_outside(placed: tuple[Volume, Segmentation]) -> None:
    volume, node = placed
    region = region_around(volume, (0, 0, 0), (1, 1, 0.5))
    ensure_segment(node, SPLEEN)  # so that its geometry counts
    (liver,) = write_result(node, volume, label_array({LIVER: ball(volume)}), {}, [LIVER], {})
    before = places_in_world(node, liver)
    empty = np.zeros(volume_shape(volume), np.uint16, order="F")
    write_result(node, volume, empty, {}, [LIVER], {}, region=region)
    after = places_in_world(node, liver)
    voxel = 2 * np.linalg.norm(ijk_to_world(volume)[:3, :3] @ (1, 1, 1))
    far = before[before[:, 2] > region.maximum[2] + voxel]
    assert len(far)
    assert _rounded(far) <= _rounded(after) <= _rounded(before)
    assert (after[:, 2] > region.maximum[2]).all()


def _rounded(places: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(one) for one in places.round(3).tolist()}


def test_what_is_found_in_a_region_alone_becomes_a_segment(segmentation: Segmentation, ct: Volume) -> None:
    region = region_around(ct, (0, 0, 0), (1, 1, 0.5))
    inside = inside_of(region, ct)
    write_result(segmentation, ct, label_array({LIVER: ball(ct)}), {}, [LIVER], {})
    result = cut(label_array({SPLEEN: ball(ct)}), inside)
    ids = write_result(segmentation, ct, result, {}, [LIVER, SPLEEN], {}, region=region)
    assert np.array_equal(read_mask(segmentation, ids[0], ct), ball(ct) & ~inside)
    assert np.array_equal(read_mask(segmentation, ids[1], ct), ball(ct) & inside)
    added = segmentation.GetSegmentation().AddEmptySegment("new")
    assert not read_mask(segmentation, added, ct).any()  # no voxel is left behind under a label that comes next


def test_clicks_outside_of_a_region_stay(segmentation: Segmentation, ct: Volume) -> None:
    region = region_around(ct, (0, 0, 0), (1, 1, 0.5))
    (liver,) = write_result(segmentation, ct, label_array({LIVER: ball(ct)}), {}, [LIVER], {})
    low, high = (tuple(np.add(middle_of(ct), (0, 0, up))) for up in (-12, 12))
    clicks = tuple(StoredClick(place, positive) for place, positive in ((low, True), (high, True), (low, False)))
    store_clicks(segmentation, liver, ClickList(clicks, LIVER.index))
    empty = np.zeros(SHAPE, np.uint16, order="F")
    write_result(segmentation, ct, empty, {}, [LIVER], {}, region=region)
    assert read_clicks(segmentation, liver).clicks == clicks[1:2]
    write_result(segmentation, ct, empty, {}, [LIVER], {})
    assert not read_clicks(segmentation, liver)


def _labels(seed: int) -> np.ndarray:
    chosen = np.array([0, LIVER.index, SPLEEN.index, AORTA.index], np.uint16)
    return np.asfortranarray(chosen[np.random.default_rng(seed).integers(0, 4, (12, 10, 9))])


shares = st.tuples(*3 * [st.floats(0, 0.45)]), st.tuples(*3 * [st.floats(0.5, 1)])


@settings(max_examples=30, deadline=None)
@given(st.tuples(*3 * [st.floats(-180, 180)]), shares[0], shares[1], st.integers(0, 99), st.booleans(), st.booleans())
def test_every_voxel_is_the_new_one_inside_and_the_old_one_outside(
    turn: tuple, low: tuple, high: tuple, seed: int, apart: bool, drawn: bool
) -> None:
    """Whatever shares a labelmap with what, and whatever else is drawn over it."""
    app = Application()
    ct = app.add_volume((12, 10, 9), affine_of(rotation(*turn) @ np.diag([1.0, -1.3, 2.0]), (12, 10, 9)))
    node, region = create_segmentation(app.scene, ct), region_around(ct, low, high)
    first, second, tumor = _labels(seed), _labels(seed + 100), _labels(seed + 200) == LIVER.index
    for group in ([LIVER], [SPLEEN, AORTA]) if apart else (STRUCTURES,):
        write_result(node, ct, first, {}, group, {})
    write_result(node, ct, first * 0, {TUMOR.index: tumor}, [TUMOR], {})
    if drawn:
        write_result(node, ct, np.asfortranarray(np.full_like(first, VESSEL.index)), {}, [VESSEL], {})
    inside, grown = inside_of(region, ct), np.asfortranarray(second == SPLEEN.index)
    structures = [*STRUCTURES, TUMOR]
    masks = {TUMOR.index: np.asfortranarray(grown & _box(region, ct))}
    ids = write_result(node, ct, cut(second, _box(region, ct)), masks, structures, {}, region=region)
    for structure, segment_id in zip(STRUCTURES, ids, strict=False):
        expected = np.where(inside, second == structure.index, first == structure.index)
        assert np.array_equal(read_mask(node, segment_id, ct), expected)
    assert np.array_equal(read_mask(node, ids[3], ct), np.where(inside, grown, tumor))
    if drawn:
        assert read_mask(node, VESSEL.name.replace(" ", "_"), ct).all()


# Fingerprints


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([np.uint8, np.uint16, np.int16]), st.tuples(*3 * [st.integers(1, 9)]))
def test_all_labels_are_fingerprinted_as_each_mask_alone(seed: int, dtype: type, shape: tuple) -> None:
    random = np.random.default_rng(seed)
    labels = np.asfortranarray(random.integers(0, 4, shape).astype(dtype) * random.integers(0, 2, shape).astype(dtype))
    found = drained(label_fingerprints(labels))
    assert set(found) == set(np.unique(labels)) - {0}
    for label, fingerprint in found.items():
        mask = labels == label
        inner = tuple(slice(int(one.min()), int(one.max()) + 1) for one in np.nonzero(mask))
        assert fingerprint == Fingerprint.of(np.asfortranarray(mask[inner]))


# Corrections


@pytest.fixture
def result(app: Application, segmentation: Segmentation, ct: Volume) -> Segmentation:
    """Return a segmentation with a liver and a spleen beside each other, which share a labelmap."""
    write_result(segmentation, ct, halves(ct), {}, [LIVER, SPLEEN], {"model": "mini"})
    return segmentation


def halves(ct: Volume) -> np.ndarray:
    """Return labels of a ball, one half of which is liver."""
    upper = np.arange(SHAPE[0])[:, None, None] < SHAPE[0] // 2
    return label_array({LIVER: ball(ct) & upper, SPLEEN: ball(ct) & ~upper})


def box(*ends: tuple[int, int]) -> np.ndarray:
    """Return the mask of a box."""
    mask = np.zeros(SHAPE, dtype=bool, order="F")
    mask[tuple(slice(*one) for one in ends)] = True
    return mask


MIDDLE = ((20, 24), (18, 22), (11, 15))


def _clicked(app: Application, node: Segmentation, ct: Volume) -> set[str]:
    store_clicks(node, "liver", ClickList((StoredClick((1.0, 2.0, 3.0)),), LIVER.index))
    return {"liver"}


def _painted(app: Application, node: Segmentation, ct: Volume) -> set[str]:
    paint(app, node, ct, "liver", box((2, 4), (2, 4), (2, 4)), True)
    return {"liver"}


def _painted_over_the_neighbor(app: Application, node: Segmentation, ct: Volume) -> set[str]:
    paint(app, node, ct, "liver", box(*MIDDLE), True)
    return {"liver", "spleen"}


def _emptied(app: Application, node: Segmentation, ct: Volume) -> set[str]:
    paint(app, node, ct, "spleen", box((0, 44), (0, 40), (0, 26)), False)
    return {"spleen"}


def _nothing(app: Application, node: Segmentation, ct: Volume) -> set[str]:
    node.GetSegmentation().GetSegment("liver").SetName("Renamed")
    node.CreateClosedSurfaceRepresentation()
    return set()


def _edited_and_back(app: Application, node: Segmentation, ct: Volume) -> set[str]:
    patch = box((2, 4), (2, 4), (2, 4))
    for add in (True, False):
        paint(app, node, ct, "liver", patch, add)
    return set()


EDITS = (_clicked, _painted, _painted_over_the_neighbor, _emptied, _nothing, _edited_and_back)


@pytest.mark.parametrize("edit", EDITS, ids=[one.__name__ for one in EDITS])
def test_corrections_are_kept_and_the_rest_is_replaced(
    app: Application, result: Segmentation, ct: Volume, edit: Callable
) -> None:
    corrected = edit(app, result, ct)
    assert set(corrected_segments(result, ["liver", "spleen"])) == corrected
    before = {one: read_mask(result, one, ct) for one in ("liver", "spleen")}
    clicks = read_clicks(result, "liver")
    labels = label_array({LIVER: ball(ct, radius=4), SPLEEN: ball(ct, middle_of(ct) + 9, 4)})
    steps = write_in_steps(result, ct, labels, {}, [LIVER, SPLEEN], {"model": "again"}, keep_corrected=True)
    written = drained(steps)
    assert written.ids == ["liver", "spleen"]
    assert {one.name for one in written.kept} == corrected
    for structure in (LIVER, SPLEEN):
        kept = structure.name in corrected
        expected = before[structure.name] if kept else labels == structure.index
        assert np.array_equal(read_mask(result, structure.name, ct), expected)
    assert read_clicks(result, "liver") == clicks
    added = result.GetSegmentation().AddEmptySegment("new")
    assert not read_mask(result, added, ct).any()


def test_corrections_are_replaced_on_request(app: Application, result: Segmentation, ct: Volume) -> None:
    _clicked(app, result, ct)
    _painted(app, result, ct)
    write_result(result, ct, halves(ct), {}, [LIVER, SPLEEN], {})
    assert np.array_equal(read_mask(result, "liver", ct), halves(ct) == LIVER.index)
    assert corrected_segments(result, ["liver", "spleen"]) == []


def test_what_no_run_wrote_is_somebodys_work(app: Application, result: Segmentation, ct: Volume) -> None:
    drawn = result.GetSegmentation().AddEmptySegment("drawn", "aorta")
    assert corrected_segments(result, [drawn]) == []
    paint(app, result, ct, drawn, box((2, 4), (2, 4), (2, 4)), True)
    assert corrected_segments(result, [drawn]) == [drawn]


def test_corrections_are_known_after_saving_and_loading(
    app: Application, result: Segmentation, ct: Volume, tmp_path: Path
) -> None:
    _painted_over_the_neighbor(app, result, ct)
    write_result(result, ct, label_array({AORTA: box((30, 33), (30, 33), (3, 5))}), {}, [AORTA], {})
    write_result(result, ct, halves(ct) * 0, {TUMOR.index: ball(ct, radius=5)}, [TUMOR], {})
    loaded = Application()
    loaded.load(app.save(tmp_path))
    node = loaded.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert corrected_segments(node, node.GetSegmentation().GetSegmentIDs()) == ["liver", "spleen"]


def test_a_correction_outside_of_a_region_is_not_taken_for_a_result(
    app: Application, result: Segmentation, ct: Volume
) -> None:
    region = region_around(ct, (0, 0, 0), (1, 1, 0.5))
    _painted(app, result, ct)
    write_result(result, ct, cut(halves(ct), inside_of(region, ct)), {}, [LIVER, SPLEEN], {}, region=region)
    assert corrected_segments(result, ["liver", "spleen"]) == ["liver"]


@pytest.mark.parametrize("moment", [1, 2])
def test_corrections_between_the_steps_are_kept(
    app: Application, result: Segmentation, ct: Volume, moment: int
) -> None:
    labels = label_array({LIVER: ball(ct, radius=4), SPLEEN: ball(ct, middle_of(ct) + 9, 4)})
    steps = write_in_steps(result, ct, labels, {}, [LIVER, SPLEEN], {}, keep_corrected=True)
    for _step in range(moment):
        next(steps)
    patch = box((2, 4), (2, 4), (2, 4))
    paint(app, result, ct, "liver", patch, True)
    assert [one.name for one in drained(steps).kept] == ["liver"]
    assert read_mask(result, "liver", ct)[patch].all()
    assert np.array_equal(read_mask(result, "spleen", ct), labels == SPLEEN.index)
