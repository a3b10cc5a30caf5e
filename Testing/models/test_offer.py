"""What can be asked of a model by name, and the sentence for what cannot."""

from __future__ import annotations

import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.errors import UnknownStructureError
from VISTA3DCore.models.claims import Claim, Claims
from VISTA3DCore.models.offer import Offer
from VISTA3DCore.network.config import ModelConfig

CT = catalogue()
LIVER, SPLEEN, PANCREAS, RIGHT_KIDNEY, STOMACH, DUODENUM, LEFT_KIDNEY = 1, 3, 4, 5, 12, 13, 14
RIBS = tuple(range(63, 87))
GOOD = (LIVER, RIGHT_KIDNEY, STOMACH, 63, 64, 76)
FIGURES = {
    **{index: Claim(0.8, 24, False) for index in GOOD},
    PANCREAS: Claim(0.41, 22, False),
    LEFT_KIDNEY: Claim(0.444, 9, True),
}
CONFIG = ModelConfig(
    name="mini", classes=(LIVER, SPLEEN, PANCREAS, RIGHT_KIDNEY, STOMACH, DUODENUM, LEFT_KIDNEY, *RIBS)
)
LIMITED = Offer(CONFIG, Claims(0.5, FIGURES))
UNLIMITED = Offer(CONFIG)


def indices(structures: tuple[Structure, ...]) -> tuple[int, ...]:
    return tuple(structure.index for structure in structures)


def refusal(request: object) -> str:
    with pytest.raises(UnknownStructureError) as raised:
        LIMITED.resolve(request)
    assert raised.value.exit_code == 2
    return str(raised.value)


def test_claimed_structures_are_available() -> None:
    assert LIMITED.available == GOOD
    assert LIMITED.trained == UNLIMITED.available == CONFIG.classes
    assert indices(LIMITED.resolve(["stomach", "hepar", 5, CT["stomach"]])) == (STOMACH, LIVER, RIGHT_KIDNEY)
    assert indices(LIMITED.resolve("everything")) == GOOD
    assert LIMITED.resolve(()) == ()


def test_a_claim_for_what_the_model_was_not_trained_for_offers_nothing() -> None:
    offer = Offer(ModelConfig(classes=(LIVER,)), Claims(0.5, FIGURES))
    assert offer.available == (LIVER,)


def test_without_claims_everything_is_as_it_was() -> None:
    assert indices(UNLIMITED.resolve("kidney")) == (LEFT_KIDNEY, RIGHT_KIDNEY)
    assert UNLIMITED.left_out("everything") == []
    with pytest.raises(UnknownStructureError, match="'bladder' is not in this model"):
        UNLIMITED.resolve("bladder")
    assert Offer(ModelConfig()).resolve("everything") == CT.everything


def test_the_refusal_says_what_is_nearest_and_how_to_get_the_full_model() -> None:
    assert refusal("Pancreas") == (
        "The model 'mini' cannot segment 'pancreas' (Dice 0.41 in validation) well enough; nearest to it, it offers "
        "right kidney and liver. Use the full model: `vista3d models download vista3d-ct`."
    )


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (14, "'left kidney' (Dice 0.44 in validation on painted CTs)"),
        ("duodenum", "'duodenum' (not validated) well enough; nearest to it, it offers stomach."),
        ("bladder", "'bladder' (not trained)"),
        ("left rib 3", "nearest to it, it offers left rib 2 and left rib 1."),
        ("right rib 1", "nearest to it, it offers left rib 1 and right rib 2."),
        ("vertebrae", "'vertebrae' (none of its 25 structures reaches a Dice of 0.5)"),
        ("brain", "it offers 6 other structures."),
    ],
)
def test_each_kind_of_refusal(request_: object, words: str) -> None:
    assert words in refusal(request_)


def test_all_that_is_refused_is_named_once() -> None:
    sentence = refusal(["liver", "pancreas", "duodenum", 4, "bladder"])
    assert (
        "'pancreas' (Dice 0.41 in validation), 'duodenum' (not validated) and 'bladder' (not trained) well enough; "
        "nearest to them, it offers"
    ) in sentence
    assert sentence.count("pancreas") == 1
    assert "'liver'" not in sentence


def test_unknown_names_are_unknown_and_not_unclaimed() -> None:
    assert "There is no structure called 'pancraes'" in refusal(["duodenum", "pancraes"])


def test_groups_take_their_claimed_members_and_the_others_are_reported() -> None:
    assert indices(LIMITED.resolve(["kidney", "ribs"])) == (RIGHT_KIDNEY, 63, 64, 76)
    assert LIMITED.left_out(["liver", "kidney", "ribs"]) == [
        "Left out of 'kidney': left kidney; it needs the full model.",
        "Left out of 'ribs': 21 of 24 structures; they need the full model.",
    ]
    assert LIMITED.left_out(["liver", "stomach"]) == []
