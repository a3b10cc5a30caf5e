"""Everything that a session answers comes out of the engine process as in-process, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_processes import arrays_of, centre_of

from VISTA3DCore.engine.blocking_client import BlockingClient, RemoteSession
from VISTA3DCore.engine.protocol import UnknownSessionError
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.errors import Cancelled, InputError, ModelError, UnknownStructureError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import Region
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.inference.session import Session
from VISTA3DCore.progress import Progress

ORGANS = ["liver", "spleen", "stomach", "aorta"]


def assert_same(found: Segmentation, expected: Segmentation) -> None:
    assert found.labels.dtype == expected.labels.dtype
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.masks.keys() == expected.masks.keys()
    for index, mask in expected.masks.items():
        assert found.masks[index].dtype == bool
        np.testing.assert_array_equal(found.masks[index], mask)
    assert found.structures == expected.structures
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.provenance == expected.provenance


def assert_same_click(found, expected) -> None:
    assert (found.box, found.touched, found.encoded) == (expected.box, expected.touched, expected.encoded)
    assert (found.structure, found.shape) == (expected.structure, expected.shape)
    np.testing.assert_array_equal(found.patch, expected.patch)
    np.testing.assert_array_equal(found.mask, expected.mask)


class TestOnARealCt:
    """The small model on a part of a real CT that two of its windows cover."""

    @pytest.fixture(scope="class")
    def ct(self, ct_data: Path) -> Volume:
        whole = Volume.read(ct_data / "ts_example_ct" / "ct.nii.gz")
        start = np.array([28, 20, 0])
        affine = whole.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ start
        return Volume(whole.array[28:92, 20:84, :], affine, whole.name)

    @pytest.fixture(scope="class")
    def local(self, ct: Volume) -> Iterator[Session]:
        with Segmenter.from_pretrained("mini").open(ct) as session:
            yield session

    @pytest.fixture(scope="class")
    def remote(self, engine: BlockingClient, ct: Volume) -> Iterator[RemoteSession]:
        with engine.open(ct, "mini") as session:
            yield session

    @pytest.fixture(scope="class")
    def liver(self, local: Session) -> np.ndarray:
        return local.segment("liver")["liver"]

    @pytest.fixture(scope="class")
    def clicks(self, liver: np.ndarray, ct: Volume) -> list[Click]:
        """One click in the middle of the liver, one where it is not."""
        places = np.argwhere(liver)
        inside = places[np.argmin(np.linalg.norm(places - places.mean(axis=0), axis=1))]
        beside = np.argwhere(~liver)[-1] // [2, 2, 1]
        return [Click(tuple(ct.affine[:3] @ [*place, 1.0]), place is inside) for place in (inside, beside)]

    def test_the_liver_is_there(self, liver):
        assert liver.sum() > 1000

    def test_segments(self, local, remote):
        assert_same(remote.segment(ORGANS), local.segment(ORGANS))

    def test_segments_smoothly_in_a_region(self, local, remote, ct):
        corners = (
            ct.affine[:3, :3] @ [20, 20, 20] + ct.affine[:3, 3],
            ct.affine[:3, :3] @ [50, 50, 60] + ct.affine[:3, 3],
        )
        region = Region(tuple(np.min(corners, axis=0)), tuple(np.max(corners, axis=0)))
        options = {"restoration": "smooth", "roi": region, "streaming": True}
        assert_same(remote.segment("liver", **options), local.segment("liver", **options))

    @pytest.mark.filterwarnings("ignore::VISTA3DCore.errors.SlowerWarning")
    def test_options_that_save_work(self, local, remote):
        options = {"body_crop": True, "localize": True, "streaming": True}
        assert_same(remote.segment("liver", **options), local.segment("liver", **options))

    def test_reports_progress(self, remote):
        updates = []
        remote.segment("liver", preset="paper", progress=updates.append)
        assert [one.fraction for one in updates] == sorted(one.fraction for one in updates)
        assert {"Segmenting"} < {one.stage for one in updates} | {"Restoring"}
        assert any("windows" in one.message for one in updates)

    def test_clicks(self, local, remote, clicks):
        assert_same_click(remote.click("liver", clicks[:1]), local.click("liver", clicks[:1]))
        assert_same_click(remote.click("liver", clicks[:1]), local.click("liver", clicks[:1]))

    @pytest.mark.parametrize("target", ["liver", "kidney", None, 1])
    def test_clicks_on_a_base(self, local, remote, clicks, liver, target):
        base = np.roll(liver, 5, axis=0)
        options = {"settled": 1, "policy": "centred"} if target is None else {}
        expected = local.click(target, clicks, base, **options)
        found = remote.click(target, clicks, base, **options)
        assert_same_click(found, expected)
        np.testing.assert_array_equal(base, np.roll(liver, 5, axis=0))

    def test_warms(self, local, remote, ct):
        place = tuple(ct.affine[:3] @ [5, 5, 5, 1.0])
        assert remote.warm(place) == local.warm(place)
        assert remote.warm(place) == local.warm(place) == 0

    def test_knows_what_is_hit(self, local, remote, clicks):
        assert remote.hit("kidney", clicks[0].position) == local.hit("kidney", clicks[0].position)

    def test_suggests(self, local, remote, clicks, liver):
        base = np.roll(liver, 5, axis=0)
        expected = local.suggest("liver", clicks, base, 3)
        assert expected
        assert remote.suggest("liver", clicks, base, 3) == expected
        assert remote.suggest("liver", (), base) == local.suggest("liver", (), base)

    def test_tells_its_doubts(self, local, remote, clicks):
        expected = local.uncertainty("liver", clicks)
        found = remote.uncertainty("liver", clicks)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)

    def test_stops_when_asked_to_and_goes_on_as_before(self, engine, ct, local):
        progress = Progress(lambda update: progress.cancel() if update.stage == "Segmenting" else None)
        with engine.open(ct, "mini") as session:
            with pytest.raises(Cancelled):
                session.segment("spleen", progress=progress)
            assert_same(session.segment("spleen"), local.segment("spleen"))

    def test_leaves_no_file(self, engine, remote, clicks):
        remote.click("liver", clicks)
        assert [name for name in arrays_of(engine.shared.path) if "result" in name] == []


class TestWithOverlaps:
    """The tiny model has a structure that gets a mask of its own."""

    @pytest.fixture(scope="class")
    def local(self, phantom: Volume, tiny_model: Path) -> Session:
        return Segmenter.from_pretrained(tiny_model).open(phantom)

    @pytest.fixture(scope="class")
    def remote(self, engine: BlockingClient, phantom: Volume, tiny_model: Path) -> RemoteSession:
        return engine.open(phantom, str(tiny_model))

    def test_segments(self, local, remote):
        expected = local.segment("everything")
        assert_same(remote.segment("everything"), expected)
        overlapping = local.segment([1, "lung tumor"])
        assert list(overlapping.masks) == [23]
        assert_same(remote.segment([1, "lung tumor"]), overlapping)

    @pytest.mark.parametrize("cleanup", [True, False, None])
    def test_segments_without_specks(self, local, remote, cleanup):
        expected = local.segment("everything", cleanup=cleanup)
        assert expected.provenance["cleanup"] == ("share 0.02, minimum 0.1 ml" if cleanup else "no")
        assert_same(remote.segment("everything", cleanup=cleanup), expected)

    @pytest.mark.parametrize("target", ["liver", "lung tumor", None])
    @pytest.mark.parametrize("positive", [True, False])
    def test_clicks_that_change_something(self, local, remote, phantom, target, positive):
        base = np.zeros(phantom.shape, bool, "F")
        base[10:30, 8:30, 6:24] = True
        clicks = [Click(centre_of(phantom), positive)]
        expected = local.click(target, clicks, base)
        assert expected.changed or positive
        assert_same_click(remote.click(target, clicks, base), expected)
        if positive:
            expected = local.click(target, clicks)
            assert expected.changed
            assert_same_click(remote.click(target, clicks), expected)

    @pytest.mark.parametrize(
        ("error", "call"),
        [
            (UnknownStructureError, lambda session: session.segment("livre")),
            (UnknownStructureError, lambda session: session.segment(999)),
            (InputError, lambda session: session.segment("liver", preset="fast")),
            (InputError, lambda session: session.segment("liver", roi=(0, 0, 0, 1, 1, -1))),
            (InputError, lambda session: session.segment("liver", roi=(9e3, 9e3, 9e3, 1e4, 1e4, 1e4))),
            (InputError, lambda session: session.click("liver", [])),
            (InputError, lambda session: session.click("liver", [Click((9e9, 0, 0))])),
            (InputError, lambda session: session.click("liver", [Click((9, 9, 9))], np.zeros((2, 2, 2), bool))),
            (InputError, lambda session: session.click("liver", [Click((9, 9, 9))], policy="best")),
            (InputError, lambda session: session.suggest("liver", [])),
        ],
    )
    def test_errors_are_the_same_sentences(self, local, remote, error, call):
        with pytest.raises(error) as expected:
            call(local)
        with pytest.raises(error) as found:
            call(remote)
        assert type(found.value) is type(expected.value)
        assert str(found.value) == str(expected.value)
        assert found.value.exit_code == expected.value.exit_code

    def test_a_closed_session_is_closed(self, engine, phantom, tiny_model):
        session = engine.open(phantom, str(tiny_model))
        session.close()
        session.close()
        with pytest.raises(InputError, match="The session is closed; open the volume again"):
            session.segment("liver")


def test_claims_are_reported_and_limit_what_is_segmented(engine, phantom, claiming_model):
    local = Segmenter.from_pretrained(claiming_model)
    loaded = engine.load(str(claiming_model))
    assert (loaded.available, loaded.trained) == (local.available, local.trained) == ((1, 5), (1, 3, 5, 14, 23))
    assert loaded.claims.threshold == local.claims.threshold
    assert {int(index): vars(claim) for index, claim in loaded.claims.structures.items()} == {
        index: vars(claim) for index, claim in local.claims.structures.items()
    }
    with engine.open(phantom, str(claiming_model)) as remote, local.open(phantom) as session:
        with pytest.raises(UnknownStructureError) as expected:
            session.segment("spleen")
        with pytest.raises(UnknownStructureError) as found:
            remote.segment("spleen")
        assert str(found.value) == str(expected.value)
        for opened in (session, remote):
            with pytest.warns(UserWarning, match="Left out of 'kidney': left kidney; it needs the full model"):
                assert [structure.name for structure in opened.segment("kidney").structures] == ["right kidney"]
        clicks = [Click(centre_of(phantom))]
        assert_same_click(remote.click("spleen", clicks), session.click("spleen", clicks))


def test_a_model_without_claims_offers_what_it_was_trained_for(engine, tiny_model):
    loaded = engine.load(str(tiny_model))
    assert (loaded.claims, loaded.available) == (None, loaded.trained)


def test_warnings_and_errors_of_opening(engine, phantom, tiny_model):
    flat = Volume(phantom.array.clip(-150, None), phantom.affine, "flat")
    with pytest.warns(UserWarning, match="lowest value is -150"):
        engine.open(flat, str(tiny_model)).close()
    local = Segmenter.from_pretrained(tiny_model)
    normalised = Volume(np.linspace(0, 1, 27).reshape(3, 3, 3), np.eye(4), "x")
    with pytest.raises(InputError) as expected:
        local.open(normalised)
    with pytest.raises(InputError) as found:
        engine.open(normalised, str(tiny_model))
    assert str(found.value) == str(expected.value)
    with pytest.raises(ModelError, match="There is no model or file 'vista4d'"):
        engine.open(phantom, "vista4d")
    with pytest.raises(ModelError, match="vista3d-ct' is not on this computer"):
        engine.load("vista3d-ct")


def test_what_the_engine_says_of_itself(engine, tiny_model, phantom):
    import VISTA3DCore

    info = engine.info
    assert (info.protocol_version, info.engine_version) == (1, VISTA3DCore.__version__)
    assert info.device == str(Segmenter.from_pretrained(tiny_model).device)
    assert info.memory.total > info.memory.available > 0
    models = {one.name: one for one in info.models}
    assert models["mini"].bundled
    assert models["mini"].installed
    assert not models["vista3d-ct"].installed
    assert "NVIDIA" in models["vista3d-ct"].licence
    with engine.open(phantom, str(tiny_model)):
        status = engine.call("status")
        assert (status.queue, status.busy) == (0, None)
        assert len(status.sessions) >= 1


def test_volumes_of_any_type_and_order(engine, phantom, tiny_model):
    """Slicer's arrays are transposed views, files hold floats or big-endian numbers."""
    clicks = [Click(centre_of(phantom))]
    expected = Segmenter.from_pretrained(tiny_model).open(phantom).uncertainty("liver", clicks)
    arrays = {
        "transposed": np.asfortranarray(phantom.array),
        "strided": np.repeat(phantom.array, 2, axis=1)[:, ::2],
        "float64": phantom.array.astype(np.float64),
        "big-endian": phantom.array.astype(">i2"),
    }
    for name, array in arrays.items():
        with engine.open(Volume(array, phantom.affine), str(tiny_model)) as session:
            np.testing.assert_array_equal(session.uncertainty("liver", clicks), expected, err_msg=name)


def test_an_unknown_session_is_an_error_of_its_own(engine):
    from VISTA3DCore.engine.protocol import CloseParams

    with pytest.raises(UnknownSessionError, match="The volume is not open in the engine; open it again"):
        engine.call("close", CloseParams("s1"))


def test_two_clients_have_an_engine_each(engine, phantom, tiny_model):
    clicks = [Click(centre_of(phantom))]
    with BlockingClient(ChildProcess()) as other:
        assert other.info.pid != engine.info.pid
        assert other.shared.path != engine.shared.path
        sessions = [client.open(phantom, str(tiny_model)) for client in (engine, other)]
        results = [session.click("lung tumor", clicks) for session in sessions]
        np.testing.assert_array_equal(results[0].mask, results[1].mask)
        sessions[1].close()
        sessions[0].click("liver", clicks)
        sessions[0].close()
    assert not other.shared.path.exists()
