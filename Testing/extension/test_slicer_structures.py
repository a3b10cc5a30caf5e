"""The list of structures: groups, search, what can be chosen, what is in view."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from logic_helpers import Heard, MemoryStore, add_transform, add_volume, assert_sentence, new_scene, rotated

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.engine.protocol import ClaimInfo, ClaimsInfo
from VISTA3DCore.imaging.volume import Volume
from VISTA3DSegmentLib.logic.settings import Settings
from VISTA3DSegmentLib.logic.structures import ALL, NONE, SOME, Group, StructureChoice
from VISTA3DSegmentLib.mrml.matrices import to_matrix
from VISTA3DSegmentLib.mrml.results import write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation

CT = catalogue("vista3d-ct")
LIVER, KIDNEYS, PANCREAS, RIGHT_KIDNEY, LEFT_KIDNEY, TUMOR = 1, 2, 4, 5, 14, 26


@pytest.fixture
def choice() -> StructureChoice:
    return StructureChoice(Settings(MemoryStore()))


def group(choice: StructureChoice, key: str) -> Group:
    return next(one for one in choice.groups() if one.key == key)


def test_every_structure_is_in_one_group_and_combined_ones_in_none(choice: StructureChoice) -> None:
    listed = [structure for one in choice.groups() for structure in one.structures]
    assert len(listed) == len(set(listed))
    assert set(listed) == {structure for structure in CT if not structure.is_group}
    assert [one.key for one in choice.groups()] == list(CT.group_titles)


@pytest.mark.parametrize(
    ("text", "first"),
    [("hep", "liver"), ("liver", "liver"), ("kidney", "right kidney"), ("lien", "spleen"), ("", "liver")],
)
def test_search_finds_names_synonyms_and_members(choice: StructureChoice, text: str, first: str) -> None:
    found = choice.search(text)
    assert first in [structure.name for structure in found[:4]]
    assert not any(structure.is_group for structure in found)
    assert len(found) == len(set(found))


def test_what_the_model_was_not_trained_for_cannot_be_chosen(choice: StructureChoice) -> None:
    for structure in CT:
        if not structure.supported:
            assert_sentence(choice.reason(structure))
            choice.check([structure.index])
    assert choice.checked == ()
    assert choice.reason(CT[LIVER]) is None


def test_what_the_chosen_model_does_not_know_is_unchecked_and_says_why(choice: StructureChoice) -> None:
    heard = Heard(choice)
    choice.check([LIVER, PANCREAS])
    choice.use_model("vista3d-ct", (LIVER, RIGHT_KIDNEY))
    choice.use_model("vista3d-ct", (LIVER, RIGHT_KIDNEY))
    assert choice.checked == (LIVER,)
    assert_sentence(choice.reason(CT[PANCREAS]))
    assert choice.reason(CT[PANCREAS]) in choice.tooltip(CT[PANCREAS])
    assert [name for name, _ in heard.events] == ["changed", "listed", "changed"]
    choice.use_model("vista3d-ctmr", None)
    assert choice.checked == ()
    assert choice.catalogue.name == "vista3d-ctmr"


def test_what_the_chosen_model_does_not_claim_needs_the_full_model(choice: StructureChoice) -> None:
    figures = {
        str(LIVER): ClaimInfo(0.912, 24, False),
        str(RIGHT_KIDNEY): ClaimInfo(0.62, 20, True),
        str(PANCREAS): ClaimInfo(0.41, 22, False),
    }
    choice.use_model("vista3d-ct", (LIVER, PANCREAS))
    choice.check([LIVER, PANCREAS])
    choice.use_model("vista3d-ct", (LIVER, RIGHT_KIDNEY), ClaimsInfo(0.5, figures))
    assert choice.checked == (LIVER,)
    assert choice.reason(CT[LIVER]) is None
    for index in (PANCREAS, LEFT_KIDNEY):
        assert choice.reason(CT[index]) == "This needs the full model, see Setup."
        assert choice.tooltip(CT[index]).endswith("This needs the full model, see Setup.")
    assert "The chosen model's Dice in validation: 0.91 (24 patients)." in choice.tooltip(CT[LIVER])
    assert "0.62 (20 patients, painted CTs alone)." in choice.tooltip(CT[RIGHT_KIDNEY])
    assert "0.41 (22 patients)." in choice.tooltip(CT[PANCREAS])
    assert "validation" not in choice.tooltip(CT[LEFT_KIDNEY])
    choice.check_everything()
    assert choice.checked == (LIVER, RIGHT_KIDNEY)
    assert choice.state_of(group(choice, "organs")) == ALL
    choice.use_model("vista3d-ct", (LIVER, RIGHT_KIDNEY))  # another model with the same structures, without claims
    assert "another model may" in choice.reason(CT[PANCREAS])


def test_a_branch_of_which_nothing_can_be_chosen_says_why(choice: StructureChoice) -> None:
    organs, vessels = group(choice, "organs"), group(choice, "vessels")
    assert choice.group_reason(organs) is None
    choice.use_model("vista3d-ct", (LIVER, PANCREAS), ClaimsInfo(0.5, {}))
    assert choice.group_reason(organs) is None
    assert "This needs the full model, see Setup." in choice.group_reason(vessels)
    choice.check_group(vessels)
    assert (choice.checked, choice.state_of(vessels)) == ((), NONE)


def test_rows_that_cannot_be_chosen_say_why(choice: StructureChoice) -> None:
    assert choice.row(CT[PANCREAS]) == "Pancreas"
    choice.use_model("vista3d-ct", (LIVER,))
    assert choice.row(CT[LIVER]) == "Liver"
    assert choice.row(CT[PANCREAS]) == "Pancreas (not in this model)"
    choice.use_model("vista3d-ct", (LIVER,), ClaimsInfo(0.5, {}))
    assert choice.row(CT[PANCREAS]) == "Pancreas (full model only)"
    for structure in CT:
        if not structure.supported:
            assert choice.row(structure) == f"{structure.display_name} (not available)"


def test_a_search_that_leads_nowhere_says_so(choice: StructureChoice) -> None:
    for text in ("", "  ", "liver", "hep"):
        assert choice.search_note(text) is None
    note = choice.search_note(" xyzzy ")
    assert "'xyzzy'" in note
    assert "clicks" in note
    choice.use_model("vista3d-ct", (LIVER,), ClaimsInfo(0.5, {}))
    assert choice.search_note("pancreas") == "Pancreas: This needs the full model, see Setup."
    assert choice.search_note("liver") is None


def test_a_branch_is_no_favorite(choice: StructureChoice) -> None:
    choice.toggle_favorite(None)
    assert choice.groups()[0].key != "favorites"
    choice.toggle_favorite(PANCREAS)
    assert choice.is_favorite(CT[PANCREAS])
    choice.toggle_favorite(PANCREAS)
    assert not choice.is_favorite(CT[PANCREAS])


def test_checking_and_unchecking_is_told_when_it_changes_something(choice: StructureChoice) -> None:
    heard = Heard(choice)
    choice.check([PANCREAS, LIVER])
    choice.check([LIVER])
    choice.check([LIVER], False)
    choice.check([4711], True)
    assert (choice.checked, choice.is_checked(CT[PANCREAS])) == ((PANCREAS,), True)
    choice.clear()
    choice.clear()
    assert heard.events == [("changed", ())] * 3
    choice.check([KIDNEYS])
    assert choice.checked == ()


def test_groups_are_checked_as_a_whole(choice: StructureChoice) -> None:
    lungs = group(choice, "lungs")
    assert choice.state_of(lungs) == NONE
    choice.check([lungs.structures[0].index])
    assert choice.state_of(lungs) == SOME
    choice.check_group(lungs)
    assert choice.state_of(lungs) == ALL
    choice.check_group(lungs, False)
    assert choice.checked == ()
    organs = group(choice, "organs")  # has one that cannot be chosen
    choice.check_group(organs)
    assert choice.state_of(organs) == ALL


def test_everything_is_what_the_authors_say_and_the_model_knows(choice: StructureChoice) -> None:
    choice.check_everything()
    assert choice.checked == tuple(sorted(structure.index for structure in CT.everything))
    assert choice.summary() == "Everything (117 structures)"
    choice.use_model("vista3d-ct", (LIVER, PANCREAS))
    choice.check_everything()
    assert choice.checked == (LIVER, PANCREAS)


def test_the_choice_in_words(choice: StructureChoice) -> None:
    assert (choice.summary(), choice.chips()) == ("Choose structures", [])
    choice.check([LIVER, PANCREAS])
    assert choice.summary() == "Liver, Pancreas"
    assert [structure.name for structure in choice.chips()] == ["liver", "pancreas"]
    choice.check([RIGHT_KIDNEY])
    assert choice.summary() == "3 structures"
    choice.check(range(1, 20))
    assert choice.chips() == []


def test_favorites_and_recent_ones_come_first(choice: StructureChoice) -> None:
    heard = Heard(choice)
    choice.set_favorite(CT[PANCREAS], True)
    choice.check([LIVER])
    choice.note_use()
    first, second = choice.groups()[:2]
    assert (first.key, [one.name for one in first.structures]) == ("favorites", ["pancreas"])
    assert (second.key, [one.name for one in second.structures]) == ("recent", ["liver"])
    assert choice.is_favorite(CT[PANCREAS])
    assert len(heard.all("listed")) == 2
    choice.check_everything()
    choice.note_use()  # nothing that anybody would look for
    assert choice.groups()[1].structures == (CT[LIVER],)


def test_a_tooltip_tells_names_code_and_layer(choice: StructureChoice) -> None:
    text = choice.tooltip(CT["hepatic tumor"])
    assert "SCT" in text
    assert "layer of its own" in text


class View:
    """A result of a few structures, each a slab of its own, and views of it."""

    def __init__(self) -> None:
        self.scene = new_scene()
        self.volume = add_volume(self.scene, Volume(np.zeros((30, 30, 30), dtype=np.int16), np.diag([2, 2, 2, 1.0])))
        self.segmentation = create_segmentation(self.scene, self.volume)
        labels, mask = np.zeros((30, 30, 30), dtype=np.uint16), np.zeros((30, 30, 30), dtype=bool)
        labels[2:28, 2:14, 2:10], labels[2:28, 16:28, 2:10], labels[2:28, 2:28, 20:28] = LIVER, PANCREAS, RIGHT_KIDNEY
        mask[4:8, 4:8, 4:8] = True
        structures = [CT[index] for index in (LIVER, PANCREAS, RIGHT_KIDNEY, TUMOR, LEFT_KIDNEY)]
        write_result(self.segmentation, self.volume, labels, {TUMOR: mask}, structures, {})

    def at(self, z: float, field: tuple[float, float] = (200, 200), y: float = 30) -> slicer.vtkMRMLSliceNode:
        """Return an axial view at a height in mm."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSliceNode")
        matrix = np.eye(4)
        matrix[:3, 3] = 30, y, z
        node.GetSliceToRAS().DeepCopy(to_matrix(matrix))
        node.SetFieldOfView(*field, 1.0)
        return node


@pytest.fixture
def view() -> View:
    return View()


def test_what_is_in_view_is_checked(choice: StructureChoice, view: View) -> None:
    assert choice.check_in_view(view.segmentation, [view.at(10)])
    assert choice.checked == (LIVER, PANCREAS, TUMOR)
    assert choice.check_in_view(view.segmentation, [view.at(50)])
    assert choice.checked == (RIGHT_KIDNEY,)
    assert choice.check_in_view(view.segmentation, [view.at(10, (100, 10), 45), view.at(50)])
    assert choice.checked == (PANCREAS, RIGHT_KIDNEY)


def test_what_is_in_view_of_a_moved_segmentation(choice: StructureChoice, view: View) -> None:
    add_transform(view.segmentation, rotated((0, 0, 0), (0, 0, 40)))
    assert choice.check_in_view(view.segmentation, [view.at(50)])
    assert choice.checked == (LIVER, PANCREAS, TUMOR)


def test_without_a_result_in_view_everything_is_checked(choice: StructureChoice, view: View) -> None:
    for segmentation, z in ((None, 10), (view.segmentation, 30), (view.segmentation, 500)):
        choice.clear()
        assert not choice.check_in_view(segmentation, [view.at(z)])
        assert len(choice.checked) == 117
