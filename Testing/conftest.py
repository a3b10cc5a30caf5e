"""Fixtures that every suite shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Times of property tests depend on the machine; continuous integration draws the same examples every time.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.fixture(scope="session")
def ct_data() -> Path:
    """Return the folder of real CTs, or skip: they are not part of the repository."""
    folder = os.environ.get("VISTA3D_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VISTA3D_TEST_DATA is not set")
    return Path(folder)
