"""Progress and results of a search for a setting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.segment import Segments

from tokcli.cli.eval_display import EvalDisplay, _Steps
from tokcli.cli.output import counted, human_seconds, plain, results, table

if TYPE_CHECKING:
    from tokcli.evaluate.observer import EvalSteps
    from tokcli.evaluate.tune_report import Tuning

Row = dict[str, Any]


class TuneDisplay(EvalDisplay):
    """Draws the encoding, and a bar for every round; how many rounds there will be nobody knows."""

    @contextlib.contextmanager
    def answering(self, outcomes: int, known: int) -> Iterator[EvalSteps]:
        with _Steps(outcomes, drawn=not self.quiet and outcomes > known) as steps:
            yield steps


def draw_tuning(tuning: Tuning) -> None:
    """What was tried, what was chosen, what it took."""
    document = tuning.document
    failed = f", {document['failed']} more failed" if document["failed"] else ""
    results.print(
        f"[bold]{escape(plain(str(tuning.folder)))}[/bold]: {document['sample']} of"
        f" {counted(document['inputs'], 'item')}{failed};"
        f" searched on {document['search_items']}, tested on {document['test_items']} others"
    )
    for number, counts in enumerate(document["rounds"], 1):
        results.print(
            f"  round {number}: {counted(counts['settings'], 'setting')} on {counted(counts['items'], 'item')},"
            f" {counted(counts['methods_left'], 'method')} left"
        )
    results.print(_table(document))
    _draw_choice(document)
    late = ", [yellow]out of time[/yellow]" if document["out_of_time"] else ""
    ratio = "-" if document["ratio"] is None else f"{document['ratio']:.2f}"
    results.print(
        f"encoding {human_seconds(document['encode_seconds'])}, methods and answers"
        f" {human_seconds(document['answer_seconds'])}: ratio {ratio}{late}"
    )


def _table(document: Row) -> Segments:
    retained = f"retained [{100 * document['confidence']:g}% either way]"
    numbers = ("kept", "tokens", "items", "answers", retained)
    rows = [row for row in sorted(document["table"], key=_order) if row["items"]]
    cells = [
        (
            row["setting"],
            _percent(row["kept_share"]),
            "-" if row["kept_tokens"] is None else f"{row['kept_tokens']:.1f}",
            row["items"],
            row["questions"],
            _retained(row),
            row["verdict"],
        )
        for row in rows
    ]
    styles = ["bold" if row["verdict"].startswith("chosen") else "" if row["tested"] else "dim" for row in rows]
    return table("", ("setting", *numbers, "verdict"), cells, right=numbers, styles=styles)


def _order(row: Row) -> tuple[bool, int, float]:
    """What was tested first, then by how far it came; most tokens first, as the tests go."""
    return not row["tested"], -row["items"], -(row["kept_share"] or 0.0)


def _retained(row: Row) -> str:
    if row["retained"] is None:
        return "-"
    low, high = row["ci"]
    return f"{100 * row['retained']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _draw_choice(document: Row) -> None:
    untried = sum(not row["items"] for row in document["table"])
    if untried:
        results.print(f"[dim]{untried} more were not tried: other budgets of their methods said enough[/dim]")
    asked = f"{document['retain']:.1%} of the answers, sure to {document['confidence']:.0%}"
    if document["ci"] is None:
        results.print(f"[yellow]chosen: none[/yellow], all tokens are kept (asked for {asked})")
    else:
        low, high = document["ci"]
        mark = "[bold green]chosen[/bold green]" if document["certain"] else "[yellow]chosen, but uncertain[/yellow]"
        results.print(
            f"{mark}: keeps {document['kept_share']:.1%} of the tokens and {document['retained']:.1%} of the answers,"
            f" {low:.1%} at least, {high:.1%} at most (asked for {asked})"
        )
    if document["advice"]:
        results.print(f"[yellow]advice[/yellow]: {escape(plain(document['advice']))}")
    results.print(f"  {escape(plain(document['command']))}")
    results.print(f"  tokcli run {escape(plain(document['recipe']))}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
