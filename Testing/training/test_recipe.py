"""Recipes are checked, merged and told apart."""

from __future__ import annotations

import pytest
from training_phantoms import MODEL

from VISTA3DCore.errors import InputError, ModelError
from VISTA3DCore.training.plan import Start, model_of
from VISTA3DCore.training.recipe import read_recipe, stage_names, to_yaml

FROZEN = ("encoder", "click_decoder", "click_head")


@pytest.mark.parametrize("stage", stage_names())
def test_every_recipe_is_complete_and_survives_its_own_file(stage, tmp_path):
    chosen = read_recipe(stage)
    (tmp_path / "own.yaml").write_text(to_yaml(chosen), encoding="utf-8")

    assert read_recipe(stage, tmp_path / "own.yaml") == chosen
    assert chosen.about
    assert chosen.model_config().width in (16, 48)


def test_the_papers_numbers():
    stages = [
        read_recipe(one) for one in ("interactive", "interactive-finetuning", "automatic", "automatic-finetuning")
    ]

    assert {one.optimizer.learning_rate for one in stages} == {2e-5}
    assert [one.epochs for one in stages] == [300, 300, 200, 200]
    assert [one.prompts.iterations for one in stages] == [5, 5, 1, 1]
    assert [one.prompts.max_foreground for one in stages] == [4, 4, 32, 32]
    assert [one.frozen == FROZEN for one in stages] == [False, False, True, True]
    assert [one.data.supervoxels for one in stages[:2]] == [True, False]
    assert stages[3].data.synthetic > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["optimizer.learning_rat=1"], "no setting 'learning_rat' in 'optimizer'"),
        (["frozen=[brain]"], "no part 'brain' of the network"),
        (["batch=many"], "'batch' of the recipe cannot be 'many'"),
        (["batch=0"], "batch is 0; it must be at least 1"),
        (["steps=-5"], "steps is -5; it must be at least 1"),
        (["steps=0"], "steps is 0; it must be at least 1"),
        (["epochs=0"], "epochs is 0; it must be at least 1"),
        (["validation.every=0"], r"validation\.every is 0; it must be at least 1"),
        (["precision=fp8"], "precision must be one of auto"),
        (["data.synthetic=2"], "between 0 and 1"),
        (["steps"], "changes nothing"),
        (["data=3"], "'data' of the recipe must hold settings"),
        (["prompts.iterations=[1"], "not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        read_recipe("automatic", changes=changes)
    assert "\n" not in str(caught.value)


def test_unknown_stages_and_files_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no stage 'fifth'; choose one of automatic,"):
        read_recipe("fifth")
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_recipe("automatic", tmp_path / "none.yaml")


def test_a_window_of_which_one_voxel_is_left_is_refused():
    with pytest.raises(InputError, match=r"16 x 16 x 16 is too small .* 5 levels.* Set model.window=\[32, 32, 32\]"):
        model_of(read_recipe("interactive", changes=["model.window=[16, 16, 16]"]), None)
    assert model_of(read_recipe("interactive", changes=["model.window=[16, 16, 32]"]), None).window == (16, 16, 32)


def test_a_starting_model_of_another_architecture_is_one_sentence():
    start = Start(MODEL, {}, "")

    with pytest.raises(ModelError, match=r"'tiny' has another architecture than the recipe 'mini': width is 8 instead"):
        model_of(read_recipe("mini"), start)
    assert model_of(read_recipe("automatic"), start).width == 8
