"""A computer without internet, and models that come as files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from local_hub import NARROW, Hub, files, sha256
from safetensors.torch import save_file

from VISTA3DCore.engine.model_management import details
from VISTA3DCore.errors import Cancelled, LicenseNotAcceptedError, ModelError, OfflineError
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.models.claims import Claim, Claims, read_claims, with_claims
from VISTA3DCore.models.model_folder import stamp
from VISTA3DCore.models.registry import RegistryEntry
from VISTA3DCore.models.sidecar import write_sidecar
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.progress import Progress

Registry = dict[str, RegistryEntry]


# Without internet


def test_offline_a_missing_model_says_what_to_do(store: ModelStore, offline: Hub) -> None:
    for attempt in (
        lambda: store.download("narrow", accept_licence=True),
        lambda: store.path("narrow"),
        lambda: store.licence_text("narrow"),
    ):
        with pytest.raises(OfflineError, match="vista3d models import FILE"):
            attempt()
    assert offline.log == []
    assert not store.home.exists()


def test_a_missing_model_says_both_ways_to_get_it(store: ModelStore) -> None:
    with pytest.raises(ModelError, match=r"models download narrow.*models import FILE --name narrow"):
        store.path("narrow")


def test_a_models_folder_travels_on_a_stick(
    store: ModelStore, registry: Registry, offline: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloaded on one computer, carried over, imported on another: name, hash and licence come along.

    Whose file it is shows the hub alone, as soon as it can be reached.
    """
    monkeypatch.delenv("HF_HUB_OFFLINE")
    stick = tmp_path / "stick"
    shutil.copytree(store.download("narrow", accept_licence=True).parent, stick)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(offline.log)
    other = ModelStore(tmp_path / "other", registry)
    status = other.import_file(stick / "narrow.safetensors", accept_licence=True)
    assert (status.name, status.state) == ("narrow", "present")
    assert "not compared" in status.detail
    assert other.licence_text("narrow") == "You may test.\n"
    assert other.provenance("narrow") == store.provenance("narrow")
    assert load_checkpoint(other.path("narrow"))[0] == NARROW
    assert "not compared" in other.verify("narrow").detail
    assert len(offline.log) == asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert other.verify("narrow").state == other.status("narrow").state == "verified"


@pytest.mark.parametrize("source", ["published", "hub", "computed"])
def test_what_came_with_a_file_does_not_make_it_the_publishers(
    store: ModelStore, state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A file of zeros with its own hash beside it, which is said to be the publisher's."""
    path = tmp_path / "narrow.safetensors"
    save_file({f"network.{key}": torch.zeros_like(tensor) for key, tensor in state.items()}, path)
    forged = {"name": "narrow", "sha256": sha256(path), "hash_source": source, "size": path.stat().st_size}
    write_sidecar(path, {**forged, "checked": stamp(path)})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status = store.import_file(path, accept_licence=True)
    assert status.state == store.status("narrow").state == store.verify("narrow").state == "present"
    assert "not compared" in status.detail
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ModelError, match="not the published file"):
        store.verify("narrow")
    assert store.status("narrow").state == "present"


def test_the_hubs_hash_is_kept_from_an_earlier_contact(
    store: ModelStore, released: Path, state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the licence reaches the hub; a file that comes on a stick later is compared with what it reported."""
    store.licence_text("narrow")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    zeros = tmp_path / "zeros.safetensors"
    save_file({f"network.{key}": torch.zeros_like(tensor) for key, tensor in state.items()}, zeros)
    with pytest.raises(ModelError, match="not the published file"):
        store.import_file(zeros, "narrow", accept_licence=True)
    assert store.status("narrow").state == "missing"
    assert store.import_file(released, "narrow", accept_licence=True).state == "verified"


def test_a_file_of_another_size_is_not_the_released_model(
    store: ModelStore, registry: Registry, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Zeros that share one number in the file have the shapes of the weights, and next to no size."""
    path = tmp_path / "zeros.pt"
    torch.save({key: torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape) for key, tensor in state.items()}, path)
    large = replace(registry["narrow"], size=871_900_000)
    with pytest.raises(ModelError, match=r"0\.\d MB, but the released model 'narrow' has about 871\.9 MB"):
        ModelStore(store.home, {"narrow": large}).import_file(path, "narrow", accept_licence=True)
    assert not store.home.exists()


@pytest.mark.parametrize("facts", [{"name": 5}, {"revision": 5}, {"revision": ["a"]}, {"sha256": {}}])
def test_facts_of_another_kind_do_not_count(
    store: ModelStore, released: Path, tmp_path: Path, facts: dict[str, object]
) -> None:
    path = Path(shutil.copy(released, tmp_path / "narrow.safetensors"))
    write_sidecar(path, {"name": "narrow", **facts})
    status = store.import_file(path, None if "name" not in facts else "narrow", accept_licence=True)
    assert status.state == "present"
    assert set(map(type, store.provenance("narrow").values())) == {str}


def test_damage_on_the_stick_is_found(store: ModelStore, registry: Registry, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    shutil.copytree(store.download("narrow", accept_licence=True).parent, stick)
    weights = stick / "narrow.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    other = ModelStore(tmp_path / "other", registry)
    with pytest.raises(ModelError, match="damaged"):
        other.import_file(weights, accept_licence=True)
    assert other.status("narrow").state == "missing"
    assert files(other.home) == ["models/.narrow.lock"]


def test_import_needs_the_licence_and_a_name(store: ModelStore, released: Path) -> None:
    with pytest.raises(LicenseNotAcceptedError, match="--accept-licence"):
        store.import_file(released, "narrow")
    with pytest.raises(ModelError, match=r"does not say which; name it with --name \(one of narrow, moving, zoo\)"):
        store.import_file(released, accept_licence=True)
    assert not store.home.exists()
    status = store.import_file(released, "narrow", accept_licence=True)
    assert (status.state, status.size) == ("present", released.stat().st_size)


def test_an_imported_model_keeps_its_claims(store: ModelStore, released: Path, tmp_path: Path) -> None:
    claims = Claims(0.5, {1: Claim(0.9, 24, False), 3: Claim(0.3, 24, True)})
    path = Path(shutil.copy(released, tmp_path / "renamed.safetensors"))
    with_claims(path, claims)
    status = store.import_file(path, "narrow", accept_licence=True)
    assert read_claims(status.path) == claims
    assert details(store, "narrow").claimed == 1
    store.import_file(released, "narrow", accept_licence=True)
    assert details(store, "narrow").claimed is None


def test_import_recognises_a_published_hash(store: ModelStore, released_pt: Path) -> None:
    status = store.import_file(released_pt, accept_licence=True)
    assert (status.name, status.state) == ("zoo", "verified")
    assert "published" in status.detail


def test_import_of_another_file_under_a_published_name_is_refused(
    store: ModelStore, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.save({key: tensor + 1 for key, tensor in state.items()}, path)
    with pytest.raises(ModelError, match="its MD5 is"):
        store.import_file(path, "zoo", accept_licence=True)
    assert store.status("zoo").state == "missing"


def test_import_replaces_an_earlier_file_of_another_format(
    store: ModelStore, released: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    store.import_file(released, "narrow", accept_licence=True)
    torch.save(state, tmp_path / "again.pth")
    status = store.import_file(tmp_path / "again.pth", "narrow", accept_licence=True)
    assert status.path is not None
    assert files(status.path.parent) == ["narrow.pth", "narrow.pth.json"]


def test_import_refuses_what_does_not_load(store: ModelStore, tmp_path: Path) -> None:
    page = tmp_path / "model.safetensors"
    page.write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(ModelError, match="web page"):
        store.import_file(page, "narrow", accept_licence=True)
    with pytest.raises(ModelError, match="does not exist"):
        store.import_file(tmp_path / "nothing.pt", "narrow", accept_licence=True)
    assert not store.home.exists()


def test_import_refuses_another_network(store: ModelStore, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, replace(NARROW, spacing=(3.0, 3.0, 3.0)), state)
    with pytest.raises(ModelError, match=r"not the model 'narrow': spacing \(3.0, 3.0, 3.0\) instead of"):
        store.import_file(path, "narrow", accept_licence=True)
    ours = ModelStore(tmp_path / "home")
    save_file(state, path)
    with pytest.raises(ModelError, match="not the model 'vista3d-ct': width 8 instead of 48"):
        ours.import_file(path, "vista3d-ct", accept_licence=True)


def test_own_and_bundled_models_are_not_imported(
    store: ModelStore, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, replace(NARROW, name="my-finetune"), state)
    with pytest.raises(ModelError, match="'my-finetune', which need not be imported: use it by its path"):
        store.import_file(path, accept_licence=True)
    with pytest.raises(ModelError, match="part of VISTA3D"):
        ModelStore(tmp_path / "home").import_file(path, "mini", accept_licence=True)


def test_cancelled_import_leaves_nothing(store: ModelStore, released: Path) -> None:
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        store.import_file(released, "narrow", accept_licence=True, progress=progress)
    assert files(store.home) == ["models/.narrow.lock"]
