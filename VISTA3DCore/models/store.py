"""The models on this computer: list, download, import, verify, delete, find.

Weights live in ``<user data folder>/models/<name>/``, private to the user, each with its licence text (``LICENSE.txt``)
and a JSON file of facts beside it (:mod:`VISTA3DCore.models.sidecar`). The folder of a model can be carried to another
computer and imported there without a network.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from VISTA3DCore.errors import ModelError, OfflineError
from VISTA3DCore.models import acquisition
from VISTA3DCore.models.claims import read_claims
from VISTA3DCore.models.digests import digest_file
from VISTA3DCore.models.downloads import is_offline, require_network
from VISTA3DCore.models.model_folder import SUFFIXES, ModelFolder, disk_errors, stamp
from VISTA3DCore.models.registry import REGISTRY, RegistryEntry
from VISTA3DCore.models.sidecar import read_sidecar, write_sidecar
from VISTA3DCore.paths import expanded, resource, user_data_dir
from VISTA3DCore.progress import Progress


@dataclass(frozen=True)
class ModelStatus:
    """What is known about one model on this computer.

    :param state: ``missing``, ``partial`` (a download to go on with), ``present``, or ``verified`` (unchanged since its
        hash was found to be the publisher's).
    :param size: bytes on this computer.
    :param detail: a few words for people.
    """

    name: str
    state: str
    size: int
    path: Path | None
    detail: str


class ModelStore:
    """The models of one folder.

    :param home: folder to keep models in; by default the user's data folder (``VISTA3D_HOME``).
    :param registry: the models that exist.
    """

    def __init__(self, home: str | Path | None = None, registry: Mapping[str, RegistryEntry] = REGISTRY) -> None:
        self.home = expanded(home) if home is not None else user_data_dir()
        self._registry = dict(registry)

    def entries(self) -> list[RegistryEntry]:
        """Return every model that can be had by name."""
        return list(self._registry.values())

    def entry(self, name: str) -> RegistryEntry:
        """Return one model.

        :raises ModelError: if there is none of that name; the message lists those that are.
        """
        if name in self._registry:
            return self._registry[name]
        close = difflib.get_close_matches(name.lower(), self._registry, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ModelError(f"There is no model or file '{name}'; known models: {', '.join(self._registry)}.{hint}")

    def status(self, name: str) -> ModelStatus:
        """Return what is here of a model; cheap: nothing is hashed."""
        folder = self._folder(name)
        path = folder.weights()
        if path is None:
            return _absent(folder)
        size = path.stat().st_size
        if folder.entry.bundled:
            return ModelStatus(name, "present", size, path, "part of VISTA3D")
        try:
            facts = read_sidecar(path)
        except ModelError as error:  # one damaged file must not hide the other models
            return ModelStatus(name, "present", size, path, str(error))
        if facts.get("checked") == stamp(path) and _is_proven(folder.entry, facts):
            return ModelStatus(name, "verified", size, path, f"SHA-256 {facts['sha256'][:12]}… as published")
        return ModelStatus(name, "present", size, path, "not compared with a published hash")

    def path(self, name: str) -> Path:
        """Return the weights of a model.

        :raises ModelError: if they are not here (:class:`OfflineError` if the network is off); says how to get them.
        """
        folder = self._folder(name)
        if (path := folder.weights()) is not None:
            return path
        if folder.entry.bundled:
            return resource(folder.entry.filename)  # raises with a sentence of its own
        facts = {"model": name}
        if is_offline():
            problem = "The model '{model}' is not on this computer and the network is switched off"
            raise OfflineError(problem, hint="bring-model", facts=facts)
        raise ModelError("The model '{model}' is not on this computer", hint="download-model", facts=facts)

    def resolve(self, name_or_path: str | Path) -> Path:
        """Return the weights that a user means: a model by name, else a file.

        :raises ModelError: if there is neither.
        """
        if str(name_or_path) in self._registry:
            return self.path(str(name_or_path))
        path = expanded(name_or_path)
        if path.is_file():
            return path
        if path.is_dir():
            raise ModelError(f"The model file '{path}' is a folder; give the file of the weights.")
        if path.suffix in SUFFIXES or path.parent != Path():
            raise ModelError(f"The model file '{path}' does not exist.")
        return self.path(str(name_or_path))

    def provenance(self, name_or_path: str | Path) -> dict[str, str]:
        """Return a model's origin (model, revision, hash, licence), to be kept with results.

        The hash is computed where none was recorded, which for large weights takes seconds.
        """
        path = self.resolve(name_or_path)
        entry, facts = self._registry.get(str(name_or_path)), read_sidecar(path)
        recorded = facts.get("sha256") if facts.get("checked") == stamp(path) else None
        known = {
            "model": facts.get("name") or (entry.name if entry else path.name),
            "revision": facts.get("revision"),
            "hash": f"sha256:{recorded or digest_file(path).sha256}",
            "licence": facts.get("licence", {}).get("title") or (entry.licence if entry else None),
        }
        return {key: value for key, value in known.items() if value}

    def licence_text(self, name: str) -> str:
        """Return the licence text of exactly the revision that is, or would be, on this computer.

        It is fetched once and kept beside the weights.

        :raises OfflineError: if it is not here and cannot be fetched.
        """
        folder = self._folder(name)
        if folder.entry.bundled:
            return f"{folder.entry.licence}: {folder.entry.licence_url}"
        if (kept := folder.licence()) is not None:
            return kept
        require_network(name)
        with folder.locked(Progress()):
            return acquisition.fetch_licence(folder)

    def download(self, name: str, accept_licence: bool = False, progress: Progress | None = None) -> Path:
        """Download a model, going on where an earlier attempt stopped, and return its weights.

        :param accept_licence: the user has read the licence (:meth:`licence_text`) and agrees.
        :raises LicenseNotAcceptedError: before anything is fetched.
        :raises OfflineError: if the source may not, or cannot, be reached, or the connection broke for good.
        :raises ModelError: if the source refuses or the hash is wrong.
        :raises OutputError: if the disk is full or not writable.
        """
        folder, progress = self._folder(name), Progress.of(progress)
        if folder.entry.bundled or folder.weights() is not None:
            return self.path(name)
        acquisition.require_acceptance(folder.entry, accept_licence)
        require_network(name)
        with folder.locked(progress):
            return folder.weights() or acquisition.download_model(folder, progress)

    def import_file(
        self,
        path: str | Path,
        name: str | None = None,
        accept_licence: bool = False,
        progress: Progress | None = None,
    ) -> ModelStatus:
        """Take weights from a file (a stick), without a network, and tell what they are.

        What stands beside the file in a model's folder of another computer finds damage, and its licence is kept; it
        does not show whose file it is: :meth:`verify` does where the hub can be reached.

        :param name: which model it is; needed only for released files that do not say so themselves.
        :raises ModelError: if the file is damaged, of another model, or its size or hash is wrong.
        :raises LicenseNotAcceptedError: if ``accept_licence`` is not given.
        :raises OutputError: if the disk is full or not writable.
        """
        from VISTA3DCore.models.checkpoints import inspect_checkpoint

        path, progress = expanded(path), Progress.of(progress)
        config, stored = inspect_checkpoint(path)
        read_claims(path)  # damaged ones are refused now, not at the first use
        brought = read_sidecar(path)
        known = config if stored else None
        told = brought.get("name")
        name = (
            name
            or (told if isinstance(told, str) else "")
            or acquisition.identified(path, known, self._registry, progress)
        )
        folder = self._folder(name)
        acquisition.require_same_network(path, folder.entry, config, stored)
        acquisition.require_size(path, folder.entry)
        acquisition.require_acceptance(folder.entry, accept_licence)
        with folder.locked(progress):
            acquisition.import_model(folder, path, brought, progress)
        return self.status(name)

    def verify(self, name: str, progress: Progress | None = None) -> ModelStatus:
        """Compute a model's hash anew and compare it with the published or recorded one.

        Where the publisher's hash is not known here, the hub is asked for it unless the network is off; without it the
        hash that was recorded with the file shows that it did not change, not whose it is. Where no hash is known at
        all (the bundled model, a file put there by hand) it is checked that the weights load.

        :raises ModelError: if the model is missing or damaged.
        """
        path, entry = self.path(name), self.entry(name)
        facts = acquisition.with_hub_hash(self._folder(name), path, read_sidecar(path))
        if not (facts.get("sha256") or entry.sha256 or entry.md5):
            from VISTA3DCore.models.checkpoints import inspect_checkpoint

            inspect_checkpoint(path)
            return replace(self.status(name), detail="the weights load; no hash is known to compare them with")
        digest = digest_file(path, Progress.of(progress))
        acquisition.require_known_hash(entry, path.name, digest, facts)
        facts |= acquisition.hash_facts(entry, digest, facts)
        write_sidecar(path, {**facts, "checked": stamp(path)})
        if _is_proven(entry, facts):
            return self.status(name)
        return replace(self.status(name), detail="unchanged since it came here, but not compared with a published hash")

    def delete(self, name: str) -> None:
        """Remove a model, its partial download, licence and facts from this computer.

        :raises ModelError: if it is part of VISTA3D or not here.
        """
        folder = self._folder(name)
        if folder.entry.bundled:
            raise ModelError(f"The model '{name}' is part of VISTA3D and cannot be deleted.")
        if not folder.path.is_dir():
            raise ModelError(f"The model '{name}' is not on this computer.")
        with folder.locked(Progress()), disk_errors(folder.path):
            shutil.rmtree(folder.path)

    def _folder(self, name: str) -> ModelFolder:
        return ModelFolder(self.home, self.entry(name))


def _is_proven(entry: RegistryEntry, facts: dict[str, Any]) -> bool:
    """Return whether the recorded hash shows that a file is the publisher's; a computed one shows no more than that it
    did not change."""
    source = facts.get("hash_source")
    return source == acquisition.HUB or (source == "published" and acquisition.is_pinned(entry))


def _absent(folder: ModelFolder) -> ModelStatus:
    name, part = folder.entry.name, folder.partial
    if part.exists():
        size = part.stat().st_size
        return ModelStatus(name, "partial", size, None, f"{size / 1e6:.0f} MB downloaded so far")
    return ModelStatus(name, "missing", 0, None, f"about {folder.entry.size / 1e6:.0f} MB to download")
