"""Our terminology in Slicer's own Terminologies logic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import slicer

from VISTA3DCore.anatomy.catalogue import Structure, catalogue
from VISTA3DCore.anatomy.structure import TISSUE
from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml import terminology
from VISTA3DSegmentLib.mrml.terminology import (
    CONTEXT,
    FILE,
    LABEL_SET,
    coded_structure,
    codes_of,
    context_of,
    load_terminology,
    written,
)

Logic = slicer.vtkSlicerTerminologiesModuleLogic
CODED = [one for one in catalogue(LABEL_SET) if one.supported and one.type is not None]


@pytest.fixture(scope="module")
def logic() -> Logic:
    """Return Slicer's logic with our terminology."""
    found = Logic()
    assert load_terminology(found) == CONTEXT
    return found


def entry_of(structure: Structure) -> slicer.vtkSlicerTerminologyEntry:
    """Return a structure's terminology as Slicer understands it."""
    entry = slicer.vtkSlicerTerminologyEntry()
    assert Logic.DeserializeTerminologyEntry(structure.terminology_entry(), entry)
    return entry


def test_the_file_is_made_of_the_catalogue() -> None:
    """Run ``python -m VISTA3DSegmentLib.mrml.terminology`` after a change of the catalogue."""
    assert FILE.read_text(encoding="utf-8") == written(context_of(catalogue(LABEL_SET)))


def test_the_file_is_one_that_slicer_accepts() -> None:
    content = json.loads(FILE.read_text(encoding="utf-8"))
    assert content["@schema"].endswith("segment-context-schema.json#")
    assert content["SegmentationCategoryTypeContextName"] == CONTEXT
    assert FILE.read_bytes().isascii()
    types = [one for category in content["SegmentationCodes"]["Category"] for one in category["Type"]]
    assert len({(one["CodingSchemeDesignator"], one["CodeValue"]) for one in types}) == len(types)


def test_the_names_of_contexts_agree() -> None:
    assert catalogue()["liver"].terminology_entry().startswith(CONTEXT + "~")


def test_slicer_lists_our_categories_and_types(logic: Logic) -> None:
    assert logic.IsTerminologyContextLoaded(CONTEXT)
    assert logic.GetNumberOfCategoriesInTerminology(CONTEXT) == len({one.category for one in CODED})
    category = slicer.vtkSlicerTerminologyCategory()
    count = 0
    for number in range(logic.GetNumberOfCategoriesInTerminology(CONTEXT)):
        assert logic.GetNthCategoryInTerminology(CONTEXT, number, category)
        count += logic.GetNumberOfTypesInTerminologyCategory(CONTEXT, category)
    assert count == len({(one.category, one.type) for one in CODED})


@pytest.mark.parametrize("structure", CODED, ids=lambda one: one.name)
def test_slicer_finds_code_and_color_of_every_structure(logic: Logic, structure: Structure) -> None:
    entry = entry_of(structure)
    assert entry.GetTerminologyContextName() == CONTEXT
    found = slicer.vtkSlicerTerminologyEntry()
    found.Copy(entry)
    assert logic.UpdateEntryFromLoadedTerminologies(found, [], [])
    kind, modifier = found.GetTypeObject(), found.GetTypeModifierObject()
    assert kind.GetCodeValue() == structure.type.value
    assert kind.GetCodeMeaning() == structure.type.meaning
    same_type = [one for one in CODED if (one.category, one.type) == (structure.category, structure.type)]
    if structure.type_modifier is not None:
        assert modifier.GetCodeMeaning() == structure.type_modifier.meaning
        if structure.region is None:
            assert tuple(modifier.GetRecommendedDisplayRGBValue()) == structure.color
    elif len(same_type) == 1:
        assert tuple(kind.GetRecommendedDisplayRGBValue()) == structure.color


def test_slicer_reads_and_writes_our_entries_alike(logic: Logic) -> None:
    for structure in CODED:
        text = Logic.SerializeTerminologyEntry(entry_of(structure))
        assert codes_of(text) == codes_of(structure.terminology_entry())


def test_entries_of_different_structures_differ(logic: Logic) -> None:
    left, right = (entry_of(catalogue()[name]) for name in ("left kidney", "right kidney"))
    assert not logic.AreTerminologyEntriesEqual(left, right)
    assert logic.AreTerminologyEntriesEqual(left, entry_of(catalogue()["left kidney"]))


@pytest.mark.parametrize("text", ["", "nonsense", "~~~~~~~", "a~SCT^1^x", f"c~{TISSUE}~{TISSUE}~^^~a~^^~^^|",
                                  "c~SRT^T-D0050^Tissue~SRT^T-62000^Liver~^^~a~^^~^^|"])  # fmt: skip
def test_what_says_nothing_has_no_codes(text: str) -> None:
    assert codes_of(text) is None


@pytest.mark.parametrize("structure", CODED, ids=lambda one: one.name)
def test_codes_name_their_structure(structure: Structure) -> None:
    codes = codes_of(structure.terminology_entry() + "|")
    if structure.type == TISSUE:
        assert codes is None
    else:
        assert coded_structure(codes, catalogue(LABEL_SET)) == structure


def test_a_missing_file_is_an_error_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminology, "FILE", tmp_path / "gone.json")
    with pytest.raises(InputError, match=r"'gone\.json' is missing or damaged; install the extension again"):
        load_terminology(Logic())
    (tmp_path / "gone.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="missing or damaged"):
        load_terminology(Logic())
