"""How people ask for structures: spelling, synonyms, search, groups, and what they are told when it fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import UnknownStructureError

CT = catalogue()
CTMR = catalogue("vista3d-ctmr")


def indices(structures):
    return [structure.index for structure in structures]


def names(structures):
    return [structure.name for structure in structures]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("Left Kidney", "left kidney"),
        ("kidney_left", "left kidney"),
        ("LEFT-KIDNEY", "left kidney"),
        ("  liver ", "liver"),
        ("hepar", "liver"),
        ("IVC", "inferior vena cava"),
        ("oesophagus", "esophagus"),
        ("urinary_bladder", "bladder"),
        ("small intestine", "small bowel"),
        ("L5", "vertebrae L5"),
        ("lumbar vertebra 5", "vertebrae L5"),
        ("vertebrae_L5", "vertebrae L5"),
        ("atlas", "vertebrae C1"),
        ("left iliac vein", "left iliac vena"),
        ("right psoas", "right iliopsoas"),
        ("left erector spinae", "left autochthon"),
        ("lung_upper_lobe_left", "left lung upper lobe"),
        ("RML", "right lung middle lobe"),
        ("rib_right_7", "right rib 7"),
        ("left clavicle", "left clavicula"),
        ("atrial_appendage_left", "left atrial appendage"),
        ("kidney_cyst_right", "right kidney cyst"),
        ("liver tumours", "hepatic tumor"),
        ("hepatic veins", "hepatic vessel"),
        ("14", "left kidney"),
        (14, "left kidney"),
    ],
)
def test_find_understands_spellings_and_synonyms(asked, name):
    assert CT.find(asked).name == name


@given(
    st.sampled_from([s.name for s in CT]),
    st.sampled_from([" ", "_", "-", "  "]),
    st.sampled_from([str.upper, str.title]),
)
def test_find_ignores_case_and_separators(name, separator, case):
    assert CT.find(case(name.replace(" ", separator))).name == name


@pytest.mark.parametrize(
    ("typed", "first", "included"),
    [
        ("hep", "hepatic vessel", {"hepatic vessel", "hepatic tumor", "liver", "portal vein and splenic vein"}),
        ("left kid", "left kidney", {"left kidney", "left kidney cyst"}),
        ("kidney", "kidney", {"left kidney", "right kidney", "left kidney cyst"}),
        ("rib 1", "left rib 1", {"left rib 1", "right rib 1"}),
        ("vein", "pulmonary vein", {"inferior vena cava", "left iliac vena", "portal vein and splenic vein"}),
        ("tumour", "lung tumor", {"lung tumor", "pancreatic tumor", "hepatic tumor", "bone lesion"}),
        ("femoral head", "left femur", {"left femur", "right femur"}),
        ("psoas", "left iliopsoas", {"left iliopsoas", "right iliopsoas"}),
        ("airw", "airway", {"airway"}),
        ("thor vert 1", "vertebrae T1", {"vertebrae T1", "vertebrae T12"}),
    ],
)
def test_search_finds_what_is_typed_best_first(typed, first, included):
    found = names(CT.search(typed))
    assert included <= set(found)
    if typed != "vein":
        assert found[0] == first


def test_search_needs_every_word_and_offers_only_what_can_be_used():
    assert CT.search("left liver") == []
    assert CT.search("xyzzy") == []
    assert "rectum" not in names(CT.search("rect"))
    assert len(CT.search("")) == 127


@given(st.text(max_size=20))
def test_search_survives_anything(text):
    assert all(structure.supported for structure in CT.search(text))


def test_groups_become_their_members():
    assert indices(CT.resolve("kidney")) == [14, 5]
    assert indices(CT.resolve("lung")) == [28, 29, 30, 31, 32]
    assert len(CT.resolve("bone")) == 62
    assert indices(CT.resolve(["kidney", 5, "liver", "1", "spleen"])) == [14, 5, 1, 3]


def test_branches_of_the_tree_can_be_asked_for():
    assert indices(CT.resolve("ribs")) == list(range(63, 87))
    assert indices(CT.resolve("vertebrae")) == [*range(33, 57), 127]
    assert indices(CT.resolve("lungs")) == [28, 29, 30, 31, 32]
    assert set(CT.resolve("bones")) == set(CT.resolve("bone"))
    assert CT.resolve("Digestive tract") == CT.resolve("digestive")
    assert all(not s.is_group and s.supported for key in CT.groups for s in CT.resolve(key))


def test_everything_and_both_sides():
    assert CT.resolve("everything") == CT.resolve("All") == CT.everything
    assert names(CT.resolve("iliopsoas")) == ["left iliopsoas", "right iliopsoas"]
    assert names(CT.resolve("rib 3")) == ["left rib 3", "right rib 3"]
    assert len(CTMR.resolve("MRI_BRAIN")) == 132


def test_structures_can_be_passed_themselves():
    assert CT.resolve(CT["liver"]) == (CT["liver"],)
    assert CT.resolve(iter([CT["spleen"], "liver", CT["spleen"]])) == (CT["spleen"], CT["liver"])


def test_collective_requests_shrink_to_what_the_model_knows():
    available = {1, 3, 5, 14, 28, 63}
    assert indices(CT.resolve("everything", available)) == [1, 3, 5, 14, 28, 63]
    assert indices(CT.resolve("lung", available)) == [28]
    assert indices(CT.resolve(["ribs", "kidney"], available)) == [63, 14, 5]


def test_a_structure_that_the_model_does_not_know_is_refused():
    with pytest.raises(UnknownStructureError, match=r"'pancreas' is not in this model"):
        CT.resolve(["liver", "pancreas"], available=[1, 3])
    with pytest.raises(UnknownStructureError, match=r"none of the structures in 'ribs'"):
        CT.resolve("ribs", available=[1, 3])


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        ("prostate or uterus", "use 'prostate' instead"),
        (18, "no other class"),
        ("kidney mass", "'left kidney cyst' and 'right kidney cyst'"),
        ("130", "use 'hepatic tumor' instead"),
        ("L6", "no class of its own"),
    ],
)
def test_slots_without_weights_say_what_to_use_instead(asked, instead):
    with pytest.raises(UnknownStructureError, match="no trained weights") as raised:
        CT.resolve(asked)
    assert instead in str(raised.value)


@pytest.mark.parametrize(
    ("typo", "suggestion"),
    [
        ("livr", "'liver'"),
        ("left kidny", "'left kidney'"),
        ("vertebra L55", "'vertebrae L5'"),
        ("everythin", "'everything'"),
        ("pancreatic tumr", "'pancreatic tumor'"),
        ("muscels", "'muscles'"),
        ("femoral head", "'left femur'"),
    ],
)
def test_unknown_names_get_suggestions(typo, suggestion):
    with pytest.raises(UnknownStructureError) as raised:
        CT.resolve(typo)
    assert suggestion in str(raised.value)
    assert str(raised.value).count("' or '") <= 2


@pytest.mark.parametrize("nonsense", ["xyzzy", "", "0", "133", "-1", 0, 133, 1.5, None])
def test_nonsense_is_refused_with_a_sentence(nonsense):
    with pytest.raises(UnknownStructureError, match=r"^There is no structure"):
        CT.resolve(nonsense)


def test_a_structure_of_another_label_set_is_not_taken_for_one_of_this():
    with pytest.raises(UnknownStructureError):
        CT.resolve(CTMR["left lung"])
