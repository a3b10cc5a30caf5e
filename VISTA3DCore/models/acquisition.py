"""How a model comes to this computer: licence first, then a download or a file, checked, then in place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from VISTA3DCore.errors import LicenseNotAcceptedError, ModelError
from VISTA3DCore.models.digests import Digest, copy_file, digest_file, require_hash
from VISTA3DCore.models.downloads import RemoteFile, download, fetch_text
from VISTA3DCore.models.hub import hub_file, hub_url
from VISTA3DCore.models.model_folder import LICENCE_FILE, SUFFIXES, ModelFolder
from VISTA3DCore.models.registry import RegistryEntry
from VISTA3DCore.models.sidecar import write_sidecar
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

#: Origin of a hash that the hub reported to this store.
HUB = "hub"
# Formats differ in what they store beside the numbers.
_SIZE_TOLERANCE, _FORMAT_BYTES = 0.02, 1_000_000


def require_acceptance(entry: RegistryEntry, accepted: bool) -> None:
    """:raises LicenseNotAcceptedError: says how to read and accept the licence."""
    if not accepted:
        raise LicenseNotAcceptedError(
            "The model '{model}' comes under the {license}",
            hint="accept-license",
            facts={"model": entry.name, "license": entry.licence, "url": entry.licence_url},
        )


def fetch_licence(folder: ModelFolder, remote: RemoteFile | None = None) -> str:
    """Return the licence text of the revision to get; it is fetched once, kept, and the revision pinned with it.

    The caller holds the folder's lock.

    :raises OfflineError: if it cannot be fetched.
    :raises ModelError: if the source has none.
    """
    if (kept := folder.licence()) is not None:
        return kept
    remote = remote or locate(folder)
    texts = (fetch_text(replace(remote, url=url)) for url in _licence_urls(folder.entry, remote))
    text = next((text for text in texts if text), None)
    if text is None:
        raise ModelError(f"The license text of '{folder.entry.name}' is not at its source ({remote.url}).")
    folder.keep_licence(text)
    about = {"name": folder.entry.name, "revision": remote.revision, **hub_facts(folder.entry, remote)}
    write_sidecar(folder.target(), {**folder.facts(), **about})
    return text


def locate(folder: ModelFolder) -> RemoteFile:
    """Ask where the weights are, at the pinned revision.

    :raises OfflineError: if the source may not, or cannot, be reached.
    """
    entry = folder.entry
    if entry.repo is None:
        return RemoteFile(entry.url or "", None, entry.sha256, entry.md5, entry.revision)
    remote = hub_file(entry.repo, entry.filename, folder.revision())
    return replace(remote, sha256=entry.sha256 or remote.sha256, md5=entry.md5)


def download_model(folder: ModelFolder, progress: Progress) -> Path:
    """Download the weights of a model whose licence was accepted; errors as :func:`downloads.download`."""
    remote, target = locate(folder), folder.target()
    licence = fetch_licence(folder, remote)
    facts = {**_facts(folder.entry, remote.revision, licence), "url": remote.url}
    facts |= hub_facts(folder.entry, remote)  # before the first byte: a crash cannot separate the file from its hash
    write_sidecar(target, facts)
    digest = download(remote, target, progress)
    folder.replace_weights(target, target, {**facts, **hash_facts(folder.entry, digest, facts)})
    return target


def import_model(folder: ModelFolder, source: Path, brought: dict[str, Any], progress: Progress) -> Path:
    """Copy checked weights into the store.

    :param brought: the facts that came with the file. Their hash finds damage on the way and proves nothing else:
        whoever made the file could write it.
    :raises ModelError: if the hash is not the known one; the store is left as it was.
    :raises OutputError: if the disk is full or not writable.
    """
    target = folder.target(source.suffix if source.suffix in SUFFIXES else None)
    licence = _licence_beside(source)
    revision = _text(brought, "revision")
    facts = _facts(folder.entry, revision, licence) | _recorded_at_hub(folder, target, revision)
    incoming = target.with_name(target.name + ".import")
    try:
        digest = copy_file(source, incoming, progress)
        require_hash(source.name, digest, _text(brought, "sha256") or None, None)
        require_known_hash(folder.entry, source.name, digest, facts)
        folder.replace_weights(incoming, target, {**facts, **hash_facts(folder.entry, digest, facts)})
    finally:
        incoming.unlink(missing_ok=True)
    if licence is not None:
        folder.keep_licence(licence)
    return target


def require_known_hash(entry: RegistryEntry, name: str, digest: Digest, facts: dict[str, Any]) -> None:
    """:raises ModelError: if a file's hash is neither the published nor the recorded one."""
    require_hash(name, digest, entry.sha256, entry.md5)
    require_hash(name, digest, facts.get("sha256"), None)


def require_size(path: Path, entry: RegistryEntry) -> None:
    """:raises ModelError: if a file is much smaller or larger than the released one."""
    size = path.stat().st_size
    if abs(size - entry.size) > _SIZE_TOLERANCE * entry.size + _FORMAT_BYTES:
        raise ModelError(
            "'{path}' has {megabytes} MB, but the released model '{model}' has about {expected} MB; it is another file "
            "or not all of it",
            hint="get-again",
            facts={
                "path": str(path),
                "megabytes": f"{size / 1e6:.1f}",
                "model": entry.name,
                "expected": f"{entry.size / 1e6:.1f}",
            },
        )


def hub_facts(entry: RegistryEntry, remote: RemoteFile) -> dict[str, Any]:
    """Return what to record of the hash that the source reports; empty where it reports none."""
    if not remote.sha256:
        return {}
    return {"sha256": remote.sha256, "hash_source": "published" if entry.sha256 else HUB}


def hash_facts(entry: RegistryEntry, digest: Digest, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what to record about a file's hash, and how much it proves.

    :param facts: recorded by this store.
    """
    at_hub = facts.get("hash_source") == HUB and facts.get("sha256") == digest.sha256
    source = "published" if is_pinned(entry) else HUB if at_hub else "computed"
    return {"size": digest.size, "sha256": digest.sha256, "hash_source": source}


def is_pinned(entry: RegistryEntry) -> bool:
    """Return whether the registry knows the publisher's hash of a model."""
    return bool(entry.sha256 or entry.md5)


def with_hub_hash(folder: ModelFolder, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about weights with the hash that the hub reports, which is asked unless it is recorded.

    Unchanged where that says nothing: no hub, not reachable, or a file in another format than the hub's.
    """
    comparable = folder.entry.repo is not None and path.suffix == folder.entry.suffix
    if is_pinned(folder.entry) or not comparable or facts.get("hash_source") == HUB:
        return facts
    try:
        remote = locate(folder)
    except ModelError:
        return facts
    return {**facts, "revision": remote.revision, **hub_facts(folder.entry, remote)} if remote.sha256 else facts


def identified(
    path: Path, stored: ModelConfig | None, registry: Mapping[str, RegistryEntry], progress: Progress
) -> str:
    """Tell which model a file is, by the configuration or the published hash; guessing would mislabel anatomy.

    :param stored: the configuration that stands in the file, if any.
    :raises ModelError: if that cannot be told.
    """
    if stored is not None and stored.name in registry:
        return stored.name
    if stored is not None:
        raise ModelError(
            "'{path}' is the model '{model}', which need not be imported",
            hint="use-by-path",
            facts={"path": str(path), "model": stored.name},
        )
    published = {entry.md5: name for name, entry in registry.items() if entry.md5}
    if (name := published.get(digest_file(path, progress).md5)) is not None:
        return name
    names = [name for name, entry in registry.items() if not entry.bundled]
    facts = {"path": str(path), "models": names}
    raise ModelError("'{path}' is a VISTA3D model but does not say which", hint="name-model", facts=facts)


def require_same_network(path: Path, entry: RegistryEntry, config: ModelConfig, stored: bool) -> None:
    """:raises ModelError: if a file is of another model than ``entry``; an inferred configuration tells only sizes."""
    if entry.config is None:
        raise ModelError(f"The model '{entry.name}' is part of VISTA3D and need not be imported.")
    if not stored:
        config = replace(entry.config, width=config.width, blocks_down=config.blocks_down, n_classes=config.n_classes)
    differing = [
        f"{field.name} {getattr(config, field.name)} instead of {getattr(entry.config, field.name)}"
        for field in fields(config)
        if field.name != "name" and getattr(config, field.name) != getattr(entry.config, field.name)
    ]
    if differing:
        raise ModelError(f"'{path}' is not the model '{entry.name}': {', '.join(differing)}.")


def _licence_urls(entry: RegistryEntry, remote: RemoteFile) -> list[str]:
    if entry.repo is None:
        return [entry.licence_url]
    return [hub_url(entry.repo, file, remote.revision) for file in entry.licence_files]


def _recorded_at_hub(folder: ModelFolder, target: Path, revision: str) -> dict[str, Any]:
    """Return the hub's hash of what ``target`` is to hold, as this store recorded it at an earlier contact."""
    known = folder.facts()
    same = target == folder.target() and revision in ("", known.get("revision"))
    if not same or known.get("hash_source") != HUB:
        return {}
    return {key: known[key] for key in ("revision", "sha256", "hash_source")}


def _text(brought: dict[str, Any], key: str) -> str:
    """Return a fact that came with a file if it can be what it should be; empty otherwise."""
    value = brought.get(key)
    return value if isinstance(value, str) and re.fullmatch(r"[\w.-]{1,64}", value) else ""


def _licence_beside(source: Path) -> str | None:
    found = next((file for name in (LICENCE_FILE, "LICENSE") if (file := source.with_name(name)).is_file()), None)
    return found.read_text(encoding="utf-8", errors="replace") if found else None


def _facts(entry: RegistryEntry, revision: str, licence: str | None) -> dict[str, Any]:
    """Return what is recorded of a model whose licence was accepted just now."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    text_hash = hashlib.sha256(licence.encode()).hexdigest() if licence is not None else None
    return {
        "name": entry.name,
        "revision": revision,
        "obtained": now,
        "config": entry.config.to_json() if entry.config else None,
        "licence": {
            "title": entry.licence,
            "url": entry.licence_url,
            "revision": revision,
            "text_sha256": text_hash,
            "accepted": now,
        },
    }
