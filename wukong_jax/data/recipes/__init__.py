"""Ready preparations of public data sets: name, terms, schema, and how to obtain and prepare each."""

import difflib
import importlib
from types import ModuleType

from wukong_jax.errors import DataError

RECIPES = {
    name: f"wukong_jax.data.recipes.{name}"
    for name in (
        "movielens_100k",
        "movielens_1m",
        "movielens_1m_sampled",
        "frappe",
        "criteo_kaggle",
        "criteo_terabyte",
        "synthetic",
        "planted",
    )
}


def load_recipe(name: str) -> ModuleType:
    """The module of a recipe: `NAME`, `TERMS`, `SCHEMA`, `prepare(out, *, source, cache)`.

    Importing it is cheap (no jax, polars or NumPy). Raises `DataError` naming the nearest recipe for an unknown name.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"unknown recipe {name!r}; {hint}the recipes are {', '.join(RECIPES)}")
    return importlib.import_module(RECIPES[name])
