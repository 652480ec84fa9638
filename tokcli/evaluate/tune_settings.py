"""What is tried: every method at every budget that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokcli.errors import UsageError
from tokcli.evaluate.settings import Entry, Setting, parse_entry
from tokcli.methods import resolve
from tokcli.methods.base import METHODS
from tokcli.methods.budget import budgets_of
from tokcli.recipe import TuneRecipe

DEFAULT_METHODS = ("dtd", "dtd:reference=kept", "evs", "uniform", "pool2d")
DEFAULT_KEEP = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
DEFAULT_THRESHOLD = (0.9, 0.7, 0.5, 0.3)


@dataclass(frozen=True)
class Candidate:
    """A setting, and what `tokcli compress` would be told to use it."""

    setting: Setting
    method: str
    keep: float | None = None
    threshold: float | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.setting.name

    def to_json(self) -> dict[str, Any]:
        """The keys of a recipe's ``compress`` step; budgets that were not given are left out."""
        budgets = {"keep": self.keep, "threshold": self.threshold}
        given = {name: value for name, value in budgets.items() if value is not None}
        return {"method": self.method, **given, **({"options": self.options} if self.options else {})}


def candidates(recipe: TuneRecipe) -> list[list[Candidate]]:
    """For each method its budgets: shares from the largest down, thresholds as they were given, in lists of their own.

    Raises ``MethodError`` or ``UsageError`` for what cannot be tried, before anything is decoded.
    """
    shares = sorted(set(recipe.keep or DEFAULT_KEEP), reverse=True)
    thresholds = list(dict.fromkeys(recipe.threshold or DEFAULT_THRESHOLD))
    chains = []
    for text in dict.fromkeys(recipe.methods or DEFAULT_METHODS):
        entry = parse_entry(text, recipe.options)
        # Names are checked first: an unknown one has no budgets to ask for.
        takes = budgets_of(METHODS.get(entry.last).options)
        by_share = [_candidate(entry, recipe.seed, keep=share) for share in shares if "keep" in takes]
        by_threshold = [_candidate(entry, recipe.seed, threshold=t) for t in thresholds if "threshold" in takes]
        chains += [[_candidate(entry, recipe.seed)]] if entry.own_budget else [by_share, by_threshold]
        if not entry.own_budget and not by_share and not by_threshold:
            chains.append([_candidate(entry, recipe.seed)])
    return [chain for chain in chains if chain]


def _candidate(entry: Entry, seed: int, *, keep: float | None = None, threshold: float | None = None) -> Candidate:
    compressor = resolve(entry.spec, keep=keep, threshold=threshold, options=entry.options, seed=seed)
    if compressor.before_tokens:
        raise UsageError(
            f"method {entry.label!r} changes the frames before the encoder, so each of its budgets would encode the "
            "whole sample again; leave it out and compare it by `tokcli eval`"
        )
    label = entry.label
    if threshold is not None:
        label += f"{';' if ':' in label else ':'}threshold={threshold:g}"
    share = entry.share if keep is None else keep
    return Candidate(Setting(label, share, method=compressor), entry.spec, keep, threshold, dict(entry.options))
