"""Budgets: how ``keep``, ``max_tokens`` and ``threshold`` become options, and what number of tokens they mean.

The rules, for every method:

- ``keep`` is a share of the item's grid tokens (the product of each view's grid, summed), whatever stands before the
  method in a composition. Structural rows are always kept, on top.
- ``max_tokens`` is a ceiling for the item, structural rows included.
- One of the budgets may be given, unless the options class says that they go together.
- A share becomes a number by :func:`share_count`, nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, ClassVar

from pydantic import Field, model_validator

from tokcli.errors import MethodError
from tokcli.methods.options import Options
from tokcli.types import View, VisualTokens

BUDGETS = ("keep", "max_tokens", "threshold")


class Budgeted(Options):
    """Base of options with at least one budget."""

    budget_required: ClassVar[bool] = False
    budgets_together: ClassVar[bool] = False
    own_budgets: ClassVar[tuple[str, ...]] = ()
    """Options of the method's own that say how much to keep, in place of a budget."""
    default_budget: ClassVar[Mapping[str, float]] = {}
    """What holds where none is given."""

    @property
    def budget_given(self) -> bool:
        return bool(self._given())

    def _given(self) -> list[str]:
        return [name for name in (*budgets_of(type(self)), *self.own_budgets) if getattr(self, name) is not None]

    @model_validator(mode="before")
    @classmethod
    def _or_default(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = any(values.get(name) is not None for name in (*budgets_of(cls), *cls.own_budgets))
        return values if given else {**values, **cls.default_budget}

    @model_validator(mode="after")
    def _one_budget(self) -> Budgeted:
        given = self._given()
        if len(given) > 1 and not self.budgets_together:
            raise ValueError(f"{' and '.join(given)} cannot both be given; leave all but one out")
        if not given and self.budget_required:
            raise ValueError(f"it needs a budget; give one of {', '.join(budgets_of(type(self)))}")
        return self


class ShareBudget(Budgeted):
    keep: float | None = Field(default=None, gt=0, le=1, description="Share of the item's tokens to keep.")


class CountBudget(Budgeted):
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens to keep of an item.")


class SizeBudget(CountBudget, ShareBudget):
    """A share or a number of tokens."""


def budgets_of(model: type[Options]) -> tuple[str, ...]:
    """The budgets that a method with these options takes."""
    return tuple(name for name in BUDGETS if name in model.model_fields)


def share_count(share: float, count: int) -> int:
    """``max(1, round(share * count))``, halves to the even number, on the decimal number that the user wrote.

    In binary floating point ``0.29 * 50`` is 14.499999999999998; here it is 14.5.
    """
    return max(1, int((Decimal(repr(share)) * count).to_integral_value(rounding=ROUND_HALF_EVEN)))


def grid_tokens(views: Iterable[View]) -> int:
    """Tokens of an item before any method, structural rows not counted."""
    return sum(view.num_tokens for view in views)


def share_asked(options: Options, views: Iterable[View]) -> float:
    """The share of an item's grid tokens that a budget leaves; 1 without a budget of this kind."""
    keep, most = getattr(options, "keep", None), getattr(options, "max_tokens", None)
    if keep is None and most is not None:
        keep = min(1.0, most / max(1, grid_tokens(views)))
    return 1.0 if keep is None else float(keep)


def rows_to_keep(
    name: str, options: SizeBudget, visual: VisualTokens, *, floor: int = 1, floor_is: str = "a token"
) -> int:
    """How many of the rows that are not structural a whole-item method keeps, at least ``floor`` and at most all.

    A share below the floor gives the floor; a ceiling below it raises :class:`MethodError`.
    """
    structural = int(visual.structural.sum())
    available = len(visual) - structural
    if options.max_tokens is not None:
        wanted = options.max_tokens - structural
        if wanted < min(floor, available):
            raise MethodError(
                f"method {name!r} keeps at least {floor_is}: {floor + structural} tokens of this item, "
                f"over max_tokens={options.max_tokens}; allow that many, or take 'uniform'"
            )
    else:
        wanted = share_count(1.0 if options.keep is None else options.keep, grid_tokens(visual.views))
    return min(available, max(floor, wanted))
