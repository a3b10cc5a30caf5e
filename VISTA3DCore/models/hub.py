"""What the Hugging Face hub says about a file; its bytes come through :mod:`VISTA3DCore.models.downloads`."""

from __future__ import annotations

import os
import re

from VISTA3DCore.models.downloads import TIMEOUT_S, RemoteFile, refusal, require_network, unreachable


def hub_file(repo: str, filename: str, revision: str) -> RemoteFile:
    """Ask the Hugging Face hub (or the mirror in ``HF_ENDPOINT``) for a file's commit, size and LFS SHA-256.

    :raises OfflineError: if the hub may not, or cannot, be reached.
    :raises ModelError: if the hub refuses.
    """
    require_network(repo)
    from huggingface_hub import get_hf_file_metadata, get_token
    from huggingface_hub.errors import HfHubHTTPError

    url = hub_url(repo, filename, revision)
    try:
        found = get_hf_file_metadata(url, timeout=TIMEOUT_S)
    except HfHubHTTPError as error:
        raise refusal(f"The hub refused '{filename}' of '{repo}'", error.response.status_code) from error
    except Exception as error:  # the hub library's transport, and so its exceptions, differ between its versions
        raise unreachable(url, error) from error
    sha256 = found.etag if found.etag and re.fullmatch(r"[0-9a-f]{64}", found.etag) else None
    pinned = found.commit_hash or revision
    return RemoteFile(hub_url(repo, filename, pinned), found.size, sha256, None, pinned, get_token())


def hub_url(repo: str, filename: str, revision: str) -> str:
    """Return the address of a file on the hub or on the mirror in ``HF_ENDPOINT``."""
    from huggingface_hub import hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    return hf_hub_url(repo, filename, revision=revision, endpoint=endpoint)
