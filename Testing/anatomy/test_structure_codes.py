"""The standard codes: valid, complete, and understood by Slicer."""

from __future__ import annotations

import re

import pytest

from VISTA3DCore.anatomy.catalogue import catalogue

CT = catalogue()
CTMR = catalogue("vista3d-ctmr")
LABEL_SETS = pytest.mark.parametrize("label_set", [CT, CTMR], ids=lambda label_set: label_set.name)
ANATOMICAL, TISSUE, ALTERED = "123037004", "85756007", "49755003"


def codes(structure):
    fields = ("category", "type", "type_modifier", "region", "region_modifier")
    return {field: code for field in fields if (code := getattr(structure, field))}


def verhoeff(digits: str) -> int:
    """Return 0 if the last digit is the check digit that SNOMED CT identifiers carry (dihedral group D5)."""

    def multiply(a: int, b: int) -> int:
        turned = (a + b) % 5 if a < 5 else (a - b) % 5
        return turned + 5 * ((a < 5) != (b < 5))

    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(position % 8):
            value = permutation[value]
        check = multiply(check, value)
    return check


def test_the_check_digit_is_computed_right():
    assert verhoeff("10200004") == 0
    assert verhoeff("10200005") != 0
    assert verhoeff("10020004") != 0


def test_every_slot_of_the_ct_model_with_weights_is_coded():
    assert all(structure.category and structure.type for structure in CT if structure.supported)


@LABEL_SETS
def test_codes_are_snomed_ct_identifiers(label_set):
    for structure in label_set:
        for code in codes(structure).values():
            assert code.scheme == "SCT"
            assert re.fullmatch(r"\d{6,18}", code.value), structure.name
            assert verhoeff(code.value) == 0, f"{structure.name}: {code}"
            assert not set("~^|") & set(code.meaning)


@LABEL_SETS
def test_a_code_has_one_meaning(label_set):
    meanings = {}
    for structure in label_set:
        for code in codes(structure).values():
            assert meanings.setdefault(code.value, code.meaning) == code.meaning


@LABEL_SETS
def test_different_structures_have_different_codes(label_set):
    seen = {}
    for structure in label_set:
        if structure.type and structure.supported and structure.index not in (146, 165, 166):
            assert seen.setdefault(tuple(codes(structure).values()), structure.name) == structure.name


@LABEL_SETS
def test_sides_agree_with_the_name(label_set):
    for structure in label_set:
        for modifier in (structure.type_modifier, structure.region_modifier):
            assert modifier is None or modifier.meaning.casefold() == structure.laterality


def test_sides_of_the_ct_model_are_coded_unless_the_type_says_them():
    one_sided = {
        structure.name
        for structure in CT
        if structure.laterality and not structure.type_modifier and not structure.region_modifier
    }
    assert one_sided == {"right lung middle lobe", "left atrial appendage"}


@pytest.mark.parametrize(
    ("name", "category", "kind", "modifier", "region"),
    [
        ("liver", ANATOMICAL, "10200004", None, None),
        ("left kidney", ANATOMICAL, "64033007", "7771000", None),
        ("right kidney", ANATOMICAL, "64033007", "24028007", None),
        ("vertebrae L5", ANATOMICAL, "49668003", None, None),
        ("left rib 12", ANATOMICAL, "43993008", "7771000", None),
        ("airway", ANATOMICAL, "89187006", None, None),
        ("bone", TISSUE, "272673000", None, None),
        ("hepatic vessel", TISSUE, "59820001", None, "10200004"),
        ("hepatic tumor", ALTERED, "108369006", None, "10200004"),
        ("lung tumor", ALTERED, "108369006", None, "39607008"),
        ("pancreatic tumor", ALTERED, "108369006", None, "15776009"),
        ("colon cancer primaries", ALTERED, "86049000", None, "71854001"),
        ("bone lesion", ALTERED, "52988006", None, "272673000"),
        ("left kidney cyst", ALTERED, "367643001", None, "64033007"),
    ],
)
def test_codes_against_the_terminologies(name, category, kind, modifier, region):
    structure = CT[name]
    values = {field: code.value for field, code in codes(structure).items()}
    assert (values["category"], values["type"]) == (category, kind)
    assert (values.get("type_modifier"), values.get("region")) == (modifier, region)


def test_serialized_entries():
    assert CT["left kidney"].terminology_entry("My list") == (
        "My list~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left"
        "~Anatomic codes - DICOM master list~^^~^^"
    )
    assert CT["right kidney cyst"].terminology_entry() == (
        "Segmentation category and type - VISTA3D~SCT^49755003^Morphologically Altered Structure~SCT^367643001^Cyst"
        "~^^~Anatomic codes - DICOM master list~SCT^64033007^Kidney~SCT^24028007^Right"
    )


def test_a_structure_without_code_is_generic_tissue():
    entry = CTMR["Left-AnG---angular-gyrus"].terminology_entry()
    assert entry.startswith("Segmentation category and type - VISTA3D~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~")


@LABEL_SETS
def test_slicer_reads_every_entry(label_set):
    slicer = pytest.importorskip("slicer")
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    for structure in label_set:
        serialized = structure.terminology_entry()
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(serialized, entry)
        assert entry.GetTypeObject().GetCodeValue() == (structure.type.value if structure.type else TISSUE)
        assert logic.SerializeTerminologyEntry(entry) == serialized
