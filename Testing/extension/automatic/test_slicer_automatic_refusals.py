"""What cannot be segmented or stored is told in one sentence, and changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from automatic_cases import Running
from engine_helpers import running_engine
from logic_helpers import (
    add_volume,
    assert_sentence,
)

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume

pytestmark = pytest.mark.slow

FRAIL_ENGINE = Path(__file__).resolve().parents[2] / "engine" / "frail_engine.py"


def test_what_is_missing_is_told_before_anything_starts(tiny: Running) -> None:
    for changes in ({"volume": None}, {"structures": ()}, {"model": ""}):
        tiny.heard.events.clear()
        tiny.start(**changes)
        assert_sentence(tiny.request(**changes).problem())
        assert tiny.heard.sentence("failed") == tiny.request(**changes).problem()
        assert len(tiny.heard.events) == 1
    assert tiny.request().problem() is None


def test_a_region_beside_the_volume_is_told(tiny: Running) -> None:
    tiny.start(region=(5000, 5000, 5000, 5010, 5010, 5010))
    assert tiny.heard.sentence("failed") == "The region lies outside the volume; move it."


def test_a_model_that_is_not_here_says_how_to_get_it(tiny: Running) -> None:
    tiny.start(model="vista3d-ct")
    tiny.finish()
    sentence = tiny.heard.sentence("failed")
    assert sentence.startswith("The model 'VISTA3D for CT (NV-Segment-CT)' is not on this computer")
    assert "Setup" in sentence


def test_a_structure_that_the_model_does_not_know_is_told(tiny: Running) -> None:
    tiny.start(structures=("pancreas",))
    tiny.finish()
    assert "pancreas" in tiny.heard.sentence("failed")
    assert tiny.segmentations == 0


def test_an_image_that_is_no_ct_is_told(tiny: Running) -> None:
    slicer.util.arrayFromVolume(tiny.volume)[:] = np.abs(slicer.util.arrayFromVolume(tiny.volume)) % 256
    slicer.util.arrayFromVolumeModified(tiny.volume)
    tiny.start()
    tiny.finish()
    assert "not a CT" in tiny.heard.sentence("failed")


@pytest.mark.parametrize("shape", [(40, 40, 1), (0, 0, 0)])
def test_a_flat_or_empty_volume_is_told(tiny: Running, shape: tuple[int, int, int]) -> None:
    empty = not all(shape)
    node = tiny.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "flat")
    if not empty:
        node = add_volume(tiny.scene, Volume(np.zeros(shape, dtype=np.int16), np.eye(4)))
    tiny.start(volume=node)
    tiny.heard.sentence("failed")


def test_a_volume_with_several_components_is_told(tiny: Running) -> None:
    node = tiny.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "color")
    image = vtk.vtkImageData()
    image.SetDimensions(10, 10, 10)
    image.AllocateScalars(vtk.VTK_SHORT, 3)
    node.SetAndObserveImageData(image)
    tiny.start(volume=node)
    tiny.heard.sentence("failed")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_is_full_for_the_result_is_told(tiny_model: Path) -> None:
    with running_engine(command=[sys.executable, str(FRAIL_ENGINE), "disk", "50000"]) as frail:
        running = Running(frail, None, str(tiny_model))
        running.start()
        running.finish()
        assert "cannot be written" in running.heard.sentence("failed")
        assert running.segmentations == 0
        assert [name for name in frail.files() if name.startswith("result")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_is_full_for_the_volume_is_told(tiny: Running) -> None:
    import resource

    files, before = tiny.under_test.files(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        tiny.start()
        tiny.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written" in tiny.heard.sentence("failed")
    assert tiny.under_test.files() == files
    assert tiny.segment()


def test_a_second_run_waits_for_the_first(tiny: Running) -> None:
    tiny.start()
    with pytest.raises(InputError, match="cancel it first"):
        tiny.start()
    tiny.finish()
    assert len(tiny.heard.all("finished")) == 1
