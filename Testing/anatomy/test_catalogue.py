"""What the class numbers mean, against the published label tables of the models."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import UnknownStructureError

CT = catalogue("vista3d-ct")
CTMR = catalogue("vista3d-ctmr")
DEAD = (16, 18, 129, 130, 131)
GROUPS = {
    2: (14, 5),
    20: (28, 29, 30, 31, 32),
    21: (*range(33, 57), *range(63, 98), 114, 120, 122),
}
# The default automatic run of the released bundle (configs/inference.json): everything but these.
NOT_IN_EVERYTHING = {2, 16, 18, 20, 21, 23, 24, 25, 26, 27, 128, 129, 130, 131, 132}

# Runs in a fresh interpreter: what the catalogue imports, and what that costs.
PROBE = """
import sys, time
start = time.process_time()
import VISTA3DCore.anatomy.catalogue
seconds = time.process_time() - start
foreign = sorted(n for n in sys.modules if n.partition(".")[0] in ("numpy", "torch", "monai", "SimpleITK"))
import json
print(json.dumps([seconds, foreign]))
"""


def indices(structures):
    return [structure.index for structure in structures]


def test_132_slots_in_order_of_their_index():
    assert indices(CT) == list(range(1, 133))
    assert len(CT) == 132
    assert sum(structure.supported for structure in CT) == 127


def test_everything_is_the_default_run_of_the_bundle():
    assert indices(CT.everything) == sorted(set(range(1, 133)) - NOT_IN_EVERYTHING)
    assert len(CT.everything) == 117
    assert [structure for structure in CT if structure.in_everything] == list(CT.everything)


def test_flags_of_the_ct_model():
    assert [s.index for s in CT if s.overlapping] == [23, 24, 25, 26, 27, 128, 132]
    assert [s.index for s in CT if s.special_click_tokens] == [23, 24, 25, 26, 27, 57, 128]
    assert {s.index: s.members for s in CT if s.is_group} == GROUPS
    assert tuple(s.index for s in CT if not s.supported) == DEAD


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (1, "liver"),
        (5, "right kidney"),
        (14, "left kidney"),
        (17, "portal vein and splenic vein"),
        (27, "colon cancer primaries"),
        (33, "vertebrae L5"),
        (56, "vertebrae C1"),
        (60, "left iliac vena"),
        (63, "left rib 1"),
        (86, "right rib 12"),
        (104, "left autochthon"),
        (127, "vertebrae S1"),
        (132, "airway"),
    ],
)
def test_official_names(index, name):
    assert CT[index].name == name
    assert CT[name].index == index
    assert index in CT
    assert name in CT


def test_numbering_of_vertebrae_and_ribs_follows_the_body():
    spine = (
        [f"L{n}" for n in range(5, 0, -1)] + [f"T{n}" for n in range(12, 0, -1)] + [f"C{n}" for n in range(7, 0, -1)]
    )
    assert [CT.find(vertebra).index for vertebra in spine] == list(range(33, 57))
    ribs = [f"{side} rib {n}" for side in ("left", "right") for n in range(1, 13)]
    assert [CT.find(rib).index for rib in ribs] == list(range(63, 87))


@pytest.mark.parametrize("label_set", [CT, CTMR], ids=lambda label_set: label_set.name)
def test_every_name_means_one_structure(label_set):
    assert len({structure.name.casefold() for structure in label_set}) == len(label_set)
    assert len({structure.display_name.casefold() for structure in label_set}) == len(label_set)
    for structure in label_set:
        for name in (structure.name, structure.display_name, *structure.synonyms, str(structure.index)):
            assert label_set.find(name) is structure, name


@pytest.mark.parametrize("label_set", [CT, CTMR], ids=lambda label_set: label_set.name)
def test_side_in_the_name_is_the_laterality(label_set):
    for structure in label_set:
        first = structure.display_name.split()[0].casefold()
        assert structure.laterality == (first if first in ("left", "right") else None), structure.name


@pytest.mark.parametrize("label_set", [CT, CTMR], ids=lambda label_set: label_set.name)
def test_the_tree_holds_every_usable_structure_once(label_set):
    held = [index for structures in label_set.groups.values() for index in indices(structures)]
    assert sorted(held) == [structure.index for structure in label_set if structure.supported]
    assert list(label_set.groups) == [key for key in label_set.group_titles if key in label_set.groups]


def test_the_tree_groups_what_people_look_for():
    groups = {key: set(indices(structures)) for key, structures in CT.groups.items()}
    assert groups["vertebrae"] == {*range(33, 57), 127}
    assert groups["ribs"] == set(range(63, 87))
    assert groups["muscles"] == set(range(98, 108))
    assert groups["lesions"] == {23, 24, 26, 27, 116, 117, 128}
    assert groups["vessels"] == {6, 7, 17, 25, *range(58, 62), *range(109, 114), 119, 123, 124, 125}
    assert groups["lungs"] == {20, *range(28, 33)}


def test_ctmr_extends_the_ct_labels_without_changing_their_meaning():
    assert indices(CTMR) == list(range(1, 346))
    for structure in CT:
        other = CTMR[structure.index]
        assert other.name in (structure.name, f"{structure.name} (deprecated)")
        assert (other.color, other.type, other.members) == (structure.color, structure.type, structure.members)


def test_ctmr_runs_and_modalities():
    assert {name: len(run) for name, run in CTMR.runs.items()} == {"CT_BODY": 117, "MRI_BODY": 50, "MRI_BRAIN": 132}
    assert indices(CTMR.everything) == indices(CT.everything)
    assert indices(CTMR.runs["MRI_BRAIN"]) == list(range(214, 346))
    assert CTMR["liver"].modalities == ("CT", "MRI")
    assert CTMR["vertebrae L5"].modalities == ("CT",)
    for name, run in CTMR.runs.items():
        assert all(name.split("_")[0] in structure.modalities for structure in run)


def test_ctmr_supports_exactly_what_has_a_modality():
    for structure in CTMR:
        assert structure.supported == bool(structure.modalities)
        assert structure.supported == ("deprecated" not in structure.name)
    assert CTMR["rectum"].supported


def test_the_catalogue_is_read_once():
    assert catalogue() is CT
    assert catalogue("vista3d-ctmr") is CTMR


def test_unknown_label_set_names_the_known_ones():
    with pytest.raises(UnknownStructureError, match="vista3d-ctmr"):
        catalogue("totalsegmentator")


def test_import_is_light():
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", PROBE], text=True)) for _ in range(5)]
    assert runs[0][1] == []
    # Processor time, the best of five: the rest measures how busy the machine is.
    assert min(seconds for seconds, _ in runs) < 0.05
