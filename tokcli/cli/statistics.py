"""Statistics of a cache and of its items, for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tokcli.cli.output import human_seconds, results, share, table

LEVELS = "▁▂▃▄▅▆▇█"
NOTHING = "·"
MAX_SIGNS = 60

Facts = list[tuple[str, str]]


def sparkline(shares: Sequence[float | None]) -> str:
    """A sign for each value of 0 to 1, in eighths, rounded up; a dot for nothing, a space for unknown."""
    return "".join(" " if share is None else _sign(share) for share in shares)


def _sign(share: float) -> str:
    # A share a rounding error above an eighth is that eighth.
    level = math.ceil(8 * share - 1e-9)
    return LEVELS[min(level, 8) - 1] if level > 0 else NOTHING


def table_facts(statistics: dict[str, Any]) -> Facts:
    """Lines of `tokcli inspect CACHE`: what the table of items tells."""
    facts: Facts = []
    if rates := statistics["tokens_per_second"]:
        facts.append(("per second", f"{rates['kept']:,.1f} of {rates['source']:,.1f} tokens"))
    if shares := statistics["kept_share"]:
        low, median, high = (share(shares[name], 1) for name in ("min", "median", "max"))
        facts.append(
            ("per item", f"{statistics['tokens_per_item']:,.1f} tokens; {low} to {high} kept, median {median}")
        )
    if statistics["drop_ratio"] is not None:
        noted = f"; {statistics['triggers']} changes of scene noted" if statistics["triggers"] is not None else ""
        facts.append(("dropped", f"{share(statistics['drop_ratio'], 1)} of a step after the first{noted}"))
    return facts + _density(statistics, "item")


def sample_facts(sample: dict[str, Any]) -> Facts:
    """Lines of `tokcli inspect CACHE --tokens`: what a sample of the items tells."""
    facts: Facts = []
    dropped = sample["drop_ratio_by_tenth"]
    if sample["scene_cuts_per_minute"] is not None:
        kept = [None if ratio is None else 1 - ratio for ratio in dropped]
        known = [ratio for ratio in dropped if ratio is not None]
        ends = f"dropped {share(known[0], 1)} in the first tenth, {share(known[-1], 1)} in the last"
        facts.append(("kept over time", f"{sparkline(kept)}  {ends}"))
        facts.append(("scene cuts", f"{sample['scene_cuts']}, {sample['scene_cuts_per_minute']:.1f} a minute"))
    return [*facts, *_space(sample)]


def item_facts(item: dict[str, Any], statistics: dict[str, Any]) -> Facts:
    """Lines of `tokcli inspect CACHE ITEM`."""
    kept, source = item["kept_tokens"], item["source_tokens"]
    facts: Facts = [
        ("kind", f"{item['kind']}, {item['codec']}, {human_seconds(item['duration_seconds'])}"),
        ("tokens", f"{source:,} -> {kept:,} ({share(kept, source)} kept)"),
    ]
    if rates := statistics["tokens_per_second"]:
        facts.append(("per second", f"{rates['kept']:,.1f} of {rates['source']:,.1f} tokens"))
    if timeline := statistics["timeline"]:
        signs, ruler, steps = timeline_rows(timeline["seconds"], timeline["drop_ratio"])
        unit = "temporal step" if steps == 1 else f"{steps} temporal steps, the fullest of them"
        facts += [("kept over time", signs), ("", ruler), ("", f"a sign is a {unit}; full height: all tokens kept")]
        facts.append(("scene cuts", _times(statistics["scene_cut_seconds"])))
    if statistics["trigger_seconds"] is not None:
        facts.append(("noted changes", _times(statistics["trigger_seconds"])))
    return [*facts, *_space(statistics), *_density(statistics, "item")]


def timeline_rows(seconds: Sequence[float], drop_ratio: Sequence[float]) -> tuple[str, str, int]:
    """A sparkline of what is kept of each step, the times of its first and last sign below, and steps for a sign."""
    steps = -(-len(seconds) // MAX_SIGNS)
    starts = range(0, len(seconds), steps)
    signs = sparkline([1 - min(drop_ratio[start : start + steps]) for start in starts])
    first, last = f"{seconds[0]:.1f}s", f"{seconds[starts[-1]]:.1f}s"
    return signs, first if len(signs) == 1 else first + last.rjust(max(len(signs) - len(first), len(last) + 1)), steps


def draw_statistics(title: str, facts: Facts) -> None:
    results.print(table(title, ("", ""), facts))


def _space(statistics: dict[str, Any]) -> Facts:
    facts: Facts = []
    if statistics["rank_tokens"]:
        rank, tokens = statistics["effective_rank"], statistics["rank_tokens"]
        facts.append(("effective rank", f"{rank:,.1f} of {tokens:,.0f} tokens"))
    if coverage := statistics["coverage"]:
        parts = (f"{name} {share(part['share'], 1)} ({share(part['even'], 1)})" for name, part in coverage.items())
        facts.append(("where (if even)", ", ".join(parts)))
    return facts


def _density(statistics: dict[str, Any], of: str) -> Facts:
    if statistics["tok_dense"] is None:
        return []
    return [("TokDense", f"{statistics['tok_dense']:.3g} points of accuracy for a visual token of an {of}")]


def _times(seconds: Sequence[float]) -> str:
    return ", ".join(f"{moment:.1f}s" for moment in seconds) or "none"
