"""The baselines at the number of tokens that a method really kept, item by item."""

from __future__ import annotations

from collections.abc import Sequence

from tokcli.evaluate.runner import Outcome
from tokcli.evaluate.settings import BASELINES, BLIND, FULL, Setting, cache_name
from tokcli.methods import resolve

TOLERANCE = 0.02
"""A method that keeps within this share of what was asked for is compared with the baselines at the same budget."""
DOWNSAMPLE = "downsample"


def matched_settings(
    settings: Sequence[Setting], table: Sequence[Sequence[Outcome]], *, seed: int, encoding: bool
) -> list[Setting]:
    """Baselines for every setting whose size follows the content, or that could not keep as few as asked.

    ``random``, ``uniform`` and ``pool2d`` get the setting's count of each item, ``downsample`` its share of all tokens
    (only where files can be encoded: ``encoding``). What was asked for is what ``uniform`` kept at that budget: the
    share in whole tokens.
    """
    asked = {setting.keep: _kept(outcomes) for setting, outcomes in zip(settings, table) if setting.label == "uniform"}
    found: list[Setting] = []
    for setting, outcomes in zip(settings, table):
        if _is_reference(setting) or any(outcome.error for outcome in outcomes):
            continue
        kept, source = _kept(outcomes), sum(outcome.source_tokens for outcome in outcomes)
        wanted = asked.get(setting.keep) if setting.keep is not None else None
        if not kept or (wanted is not None and abs(kept - wanted) <= TOLERANCE * wanted):
            continue
        counts = {outcome.item: outcome.kept_tokens for outcome in outcomes}
        # A cache that is there may have any codec: bytes compare where the baselines have the same.
        codec = setting.source if setting.method is None and setting.encoder is None else None
        found += [
            Setting(name, matches=setting.name, counts=counts, seed=seed, stored_as=codec)
            for name in BASELINES
            if name != DOWNSAMPLE
        ]
        share = float(f"{kept / source:.3g}")
        if encoding and share < 1:
            encoder = resolve(DOWNSAMPLE, keep=share)
            name = cache_name(DOWNSAMPLE, share)
            found.append(Setting(DOWNSAMPLE, share, source=name, encoder=encoder, matches=setting.name))
    return found


def _is_reference(setting: Setting) -> bool:
    return setting.label in (FULL, BLIND) or setting.label.partition(":")[0] in BASELINES


def _kept(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.kept_tokens for outcome in outcomes)
