"""Recipes with a name, kept as data beside this file: ``--recipe small``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from planish.contract.errors import InvalidSpec
from planish.contract.recipe import Recipe
from planish.contract.spec import Output


class NamedRecipe(BaseModel):
    """A recipe for a common wish.

    Attributes:
        name: what it is called.
        summary: what it is good for and what it needs.
        recipe: the passes.
        outputs: formats that it can be delivered in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str
    recipe: Recipe
    outputs: tuple[Output, ...]


@cache
def named_recipes() -> dict[str, NamedRecipe]:
    """Return all of them by name."""
    folder = files("planish.contract") / "recipes"
    texts = [item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".json")]
    recipes = [NamedRecipe.model_validate_json(text) for text in texts]
    return {recipe.name: recipe for recipe in sorted(recipes, key=lambda recipe: recipe.name)}


def named_recipe(name: str) -> NamedRecipe:
    """Return one recipe.

    Raises:
        InvalidSpec: there is none of this name.
    """
    known = named_recipes()
    if name not in known:
        raise InvalidSpec(f"there is no recipe {name!r}; there are: {', '.join(known)}")
    return known[name]
