"""The table of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from tokcli.cli.output import plain, results, share

if TYPE_CHECKING:
    from tokcli.evaluate.evaluate import Evaluation

Row = dict[str, Any]


def draw_results(evaluation: Evaluation) -> None:
    """Accuracy over all and by kind, what was kept, and the difference to all tokens."""
    rows = evaluation.rows
    whole = [row for row in rows if row["kind"] is None]
    kinds = sorted({row["kind"] for row in rows if row["kind"] is not None})
    told = evaluation.document["evaluation"]
    results.print(
        f"[bold]{escape(plain(str(evaluation.folder)))}[/bold]: {told['questions']} questions about {told['items']} "
        f"items" + (f", {evaluation.failed} items failed" if evaluation.failed else "")
    )
    by_kind = {(_name(row), row["kind"]): row for row in rows}
    agreement = bool(whole) and whole[0]["measure"] == "agreement"
    results.print(_table(whole, kinds, by_kind, agreement))
    for row in whole:
        if row["reason"]:
            results.print(f"[yellow]{escape(_name(row))}[/yellow]: {escape(plain(row['reason']))}")
    results.print("[bold]*[/bold] nothing else has more right answers from as few tokens", soft_wrap=True)


def _table(whole: list[Row], kinds: list[str], by_kind: dict[tuple[str, Any], Row], agreement: bool) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    drawn.add_column("method", overflow="fold")
    drawn.add_column("kept", justify="right", no_wrap=True)
    drawn.add_column("bytes", justify="right", no_wrap=True)
    drawn.add_column("equal" if agreement else "right", justify="right", no_wrap=True)
    drawn.add_column("to all tokens (95%)", justify="right", no_wrap=True)
    if agreement:
        drawn.add_column("KL", justify="right", no_wrap=True)
    fitting = _fitting(kinds, agreement)
    for kind in fitting:
        drawn.add_column(kind, justify="right", no_wrap=True)
    for row in whole:
        cells = [
            f"{'[bold]*[/bold] ' if row['pareto'] else '  '}{escape(_name(row))}",
            "-" if row["kept_tokens"] is None else share(row["kept_tokens"], row["source_tokens"]),
            "-" if row["cache_bytes"] is None else share(row["cache_bytes"], row["source_bytes"]),
            _percent(row["accuracy"]),
            _difference(row),
        ]
        if agreement:
            cells.append("-" if row["kl"] is None else f"{row['kl']:.3f}")
        cells += [_percent(by_kind[_name(row), kind]["accuracy"]) for kind in fitting]
        drawn.add_row(*cells)
    return drawn


def _name(row: Row) -> str:
    name = row["method"] if row["keep"] is None or row["method"] == "full" else f"{row['method']}@{row['keep']:g}"
    return f"{name} = {row['matches']}" if row["matches"] else name


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _difference(row: Row) -> str:
    if row["diff"] is None or row["method"] == "full":
        return "-"
    low, high = row["diff_ci"]
    return f"{100 * row['diff']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _fitting(kinds: list[str], agreement: bool) -> list[str]:
    """The kinds that there is room for."""
    return kinds
