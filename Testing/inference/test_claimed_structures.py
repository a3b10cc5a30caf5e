"""Claims limit what is segmented by name; clicks, validation and the rough look are as without them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_processes import centre_of, coarse_phantom
from threshold_backend import ThresholdBackend

from VISTA3DCore import Click, Segmenter, Session, Volume
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import ModelError, UnknownStructureError
from VISTA3DCore.inference.automatic import localize
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.models.claims import CLAIMS_KEY, Claim, Claims, with_claims
from VISTA3DCore.models.store import ModelStore

CT = catalogue()
LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, TUMOR = 1, 3, 5, 14, 23


@pytest.fixture(scope="module")
def volume() -> Volume:
    return coarse_phantom((40, 40, 32))


@pytest.fixture(scope="module")
def segmenter(claiming_model: Path) -> Segmenter:
    return Segmenter.from_pretrained(claiming_model, device="cpu")


@pytest.fixture(scope="module")
def session(segmenter: Segmenter, volume: Volume) -> Iterator[Session]:
    with segmenter.open(volume) as opened:
        yield opened


@pytest.fixture(scope="module")
def unlimited(claiming_model: Path, volume: Volume) -> Iterator[Session]:
    loaded = Segmenter.from_pretrained(claiming_model, device="cpu", claimed_only=False)
    assert loaded.claims is None
    assert loaded.available == (LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, TUMOR)
    with loaded.open(volume) as opened:
        yield opened


def test_a_loaded_model_offers_what_its_file_claims(segmenter: Segmenter) -> None:
    assert segmenter.claims.structures[LIVER] == Claim(0.912, 24, False)
    assert segmenter.available == (LIVER, RIGHT_KIDNEY)
    assert segmenter.trained == (LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, TUMOR)


def test_a_file_without_claims_offers_everything_that_was_trained(tiny_model: Path) -> None:
    loaded = Segmenter.from_pretrained(tiny_model, device="cpu")
    assert loaded.claims is None
    assert loaded.available == loaded.trained == loaded.config.classes


def test_an_unclaimed_structure_is_refused(session: Session) -> None:
    with pytest.raises(UnknownStructureError, match=r"'spleen' \(Dice 0.41 in validation\) well enough; nearest"):
        session.segment(["liver", "spleen"])
    with pytest.raises(UnknownStructureError, match="'lesions'"):
        session.segment("lesions")


def test_groups_and_everything_take_the_claimed_ones_and_say_so(session: Session, unlimited: Session) -> None:
    with pytest.warns(UserWarning, match=r"^Left out of 'kidney': left kidney; it needs the full model\.$"):
        found = session.segment("kidney")
    assert [structure.index for structure in found.structures] == [RIGHT_KIDNEY]
    np.testing.assert_array_equal(found.labels, _part_of_all(unlimited, RIGHT_KIDNEY))
    with pytest.warns(UserWarning, match="Left out of 'everything': 115 of 117 structures"):
        found = session.segment("everything")
    assert [structure.index for structure in found.structures] == [LIVER, RIGHT_KIDNEY]


def _part_of_all(unlimited: Session, *indices: int) -> np.ndarray:
    labels = unlimited.segment(["liver", "spleen", "right kidney", "left kidney"]).labels
    return np.where(np.isin(labels, indices), labels, 0)


@pytest.mark.parametrize("restoration", ["nearest", "smooth"])
def test_what_is_not_claimed_keeps_its_voxels_and_is_left_out(
    session: Session, unlimited: Session, tiny_model: Path, volume: Volume, restoration: str
) -> None:
    """A model with claims decides between all structures that it knows, whatever is asked for and offered."""
    alone = session.segment("liver", restoration=restoration).labels
    both = session.segment(["liver", "right kidney"], restoration=restoration).labels
    assert set(np.unique(both)) <= {0, LIVER, RIGHT_KIDNEY}
    np.testing.assert_array_equal(alone, np.where(both == LIVER, both, 0))
    if restoration == "nearest":
        np.testing.assert_array_equal(both, _part_of_all(unlimited, LIVER, RIGHT_KIDNEY))
    np.testing.assert_array_equal(alone, unlimited.segment("liver", restoration=restoration).labels)
    with Segmenter.from_pretrained(tiny_model, device="cpu").open(volume) as without_claims:
        assert np.count_nonzero(alone) < np.count_nonzero(without_claims.segment("liver").labels)


@pytest.mark.parametrize("target", ["spleen", "left kidney", "kidney", "lung tumor", None])
def test_clicks_work_on_anything(session: Session, unlimited: Session, volume: Volume, target: str | None) -> None:
    clicks = [Click(centre_of(volume))]
    found, expected = session.click(target, clicks), unlimited.click(target, clicks)
    assert found.structure == expected.structure
    assert expected.changed
    np.testing.assert_array_equal(found.mask, expected.mask)


def test_help_with_clicks_works_on_anything(session: Session, unlimited: Session, volume: Volume) -> None:
    base = np.zeros(volume.shape, dtype=bool)
    base[10:20, 10:20, 10:20] = True
    assert session.suggest("spleen", [], base) == unlimited.suggest("spleen", [], base)
    np.testing.assert_array_equal(session.uncertainty("spleen", []), unlimited.uncertainty("spleen", []))


def test_damaged_claims_are_reported(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    save_checkpoint(path, *load_checkpoint(tiny_model), metadata={CLAIMS_KEY: "{}"})
    with pytest.raises(ModelError, match=r"claims are damaged; get the model's file again.*'threshold' is missing"):
        Segmenter.from_pretrained(path, device="cpu")
    with pytest.raises(ModelError, match="claims are damaged"):
        ModelStore(tmp_path / "home").import_file(path, "vista3d-ct", accept_licence=True)


def test_the_rough_look_knows_all_classes_of_the_small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Path(shutil.copy(ModelStore().resolve("mini"), tmp_path / "mini.safetensors"))
    with_claims(small, Claims(0.5, {LIVER: Claim(0.9, 20, False)}))
    monkeypatch.setattr(ModelStore, "resolve", lambda _store, _name: small)
    localize._small_backend.cache_clear()
    try:
        large = ThresholdBackend(spacing=(1.5, 1.5, 1.5))
        wanted = CT[SPLEEN], CT[LEFT_KIDNEY]
        for locator in (localize.locator_for(large, wanted), localize.painter_for(large, wanted)[0]):
            assert locator.backend.config.name == "mini"
    finally:
        localize._small_backend.cache_clear()
