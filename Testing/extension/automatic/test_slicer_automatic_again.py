"""A second run: into another patient's segmentation, in a region, over corrections, and undone."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from automatic_cases import LIVER, SPLEEN, TUMOR, Running
from logic_helpers import SHAPE, add_volume

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.logic.regions import volume_box
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, read_clicks, store_clicks
from VISTA3DSegmentLib.mrml.labelmaps import oriented_image
from VISTA3DSegmentLib.mrml.segments import read_mask, voxels_to_node

pytestmark = pytest.mark.slow

CORNER = (slice(1, 4), slice(1, 4), slice(1, 4))


def paint(running: Running, node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> None:
    """Add a corner of the volume to a segment, with Slicer's own function."""
    image = oriented_image(np.ones((3, 3, 3), bool), voxels_to_node(running.volume, node), (1, 1, 1))
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetBinaryLabelmapToSegment(image, node, segment_id, logic.MODE_MERGE_MAX, image.GetExtent())


# Another patient


def test_another_patients_segmentation_is_refused_and_both_are_named(tiny: Running) -> None:
    segmentation, ids, _notes = tiny.segment()
    before = read_mask(segmentation, ids[0], tiny.volume)
    other = add_volume(tiny.scene, name="patient2")
    slicer.util.arrayFromVolume(other)[:] = slicer.util.arrayFromVolume(other)[:, :, ::-1].copy()
    request = tiny.request(volume=other, segmentation=segmentation)
    tiny.heard.events.clear()
    tiny.run.start(request)
    sentence = tiny.heard.sentence("failed")
    assert sentence == request.problem() == request.mismatch()
    assert "'CT segmentation'" in sentence
    assert "'patient2'" in sentence
    assert not tiny.run.running
    assert np.array_equal(read_mask(segmentation, ids[0], tiny.volume), before)


def test_another_patients_segmentation_is_written_when_that_is_accepted(tiny: Running) -> None:
    segmentation, ids, _notes = tiny.segment()
    other = add_volume(tiny.scene, name="patient2")
    slicer.util.arrayFromVolume(other)[:] = slicer.util.arrayFromVolume(other)[:, :, ::-1].copy()
    written, new_ids, _notes = tiny.segment(volume=other, segmentation=segmentation, mismatch_accepted=True)
    assert (written, new_ids) == (segmentation, ids)


# Regions


def test_a_region_leaves_the_rest_of_the_segment(tiny: Running) -> None:
    segmentation, (segment_id,), _notes = tiny.segment(structures=(14,))
    whole, box = read_mask(segmentation, segment_id, tiny.volume), volume_box(tiny.volume)
    again, (same,), _notes = tiny.segment(
        structures=(14,), segmentation=segmentation, region=(*box[:5], (box[2] + box[5]) / 2)
    )
    mask, half = read_mask(segmentation, segment_id, tiny.volume), SHAPE[2] // 2
    assert (again, same) == (segmentation, segment_id)
    assert np.array_equal(mask[:, :, half + 1 :], whole[:, :, half + 1 :])
    assert whole[:, :, half + 1 :].any()


# Corrections


def test_scripts_keep_corrections_unless_they_say_otherwise(tiny: Running) -> None:
    segmentation, (liver, spleen), _notes = tiny.segment()
    assert tiny.request(segmentation=segmentation).corrected(catalogue("vista3d-ct")) == []
    store_clicks(segmentation, spleen, ClickList((StoredClick((1.0, 2.0, 3.0)),), SPLEEN))
    paint(tiny, segmentation, liver)
    corrected, clicks = read_mask(segmentation, liver, tiny.volume), read_clicks(segmentation, spleen)
    assert corrected[CORNER].all()
    names = [one.name for one in tiny.request(segmentation=segmentation).corrected(catalogue("vista3d-ct"))]
    assert names == ["liver", "spleen"]
    _node, ids, notes = tiny.segment(segmentation=segmentation, structures=(LIVER, SPLEEN, 5))
    assert ids[:2] == [liver, spleen]
    assert np.array_equal(read_mask(segmentation, liver, tiny.volume), corrected)
    assert read_clicks(segmentation, spleen) == clicks
    assert len(ids) == 3
    assert "Kept because you corrected them: Liver, Spleen." in notes
    tiny.segment(segmentation=segmentation, keep_corrected=False)
    assert not read_mask(segmentation, liver, tiny.volume)[CORNER].all()
    assert not read_clicks(segmentation, spleen)


def test_what_is_corrected_in_mid_run_is_kept(tiny: Running) -> None:
    segmentation, (liver, _spleen), _notes = tiny.segment()
    tiny.heard.events.clear()
    tiny.start(segmentation=segmentation, preset="paper")
    tiny.wait_for_work()
    paint(tiny, segmentation, liver)
    corrected = read_mask(segmentation, liver, tiny.volume)
    tiny.finish()
    assert np.array_equal(read_mask(segmentation, liver, tiny.volume), corrected)


# Undo


def test_a_run_into_a_new_segmentation_is_undone(tiny: Running) -> None:
    assert not tiny.run.last_run.can_be_undone
    segmentation, _ids, _notes = tiny.segment()
    assert tiny.run.last_run.segmentation is segmentation
    tiny.run.last_run.undo()
    assert tiny.segmentations == 0
    assert tiny.segment()


def test_a_run_over_others_is_undone_and_a_cancelled_one_changes_nothing(tiny: Running) -> None:
    segmentation, (liver, spleen), _notes = tiny.segment()
    paint(tiny, segmentation, liver)
    before = [read_mask(segmentation, one, tiny.volume) for one in (liver, spleen)]
    _node, ids, _notes = tiny.segment(
        segmentation=segmentation, structures=(LIVER, 5, TUMOR), keep_corrected=False, preset="paper"
    )
    assert len(ids) == 3
    tiny.start(segmentation=segmentation)
    tiny.run.cancel()
    tiny.run.last_run.undo()
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == [liver, spleen]
    after = [read_mask(segmentation, one, tiny.volume) for one in (liver, spleen)]
    assert np.array_equal(after, before)
    assert not tiny.run.last_run.can_be_undone
    assert tiny.run.last_run.changed_since() == []


def test_the_next_run_and_the_end_of_the_scene_let_go_of_it(tiny: Running) -> None:
    segmentation, _ids, _notes = tiny.segment()
    other, _ids, _notes = tiny.segment()
    assert tiny.run.last_run.segmentation is other
    tiny.scene.RemoveNode(segmentation)
    assert tiny.run.last_run.can_be_undone
    tiny.scene.Clear(False)
    assert not tiny.run.last_run.can_be_undone
