"""What is printed of a run that made caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.markup import escape

from tokcli.cli.output import counted, human_bytes, human_seconds, if_read, plain, print_json, results, share, warn

if TYPE_CHECKING:
    from tokcli.pipeline.progress import CompressSummary, Observer, OverBudget

SHOWN = 5
"""Ids that a line names; --json has all."""


def make_caches(run: Callable[[Observer], CompressSummary], allow_errors: bool, *, quiet: bool, as_json: bool) -> int:
    """Run with progress on stderr and the summary on stdout; return the exit code."""
    from tokcli.cli.display import ProgressDisplay
    from tokcli.cli.stopping import stoppable

    with stoppable(), ProgressDisplay(quiet) as display:
        summary = run(display)
    print_summary(summary, quiet, as_json)
    failed = any(one.failed for one in (summary, *summary.also))
    return 3 if failed and not allow_errors else 0


def print_summary(summary: CompressSummary, quiet: bool, as_json: bool) -> None:
    """Print one JSON object, or a few lines for each cache."""
    with if_read():
        if as_json:
            print_json(summary.to_json())
            return
        for one in (summary, *summary.also):
            if not quiet:
                _print_cache(one)
            elif one.failed:
                warn(_failed(one))


def _print_cache(summary: CompressSummary) -> None:
    in_cache = summary.items - summary.failed
    name = escape(plain(summary.output))
    of_part = f", shard {summary.shard}" if summary.shard else ""
    took = f" in {human_seconds(summary.seconds)}" if summary.done else ""
    results.print(
        f"[bold]{name}[/bold]{of_part}: {in_cache:,} of {counted(summary.items, 'item')}"
        f" ({summary.done:,} new, {summary.skipped:,} before, {summary.failed:,} failed),"
        f" {human_seconds(summary.media_seconds)} of media{took}"
    )
    tokens = (
        f"  tokens {summary.source_tokens:,} -> {summary.kept_tokens:,}"
        f" ({share(summary.kept_tokens, summary.source_tokens)} kept)   cache {human_bytes(summary.cache_bytes)}"
    )
    if summary.shard:  # the folder holds more than this part, so its bytes say nothing of the part's
        missing = f"{counted(summary.missing, 'input')} of other shards not there yet"
        results.print(f"{tokens}: {missing if summary.missing else 'all inputs are there'}")
    elif summary.others:  # neither do they of these inputs
        which = "that is" if summary.others == 1 else "that are"
        results.print(f"{tokens}, with {counted(summary.others, 'item')} {which} not among these inputs")
    else:
        results.print(
            f"{tokens}: {share(summary.cache_bytes, summary.token_bytes)}"
            f" of all tokens ({human_bytes(summary.token_bytes)}),"
            f" {share(summary.cache_bytes, summary.source_bytes)} of the source files"
            f" ({human_bytes(summary.source_bytes)})"
        )
    if over := summary.over_budget:
        results.print(f"  {escape(budget_note(over))}", style="yellow")
    if summary.removed:
        named = ", ".join(plain(item_id) for item_id in summary.removed[:SHOWN])
        named += ", ..." if len(summary.removed) > SHOWN else ""
        what = "dropped" if summary.pruned else "in the cache, no longer among the inputs (--prune drops them)"
        results.print(f"  {len(summary.removed):,} {what}: {escape(named)}", style="yellow")
    if summary.failed:
        results.print(f"  {escape(_failed(summary))}", style="yellow")


def budget_note(over: OverBudget) -> str:
    """How many items keep more than was asked for, and the worst of them."""
    return (
        f"{counted(over.items, 'item')} over the budget: the method kept more than --keep {over.keep:g} asks for,"
        f" up to {over.largest_share:.1%} ({plain(over.worst)})"
    )


def _failed(summary: CompressSummary) -> str:
    how = f"`tokcli inspect {plain(summary.output)} --errors` says why, --retry-errors tries again"
    return f"{summary.failed:,} failed: {how}"
