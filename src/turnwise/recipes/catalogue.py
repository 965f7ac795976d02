"""Recipes by name. A recipe is a module of this package with ``main(*, quick, out, seeds)``, loaded when it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from turnwise.envs.errors import did_you_mean
from turnwise.errors import TurnwiseError


@dataclass(frozen=True)
class Recipe:
    """A run, or a comparison of runs, with settings that are known to work.

    Attributes:
        name: Its name, which is also that of its module.
        summary: What it shows, in a line.
        minutes: How long it takes on a laptop CPU.
    """

    name: str
    summary: str
    minutes: float

    def run(self, *, quick: bool, out: Path, seeds: int | None) -> None:
        """Run it.

        Args:
            quick: A short version, which shows that everything works and not how good it gets.
            out: Folder for the results.
            seeds: Number of seeds; the recipe's own number if None.

        Raises:
            TurnwiseError: anything the user can mend.
        """
        import_module(f"turnwise.recipes.{self.name}").main(quick=quick, out=out, seeds=seeds)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("demo", "several ways to go on from one start model; they differ in how far back a reward reaches", 5),
    )
}
"""Name -> recipe."""


def find(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        TurnwiseError: no such recipe, with the nearest name.
    """
    if name not in RECIPES:
        raise TurnwiseError(
            f"there is no recipe {name!r}{did_you_mean(name, RECIPES)}; there are {', '.join(RECIPES)} "
            "(turnwise recipe list)"
        )
    return RECIPES[name]
