"""What a user of the engine sees: opening, segmenting, asking again, regions, cancelling, mistakes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reference_chain import ct_phantom
from reference_pipeline import TINY, CountingBackend, seeded_network

from VISTA3DCore import Progress, Segmenter, Volume
from VISTA3DCore.errors import Cancelled, DeviceError, InputError, ModelError, UnknownStructureError
from VISTA3DCore.imaging.geometry import Region
from VISTA3DCore.inference.session import Session
from VISTA3DCore.models.checkpoints import save_checkpoint

CONFIG = replace(TINY, spacing=(4.0, 4.0, 4.0), name="test", classes=(1, 3, 6, 14, 26, 132))
AFFINE = np.array([[2.0, 0, 0, -80], [0, 2.0, 0, -60], [0, 0, 3.0, -90], [0, 0, 0, 1]])
SHAPE = (80, 62, 60)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume(ct_phantom(SHAPE, AFFINE), AFFINE)


@pytest.fixture(scope="module")
def network():
    return seeded_network(CONFIG)


@pytest.fixture
def segmenter(network) -> Segmenter:
    return Segmenter(CountingBackend(network, CONFIG))


@pytest.fixture
def session(segmenter, volume) -> Session:
    return segmenter.open(volume)


def passes(segmenter) -> int:
    return segmenter.backend.passes


def test_a_result_lies_on_the_input_grid_and_says_where_it_comes_from(session):
    result = session.segment(["liver", "hepatic tumor"])
    assert result.labels.shape == SHAPE
    assert result.labels.dtype == np.uint16
    np.testing.assert_array_equal(result.affine, AFFINE)
    assert [structure.name for structure in result.structures] == ["liver", "hepatic tumor"]
    assert set(np.unique(result.labels)) == {0, 1}
    assert result["hepatic tumor"].any()
    assert result.provenance["model"] == "test"
    assert result.provenance["preset"] == "bundle"
    assert result.provenance["restoration"] == "nearest"
    assert result.provenance["version"]


def test_a_further_structure_costs_no_network_pass(session, segmenter):
    session.segment("liver")
    first = passes(segmenter)
    assert first > 1
    session.segment(["spleen", "airway"])
    session.segment("everything", restoration="smooth")
    session.scores("aorta")
    assert passes(segmenter) == first


def test_asking_later_gives_the_same_as_asking_at_once(segmenter, volume):
    session = segmenter.open(volume)
    session.segment("liver")
    later = session.segment(["spleen", "aorta"])
    at_once = segmenter.open(volume).segment(["spleen", "aorta"], streaming=True)
    np.testing.assert_array_equal(later.labels, at_once.labels)


@pytest.mark.parametrize("restoration", ["nearest", "smooth"])
@pytest.mark.parametrize("preset", ["bundle", "paper"])
def test_streaming_and_retained_results_are_equal(segmenter, volume, restoration, preset):
    options = {"preset": preset, "restoration": restoration}
    streamed = segmenter.open(volume).segment(CONFIG.classes, streaming=True, **options)
    retained = segmenter.open(volume).segment(CONFIG.classes, streaming=False, **options)
    np.testing.assert_array_equal(streamed.labels, retained.labels)
    for index in (26, 132):
        np.testing.assert_array_equal(streamed.masks[index], retained.masks[index])


def test_presets_have_features_of_their_own(session, segmenter):
    session.segment("liver")
    first = passes(segmenter)
    paper = session.segment("liver", preset="paper")
    assert passes(segmenter) > 2 * first
    assert (paper["liver"] != session.segment("liver")["liver"]).any()


def test_a_session_says_whether_a_further_run_needs_the_network(session):
    assert not session.keeps_features()
    session.segment(["liver"], streaming=True)
    assert not session.keeps_features()
    session.segment(["liver"], streaming=False)
    assert session.keeps_features("bundle")
    assert not session.keeps_features("paper")
    assert not session.keeps_features("bundle", (0.0, 0.0, 0.0, 30.0, 30.0, 30.0))
    session.free_caches()
    assert not session.keeps_features()


def test_what_does_not_fit_is_streamed_and_forgotten(session, segmenter, monkeypatch):
    monkeypatch.setattr("VISTA3DCore.inference.automatic.feature_cache.RETAINED_SHARE", 0.0)
    session.segment("liver")
    first = passes(segmenter)
    session.segment("spleen")
    assert passes(segmenter) == 2 * first


def test_scores_decide_the_labels(session):
    scores, (image, affine) = session.scores("spleen"), session.model_grid
    assert scores.shape == image.shape
    assert scores.dtype == np.float32
    result = Segmenter.from_network(seeded_network(CONFIG), CONFIG).open(Volume(ct_phantom(SHAPE, AFFINE), AFFINE))
    nearest = np.rint(np.linalg.solve(affine, AFFINE @ np.array([40, 31, 30, 1.0]))[:3]).astype(int)
    assert result.segment("spleen")["spleen"][40, 31, 30] == (scores[tuple(nearest)] > 0)


def test_scores_of_a_group_are_refused(session):
    with pytest.raises(InputError, match="one structure at a time"):
        session.scores("everything")


def test_half_precision_features_are_an_option(segmenter, volume):
    exact = segmenter.open(volume).segment("everything")
    halved = segmenter.open(volume, feature_dtype="float16").segment("everything")
    assert np.mean(exact.labels == halved.labels) >= 0.999
    with pytest.raises(InputError, match="float32, float16"):
        segmenter.open(volume, feature_dtype="int8")


def test_a_region_limits_the_work_and_the_result(session, segmenter):
    region = Region((-10.0, -10.0, -30.0), (20.0, 15.0, 0.0))
    result = session.segment("liver", roi=region)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[region.voxel_box(AFFINE, SHAPE)] = True
    assert result["liver"][inside].any()
    assert not result["liver"][~inside].any()
    limited = passes(segmenter)
    session.segment("liver")
    assert limited * 2 < passes(segmenter) - limited
    np.testing.assert_array_equal(session.segment("liver", roi=(-10, -10, -30, 20, 15, 0)).labels, result.labels)


def test_a_region_as_large_as_the_volume_changes_nothing(session):
    whole = session.segment("liver")
    roi = session.segment("liver", roi=(-1000, -1000, -1000, 1000, 1000, 1000))
    np.testing.assert_array_equal(whole.labels, roi.labels)


def test_a_region_of_air_is_empty_without_asking_the_network(segmenter):
    image = np.full((60, 60, 60), -1000.0, dtype=np.float32)
    image[20:30, 20:30, 20:30] = 50
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    result = segmenter.open(Volume(image, affine)).segment(["liver", "airway"], roi=(200, 200, 200, 230, 230, 230))
    assert not result.labels.any()
    assert not result["airway"].any()
    assert passes(segmenter) == 0


def test_a_region_outside_the_volume_is_an_error(session):
    with pytest.raises(InputError, match="outside the volume"):
        session.segment("liver", roi=(900, 900, 900, 950, 950, 950))
    with pytest.raises(InputError, match="six numbers"):
        session.segment("liver", roi=(1, 2, 3))


@pytest.mark.parametrize("streaming", [True, False])
def test_cancelling_stops_within_one_window_and_leaves_the_session_usable(session, segmenter, streaming):
    def stop(update):
        if passes(segmenter) == 2:
            progress.cancel()

    progress = Progress(stop)
    with pytest.raises(Cancelled):
        session.segment("liver", progress=progress, streaming=streaming)
    assert passes(segmenter) == 2
    assert session.segment("liver")["liver"].any()


def test_cancelling_also_stops_the_restoration(session, segmenter):
    session.segment("liver")
    progress = Progress(lambda update: progress.cancel() if update.stage == "Restoring" else None)
    with pytest.raises(Cancelled):
        session.segment("spleen", progress=progress)
    assert session.segment("spleen")["spleen"].any()


def test_progress_tells_fraction_and_stage(segmenter, volume):
    updates = []
    segmenter.open(volume, updates.append).segment("liver", progress=updates.append)
    stages = [update.stage for update in updates]
    assert {"Preprocessing", "Segmenting", "Restoring"} <= set(stages)
    fractions = [update.fraction for update in updates if update.stage in ("Segmenting", "Labeling", "Restoring")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert any("windows" in update.message for update in updates)


def test_what_the_model_does_not_know_is_refused(session):
    with pytest.raises(UnknownStructureError, match="not in this model"):
        session.segment("pancreas")
    with pytest.raises(UnknownStructureError, match="livr"):
        session.segment("livr")
    with pytest.raises(InputError, match="at least one"):
        session.segment([])


@pytest.mark.parametrize(("option", "value"), [("preset", "fast"), ("restoration", "cubic")])
def test_unknown_options_name_the_known_ones(session, option, value):
    with pytest.raises(InputError, match="use one of"):
        session.segment("liver", **{option: value})


def test_a_model_from_a_file_gives_the_same_labels(network, volume, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, CONFIG, network.state_dict())
    segmenter = Segmenter.from_pretrained(path, device="cpu", runtime="torch")
    expected = Segmenter.from_network(network, CONFIG).open(volume).segment("everything")
    found = segmenter.open(volume).segment("everything")
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.provenance["hash"].startswith("sha256:")
    assert segmenter.device_reason


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ModelError):
        Segmenter.from_pretrained(tmp_path / "nothing.safetensors")


def test_a_missing_device_is_an_error(network):
    with pytest.raises(DeviceError, match="cuda:99"):
        Segmenter.from_network(network, CONFIG, "cuda:99")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_numbers_are_refused(segmenter, volume, value):
    array = volume.array.copy()
    array[3, 4, 5] = value
    with pytest.raises(InputError, match="NaN"):
        segmenter.open(Volume(array, AFFINE))


def test_normalised_images_are_refused_by_a_ct_model_only(network, volume):
    scaled = Volume((volume.array - volume.array.min()) / np.ptp(volume.array), AFFINE)
    with pytest.raises(InputError, match="Hounsfield"):
        Segmenter.from_network(network, CONFIG).open(scaled)
    percentiles = replace(CONFIG, intensity_percentiles=(1, 99))
    assert Segmenter.from_network(network, percentiles).open(scaled).segment("liver").labels.shape == SHAPE


def test_a_closed_session_says_so(session):
    with session:
        session.segment("liver")
    with pytest.raises(InputError, match="closed"):
        session.segment("liver")
