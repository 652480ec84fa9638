"""From ``--method keyframes,dtd --keep 0.2 --set dtd.variant=official`` to a compressor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokcli.errors import MethodError, nearest
from tokcli.methods.base import METHODS, Method
from tokcli.methods.budget import budgets_of
from tokcli.methods.compose import Compressor, Stage
from tokcli.methods.options import SeededOptions


def resolve(
    spec: str,
    *,
    keep: float | None = None,
    max_tokens: int | None = None,
    threshold: float | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Compressor:
    """Make a compressor of one method's name or of several with commas between.

    The budgets go to the last method; an earlier one gets its own by ``options={"dtd.threshold": "0.4"}``. An option
    without a method's name goes to the one method that has it. ``seed`` goes to every method that draws numbers.

    Raises :class:`MethodError` for an unknown method or option, a value that is not allowed, and a budget that a
    method does not take, with the names that would do.
    """
    names = [name.strip() for name in spec.split(",")]
    methods = {name: METHODS.get(name) for name in names}
    if len(methods) < len(names):
        raise MethodError(f"a method stands twice in {spec!r}; name each once")
    values = _shared_out(methods, options or {})
    last = names[-1]
    budgets = _budgets(methods[last], {"keep": keep, "max_tokens": max_tokens, "threshold": threshold})
    for budget in budgets.keys() & values[last].keys():
        raise MethodError(f"{budget} of method {last!r} is given twice, as a budget and as an option; leave one out")
    values[last].update(budgets)
    for name, method in methods.items():
        if issubclass(method.options, SeededOptions):
            values[name].setdefault("seed", seed)
    return Compressor([Stage(method, method.parse(values[name])) for name, method in methods.items()])


def method_names() -> list[str]:
    """All methods: those of this package, then those that other packages offer."""
    return METHODS.names()


def describe(name: str) -> dict[str, Any]:
    """The page of a method as JSON: summary, description, paper, needs, budgets, variants, options with defaults."""
    return METHODS.get(name).page()


def _shared_out(methods: Mapping[str, Method], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options by method, "dtd.k" to dtd and "k" to the only method that has it."""
    shared: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for key, value in options.items():
        owner, dot, option = key.rpartition(".")
        if dot:
            if owner not in methods:
                raise MethodError(f"option {key!r} is for method {owner!r}, which is not one of {', '.join(methods)}")
            owners = [owner]
        elif len(methods) == 1:
            owners = list(methods)
        else:
            owners = [name for name, method in methods.items() if option in method.options.model_fields]
        if len(owners) > 1:
            choices = " or ".join(f"{owner}.{option}" for owner in owners)
            raise MethodError(f"option {option!r} belongs to several methods; write {choices}")
        if not owners:
            known = [f"{name}.{field}" for name, method in methods.items() for field in method.options.model_fields]
            raise MethodError(
                f"unknown option {option!r}; options: {', '.join(known) or 'none'}{nearest(option, known)}"
            )
        shared[owners[0]][option] = value
    return shared


def _budgets(method: Method, given: Mapping[str, float | int | None]) -> dict[str, float | int]:
    """The budgets that were given; refused where the method does not take them."""
    takes = budgets_of(method.options)
    budgets = {name: value for name, value in given.items() if value is not None}
    for budget in budgets:
        if budget not in takes:
            raise MethodError(
                f"method {method.name!r} cannot be given {budget}: it takes {', '.join(takes) or 'no budget'}; "
                f"`tokcli methods` shows which take {budget}"
            )
    return budgets
