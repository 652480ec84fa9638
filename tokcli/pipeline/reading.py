"""Items as the language model is to see them: the cache's tokens, or fewer by a budget that is given when asking."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokcli.cache import Cache
from tokcli.errors import UsageError
from tokcli.methods import Query, Selection, resolve, resolve_selector
from tokcli.pipeline.further import Further, further_on
from tokcli.recipe import InferRecipe
from tokcli.types import EncodedItem

DEFAULT = "uniform"
"""The method where a budget is given and none is named: any item can meet any budget with it."""


@dataclass(frozen=True)
class Reader:
    """Reads items of one cache."""

    cache: Cache
    further: Further | None
    """The method to run on each item."""
    selection: Selection | None
    """The selector to run behind it, for each prompt."""
    rows: Further
    """The method that keeps everything: how the cache's rows are read and put back."""

    def read(self, item_id: str) -> EncodedItem:
        """An item as all prompts see it.

        Raises:
            MethodError: It can't meet the budget.
            CacheError: It can't be read.
        """
        item = self.cache[item_id]
        return item if self.further is None else replace(item, kept=self.further.run(item))

    def focus(self, item: EncodedItem, query: Query) -> EncodedItem:
        """An item as it was read, as one prompt sees it; the selector must be there. Raises ``MethodError``."""
        assert self.selection is not None
        before = self.rows if self.further is None else replace(self.rows, composed=True)
        visual = before.visual_tokens(item)
        return replace(item, kept=before.placed(item, visual, self.selection.run(visual, query)))


def reader(cache: Cache, recipe: InferRecipe) -> Reader:
    """What the recipe's ``method``, ``select`` and budgets mean for a cache.

    Budgets and options go to the selector where there is one, but options that name the method, ``evs.pruning_rate``.

    Raises:
        MethodError: An unknown method, selector or option, or a method that needs what the cache doesn't hold.
        UsageError: Options or budgets without anything that takes them.
    """
    rows = further_on(cache, resolve("none"))
    if recipe.select is not None:
        return Reader(cache, *_selection(cache, recipe, recipe.select), rows)
    budgets = {"keep": recipe.keep, "max_tokens": recipe.max_tokens, "threshold": recipe.threshold}
    if recipe.method is None and not any(value is not None for value in budgets.values()):
        if recipe.options:
            raise UsageError("options are a method's or a selector's: add --method or --select")
        return Reader(cache, None, None, rows)
    method = resolve(recipe.method or DEFAULT, options=recipe.options, seed=recipe.seed, **budgets)  # type: ignore[arg-type]
    return Reader(cache, further_on(cache, method), None, rows)


def _selection(cache: Cache, recipe: InferRecipe, name: str) -> tuple[Further | None, Selection]:
    if recipe.threshold is not None:
        raise UsageError("--threshold is a method's; --select takes --keep or --max-tokens")
    own, others = {}, {}
    for key, value in recipe.options.items():
        owner, _, option = key.rpartition(".")
        if owner in ("", name):
            own[option] = value
        else:
            others[key] = value
    selection = resolve_selector(name, keep=recipe.keep, max_tokens=recipe.max_tokens, options=own)
    if recipe.method is not None:
        return further_on(cache, resolve(recipe.method, options=others, seed=recipe.seed)), selection
    if others:
        raise UsageError(f"option {next(iter(others))!r} is for a method: add --method")
    return None, selection
