"""Recipes: the packaged ones, a user's file on top, single keys last, and what is refused."""

import json
import re

import pytest

from deltascene.pipeline.errors import ConfigError
from deltascene.pipeline.training.recipe import RUN_ONLY, Recipe, load_recipe


@pytest.mark.parametrize("step", ["base", "stl", "frozen", "subtask"])
def test_every_step_has_a_packaged_recipe(step):
    recipe = load_recipe(step)
    assert recipe.keep_tokens == 0.4
    assert recipe.gate_penalty == 0


def test_the_single_task_reference_is_trained_as_the_base_is():
    assert load_recipe("stl") == load_recipe("base")


def test_a_file_goes_on_top_and_single_keys_last(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rank: 8\nbatch: 2\n")
    recipe = load_recipe("subtask", path, ["batch=3", "seed = 5"])
    assert (recipe.rank, recipe.batch, recipe.seed) == (8, 3, 5)
    assert recipe.learning_rate == load_recipe("subtask").learning_rate


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_a_learning_rate_may_be_written_as_people_do(tmp_path, text):
    assert load_recipe("base", None, [f"learning_rate={text}"]).learning_rate == 1e-4
    (tmp_path / "mine.yaml").write_text(f"learning_rate: {text}\n")
    assert load_recipe("base", tmp_path / "mine.yaml").learning_rate == 1e-4


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rnk=3", "recipe: unknown key 'rnk'; did you mean 'rank'?"),
        ("rank", "--set: expected key=value; found 'rank'"),
        ("rank=[3", "--set rank: not readable as YAML"),
        ("rank=2.5", "recipe: rank: expected a valid integer; found 2.5"),
        ("rank=0", "recipe: rank: expected greater than or equal to 1; found 0"),
        ("batch=many", "recipe: batch: expected a valid integer; found 'many'"),
        ("learning_rate=fast", "recipe: learning_rate: expected a valid number; found 'fast'"),
        ("learning_rate=inf", "recipe: learning_rate: expected a finite number; found inf"),
        ("keep_tokens=1.5", "recipe: keep_tokens: expected less than or equal to 1; found 1.5"),
        ("=3", "recipe: unknown key ''"),
        ("auxiliary=height", "recipe: auxiliary: expected a list; found 'height'"),
    ],
)
def test_what_does_not_fit_is_one_line(override, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load_recipe("subtask", None, [override])
    assert "\n" not in str(caught.value)


def test_auxiliary_tasks_are_a_list():
    assert load_recipe("base", None, ["auxiliary=[height, flow]"]).auxiliary == ("height", "flow")


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"recipe .*none\.yaml: can't be read"):
        load_recipe("base", tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"recipe .*list\.yaml: expected a mapping; found list"):
        load_recipe("base", tmp_path / "list.yaml")


def test_what_belongs_to_the_run_alone_does_not_decide_about_going_on():
    slow, often = Recipe(checkpoint_s=1000), Recipe(checkpoint_s=0, judged=3, judgements=9)
    assert slow.deciding() == often.deciding()
    assert Recipe.model_fields.keys() - slow.deciding().keys() == set(RUN_ONLY)
    assert Recipe(rank=3).deciding() != Recipe().deciding() != Recipe(auxiliary=("x",)).deciding()


def test_a_recipe_is_numbers_alone():
    recipe = Recipe(rank=3, learning_rate=3e-4)
    assert Recipe(**json.loads(json.dumps(recipe.model_dump()))) == recipe
