"""The models on this computer, as a user meets them: licence, download, verification, deletion."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from local_hub import COMMIT, NARROW, Hub, Served, files, sha256

from VISTA3DCore.errors import Cancelled, LicenseNotAcceptedError, ModelError
from VISTA3DCore.models.checkpoints import load_checkpoint
from VISTA3DCore.models.registry import REGISTRY, RegistryEntry
from VISTA3DCore.models.sidecar import read_sidecar, sidecar_path
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

Registry = dict[str, RegistryEntry]


# Download


def test_download_from_the_hub(store: ModelStore, released: Path) -> None:
    assert store.status("narrow").state == "missing"
    path = store.download("narrow", accept_licence=True)
    assert path.read_bytes() == released.read_bytes()
    assert store.status("narrow").state == "verified"
    assert store.path("narrow") == store.resolve("narrow") == path
    config = load_checkpoint(path)[0]
    assert config == NARROW, "the released file carries no configuration; the store knows it"
    assert files(store.home) == [
        "models/.narrow.lock",
        "models/narrow/LICENSE.txt",
        "models/narrow/narrow.safetensors",
        "models/narrow/narrow.safetensors.json",
    ]


def test_download_records_hash_revision_and_accepted_licence(store: ModelStore, released: Path) -> None:
    facts = read_sidecar(store.download("narrow", accept_licence=True))
    assert (facts["revision"], facts["sha256"], facts["hash_source"]) == (COMMIT, sha256(released), "hub")
    licence = facts["licence"]
    assert licence["revision"] == COMMIT
    assert licence["text_sha256"] == hashlib.sha256(b"You may test.\n").hexdigest()
    assert licence["accepted"].startswith("20")
    assert store.provenance("narrow") == {
        "model": "narrow",
        "revision": COMMIT,
        "hash": f"sha256:{sha256(released)}",
        "licence": "Test Licence",
    }


def test_download_over_plain_https_checks_the_published_md5(store: ModelStore, released_pt: Path) -> None:
    path = store.download("zoo", accept_licence=True)
    assert path.read_bytes() == released_pt.read_bytes()
    assert path.suffix == ".pt"
    assert store.status("zoo").state == "verified"
    assert read_sidecar(path)["hash_source"] == "published"
    assert store.licence_text("zoo") == "You may evaluate.\n"
    assert load_checkpoint(path)[0] == NARROW


@pytest.mark.parametrize("name", ["narrow", "zoo"])
def test_wrong_hash_places_nothing(name: str, store: ModelStore, hub: Hub) -> None:
    hub.files["/zoo.pt"].content += b"x"
    hub.files[f"/acme/narrow/resolve/{COMMIT}/weights/model.safetensors"].sha256 = "0" * 64
    with pytest.raises(ModelError, match="damaged or not the published file"):
        store.download(name, accept_licence=True)
    assert store.status(name).state == "missing"
    assert not [file for file in files(store.home) if file.endswith((".pt", ".safetensors", ".part"))]


def test_without_a_known_hash_the_model_is_present_but_not_verified(store: ModelStore, hub: Hub) -> None:
    hub.files[f"/acme/narrow/resolve/{COMMIT}/weights/model.safetensors"].lfs = False
    path = store.download("narrow", accept_licence=True)
    assert store.status("narrow").state == "present"
    assert read_sidecar(path)["hash_source"] == "computed"


def test_licence_must_be_accepted_before_anything_is_fetched(store: ModelStore, hub: Hub) -> None:
    with pytest.raises(LicenseNotAcceptedError, match=r"Test Licence.*models licence narrow.*--accept-licence"):
        store.download("narrow")
    assert hub.log == []
    assert not store.home.exists()


def test_licence_text_is_that_of_the_pinned_revision_and_kept(
    store: ModelStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["/acme/narrow/resolve/main/LICENSE"].content = b"Everything changed.\n"
    assert store.licence_text("narrow") == "You may test.\n"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert store.licence_text("narrow") == "You may test.\n"
    assert store.status("narrow").state == "missing"


def test_a_moving_revision_is_pinned_at_the_first_contact(store: ModelStore, hub: Hub) -> None:
    """What was shown as the licence and what is downloaded belong to one commit, even if 'main' moves between."""
    store.licence_text("moving")
    for path in [path for path in hub.files if "/main/" in path]:
        hub.files[path].content = b"a later version"
    facts = read_sidecar(store.download("moving", accept_licence=True))
    assert facts["revision"] == facts["licence"]["revision"] == COMMIT
    assert load_checkpoint(store.path("moving"))[0].label_set == "vista3d-ctmr"


def test_the_model_card_counts_where_there_is_no_licence_file(store: ModelStore, hub: Hub) -> None:
    del hub.files[f"/acme/narrow/resolve/{COMMIT}/LICENSE"]
    hub.files[f"/acme/narrow/resolve/{COMMIT}/README.md"] = Served(b"license: other\n", lfs=False)
    assert store.licence_text("narrow") == "license: other\n"


def test_without_a_licence_text_nothing_is_downloaded(store: ModelStore, hub: Hub) -> None:
    del hub.files[f"/acme/narrow/resolve/{COMMIT}/LICENSE"]
    with pytest.raises(ModelError, match="license text of 'narrow' is not at its source"):
        store.download("narrow", accept_licence=True)
    assert files(store.home) == ["models/.narrow.lock"]


def test_cancelled_download_is_partial_and_goes_on(store: ModelStore, hub: Hub, released: Path) -> None:
    progress = Progress(lambda update: progress.cancel() if update.fraction > 0.3 else None)
    with pytest.raises(Cancelled):
        store.download("narrow", accept_licence=True, progress=progress)
    status = store.status("narrow")
    assert status.state == "partial"
    assert 0 < status.size < released.stat().st_size
    store.download("narrow", accept_licence=True)
    assert hub.requests("GET", "/cdn")[-1]["Range"] == f"bytes={status.size}-"
    assert store.status("narrow").state == "verified"


def test_a_model_that_is_here_is_not_downloaded_again(store: ModelStore, offline: Hub, released: Path) -> None:
    store.import_file(released, "narrow", accept_licence=True)
    assert store.download("narrow") == store.path("narrow")
    assert offline.log == []


def test_two_processes_at_once_share_one_download(store: ModelStore, hub: Hub, released: Path, tmp_path: Path) -> None:
    registry = tmp_path / "run.py"
    registry.write_text(
        "import sys; from VISTA3DCore.models.registry import RegistryEntry\n"
        "from VISTA3DCore.network.config import ModelConfig; from VISTA3DCore.models.store import ModelStore\n"
        f"config = ModelConfig.from_json({NARROW.to_json()!r})\n"
        "entry = RegistryEntry(name='narrow', title='', repo='acme/narrow', filename='weights/model.safetensors',\n"
        f"    revision={COMMIT!r}, size=1, licence='', licence_url='', label_set='vista3d-ct', config=config)\n"
        "print(ModelStore(sys.argv[1], {'narrow': entry}).download('narrow', accept_licence=True))\n"
    )
    command = [sys.executable, str(registry), str(store.home)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert printed == {str(store.path("narrow"))}
    assert store.path("narrow").read_bytes() == released.read_bytes()
    assert len(hub.requests("GET", "/cdn")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_the_folder_is_private(store: ModelStore) -> None:
    store.download("narrow", accept_licence=True)
    for folder in (store.home, store.home / "models", store.path("narrow").parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# Afterwards


def test_verify_finds_later_damage(store: ModelStore) -> None:
    path = store.download("narrow", accept_licence=True)
    assert store.verify("narrow").state == "verified"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert store.status("narrow").state == "present", "a changed file no longer counts as verified"
    with pytest.raises(ModelError, match=r"narrow\.safetensors' is damaged"):
        store.verify("narrow")


def test_verify_after_a_copy_that_changed_only_the_date(store: ModelStore) -> None:
    path = store.download("narrow", accept_licence=True)
    os.utime(path, (0, 0))
    assert store.status("narrow").state == "present"
    assert store.verify("narrow").state == "verified"
    assert store.status("narrow").state == "verified"


def test_weights_put_there_by_hand_are_found_and_checked_by_loading(
    store: ModelStore, offline: Hub, released: Path
) -> None:
    target = store.home / "models" / "narrow" / "narrow.safetensors"
    target.parent.mkdir(parents=True)
    shutil.copy(released, target)
    assert store.status("narrow").state == "present"
    assert "no hash is known" in store.verify("narrow").detail
    target.write_bytes(released.read_bytes()[:5000])
    with pytest.raises(ModelError, match="truncated or damaged"):
        store.verify("narrow")


def test_a_damaged_facts_file_is_told(store: ModelStore) -> None:
    path = store.download("narrow", accept_licence=True)
    sidecar_path(path).write_text("{")
    status = store.status("narrow")
    assert status.state == "present"
    assert "narrow.safetensors.json' cannot be read" in status.detail
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(path)


def test_delete_removes_everything(store: ModelStore) -> None:
    store.download("narrow", accept_licence=True)
    store.delete("narrow")
    assert store.status("narrow").state == "missing"
    assert files(store.home) == ["models/.narrow.lock"]
    with pytest.raises(ModelError, match="not on this computer"):
        store.delete("narrow")


def test_resolve_takes_names_and_paths(store: ModelStore, released: Path, tmp_path: Path) -> None:
    assert store.resolve(released) == released
    assert store.resolve(str(released)) == released
    for wrong, sentence in [
        ("narow", r"known models: narrow, moving, zoo\. Did you mean 'narrow'\?"),
        ("missing.safetensors", "does not exist"),
        ("some/where", "does not exist"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(ModelError, match=sentence):
            store.resolve(wrong)


def test_provenance_of_a_file_is_its_name_and_hash(store: ModelStore, released: Path) -> None:
    assert store.provenance(released) == {"model": released.name, "hash": f"sha256:{sha256(released)}"}


def test_weights_put_there_by_hand_are_compared_with_the_hub(store: ModelStore, released: Path) -> None:
    target = store.home / "models" / "narrow" / "narrow.safetensors"
    target.parent.mkdir(parents=True)
    shutil.copy(released, target)
    assert store.verify("narrow").state == "verified"


# The real registry


def test_the_registry_of_releases(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert [entry.name for entry in store.entries()] == ["vista3d-ct", "vista3d-ct-zoo", "vista3d-ctmr", "mini"]
    assert json.loads(ModelConfig.to_json(REGISTRY["vista3d-ct"].config)) == json.loads(ModelConfig().to_json())
    for entry in store.entries():
        assert entry.bundled or (entry.url or entry.repo)
        assert entry.bundled or entry.config.name == entry.name
        assert entry.licence_url.startswith("https://")
    ctmr = REGISTRY["vista3d-ctmr"].config
    assert (ctmr.window, ctmr.intensity_percentiles, ctmr.click_branch) == ((192, 192, 128), (1.0, 99.0), False)


def test_the_bundled_model_needs_no_licence_and_stays(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert "CC BY 4.0" in store.licence_text("mini")
    with pytest.raises(ModelError, match="part of VISTA3D"):
        store.delete("mini")
    if store.status("mini").state == "present":
        assert store.download("mini") == store.path("mini")
        assert load_checkpoint(store.path("mini"))[0].name == "mini"
        assert store.verify("mini").state == "present"
