# SPDX-License-Identifier: Apache-2.0
"""What Slicer is told about once it has started: the effect, the terminology, sample data."""

from __future__ import annotations

import slicer

from .locating import find_core

#: A CT of the abdomen with liver tumors, from the Medical Segmentation Decathlon (CC BY-SA 4.0).
_SAMPLE, _SAMPLE_HASH = "VISTA3DLiverCT", "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"
_CATEGORY = "VISTA3D"


def register_effect() -> None:
    """Add the effect to the Segment Editor."""
    find_core()
    from .SegmentEditorEffect import register

    register()


def register_terminology() -> None:
    """Add the terminology of the structures to the terminology selector."""
    find_core()
    from .mrml.terminology import load_terminology

    load_terminology(slicer.modules.terminologies.logic())


def register_sample_data() -> None:
    """Add a CT to the Sample Data module."""
    import SampleData
    from slicer.util import TESTING_DATA_URL

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_CATEGORY,
        sampleName=_SAMPLE,
        uris=f"{TESTING_DATA_URL}SHA256/{_SAMPLE_HASH}",
        fileNames=f"{_SAMPLE}.nrrd",
        checksums=f"SHA256:{_SAMPLE_HASH}",
        nodeNames=_SAMPLE,
    )
