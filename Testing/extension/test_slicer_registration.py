"""What Slicer is told about once it has started."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
from slicer_calls import signature_of
from slicer_facts import SlicerFacts

from VISTA3DSegmentLib.registration import register_sample_data

NAME = "registerCustomSampleDataSource"


def test_the_cts_of_the_tutorial_are_in_sample_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that takes them has the signature of a real Slicer's."""
    signature = signature_of(SlicerFacts.read().functions["SampleData.SampleDataLogic"][NAME], bound=False)
    told = []
    module = ModuleType("SampleData")
    module.SampleDataLogic = SimpleNamespace(**{NAME: lambda *a, **k: told.append(signature.bind(*a, **k).arguments)})
    monkeypatch.setitem(sys.modules, "SampleData", module)

    register_sample_data()

    (sample,) = told
    assert (sample["category"], sample["sampleName"]) == ("VISTA3D", "VISTA3DLiverCT")
    hash_type, _, value = sample["checksums"].partition(":")
    assert sample["uris"].endswith(f"/{hash_type}/{value}")
    assert sample["uris"].startswith("https://")
    assert len(value) == 64
    assert sample["fileNames"].endswith(".nrrd")
