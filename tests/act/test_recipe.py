"""Recipes: plain data in and out, one element from many steps, and errors that name the step."""

from pathlib import Path

import pytest
import torch

from regauge import act
from regauge.act.recipe import After, Recipe
from regauge.errors import InputError
from tests.act.models import assert_keeps, subject

TEXT = """
steps:
  - fold
  - rotate: {bond: stream, how: hadamard, seed: 5}
  - rotate: {bond: heads, how: given}
"""


def test_composes_in_order(tmp_path: Path) -> None:
    s = subject("llama-gqa")
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    (tmp_path / "r.yaml").write_text(TEXT)
    recipe = Recipe.read(tmp_path / "r.yaml", {"given": q})
    image = assert_keeps(s, recipe.element(s.gauge, s.state))
    folded = act.fold(s.gauge, s.state)
    turned = act.rotate(s.gauge, After(folded, s.state), "stream", "hadamard", seed=5) @ folded
    last = act.rotate(s.gauge, After(turned, s.state), "heads", q) @ turned
    expected = last.apply(s.state)
    assert all(torch.equal(image[n], expected[n]) for n in expected)


def test_round_trip() -> None:
    recipe = Recipe.of(["untie", {"rotate": {"bond": "stream"}}, {"fold": None}, "prune-redundant"])
    assert Recipe.of(recipe.plain()).steps == recipe.steps
    assert recipe.unties and recipe.prunes and [s.name for s in recipe.choices] == ["rotate", "fold"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stages": []}, "one key, steps"),
        ([3], "step 1 of the recipe is 3"),
        (["fold", "shine"], "step 2 of the recipe is 'shine'"),
        (["rotate"], "needs bond"),
        ([{"rotate": {"bond": "stream", "speed": 3}}], "unknown option speed"),
        (["fold", "untie"], "starts with untie"),
        (3, "list of steps"),
    ],
)
def test_errors_name_the_step(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.of(data)


def test_unsafe_yaml_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("steps: !!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="no YAML"):
        Recipe.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.read(tmp_path / "none.yaml")
