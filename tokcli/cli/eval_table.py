"""The table of an evaluation, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from tokcli.cli.output import counted, human_seconds, plain, results, share

if TYPE_CHECKING:
    from tokcli.evaluate.evaluate import Evaluation

Row = dict[str, Any]
Cell = Callable[[Row], str]
GAP = 2
"""Columns between the columns."""
WORDS = {
    "full": "from all tokens",
    "blind": "without pictures",
    "guess": "the usual answer about other items, no model",
    "chance": "by lot",
}
"""Rows that are no methods."""


def draw_results(evaluation: Evaluation) -> None:
    """Accuracy over all and by kind, what was kept, and the difference to all tokens."""
    rows = evaluation.rows
    told = evaluation.document["evaluation"]
    failed = f", {counted(evaluation.failed, 'item')} failed" if evaluation.failed else ""
    results.print(
        f"[bold]{escape(plain(str(evaluation.folder)))}[/bold]: {counted(told['questions'], 'question')} about "
        f"{counted(told['items'], 'item')}{failed}"
    )
    rows = [*rows, *_chances(rows)]
    lines = _lines([row for row in rows if row["kind"] is None])
    by_kind = {(_key(row), row["kind"]): row for row in rows}
    agreement = lines[0]["measure"] == "agreement"
    columns = _columns(agreement)
    kinds = sorted({row["kind"] for row in rows if row["kind"] is not None})
    of_kinds = [(plain(kind), _of_kind(by_kind, kind)) for kind in kinds]
    # One table where it fits, else kinds in tables of their own.
    results.print(_table(lines, columns + of_kinds if _fits(lines, columns + of_kinds) else columns))
    if not _fits(lines, columns + of_kinds):
        for part in _parts(lines, of_kinds):
            results.print()
            results.print(_table(lines, part))
    for row in lines:
        if row["reason"]:
            results.print(f"[yellow]{escape(_name(row))}[/yellow]: {escape(plain(row['reason']))}")
    results.print(f"[dim]{_explained(lines, agreement)}[/dim]")
    answers = "equal" if agreement else "right"
    results.print(f"[dim]* no other has as many {answers} answers from as few tokens[/dim]")
    matched = next((row for row in lines if row["matches"]), None)
    if matched is not None:
        name, other = (escape(plain(text)) for text in (_name({**matched, "also": []}), matched["matches"]))
        results.print(f"[dim]{name}: as many tokens of every item as {other} kept[/dim]")


def _explained(lines: Sequence[Row], agreement: bool) -> str:
    """What the words of the table mean, those that stand in it."""
    measure = "equal: % of answers that are those from all tokens" if agreement else "right: % of questions"
    methods = {row["method"] for row in lines}
    return "; ".join([measure, *(f"{word}: {meaning}" for word, meaning in WORDS.items() if word in methods)])


def _of_kind(rows: Mapping[tuple[tuple[object, ...], str | None], Row], kind: str) -> Cell:
    return lambda row: _percent(rows[_key(row), kind]["accuracy"])


def _chances(rows: Sequence[Row]) -> list[Row]:
    """A line more, where it is known how often guessing is right; every setting's rows tell the same."""
    first = _key(rows[0])
    nothing = {"keep": None, "matches": None, "kept_tokens": None, "cache_bytes": None, "diff": None, "pareto": False}
    return [
        {**row, **nothing, "method": "chance", "accuracy": row["chance"], "answer_seconds": 0.0, "reason": None}
        for row in rows
        if _key(row) == first and row["measure"] == "accuracy" and rows[0]["chance"] is not None
    ]


def _columns(agreement: bool) -> list[tuple[str, Cell]]:
    columns: list[tuple[str, Cell]] = [
        ("kept", lambda row: _part(row["kept_tokens"], row["source_tokens"])),
        ("bytes", lambda row: _part(row["cache_bytes"], row["source_bytes"])),
        ("equal" if agreement else "right", lambda row: _percent(row["accuracy"])),
        ("to all tokens, 95%", _difference),
    ]
    if agreement:
        columns.append(("KL", lambda row: "-" if row["kl"] is None else f"{row['kl']:.3f}"))
    return [*columns, ("ask", lambda row: human_seconds(row["answer_seconds"]) if row["answer_seconds"] else "-")]


def _lines(rows: Sequence[Row]) -> list[Row]:
    """The rows to draw: baselines that match several settings with the same tokens are one line."""
    lines: dict[object, Row] = {}
    for row in rows:
        key = _key(row)
        if row["matches"]:
            key = (row["method"], "matched", row["kept_tokens"], row["cache_bytes"], row["accuracy"], row["reason"])
        if key in lines:
            lines[key] = {**lines[key], "also": [*lines[key].get("also", []), row["matches"]]}
        else:
            lines[key] = row
    return list(lines.values())


def _table(lines: Sequence[Row], columns: Sequence[tuple[str, Cell]]) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    drawn.add_column("", no_wrap=True, overflow="ellipsis")
    for name, _ in columns:
        drawn.add_column(escape(name), justify="right", no_wrap=True)
    for row in lines:
        style = "bold" if row["pareto"] else ""
        drawn.add_row(escape(_marked(row)), *(cell(row) for _, cell in columns), style=style)
    return drawn


def _width(lines: Sequence[Row], columns: Sequence[tuple[str, Cell]]) -> int:
    names = max(len(_marked(row)) for row in lines)
    return names + sum(GAP + max(len(name), *(len(cell(row)) for row in lines)) for name, cell in columns)


def _fits(lines: Sequence[Row], columns: Sequence[tuple[str, Cell]]) -> bool:
    return _width(lines, columns) <= results.width


def _parts(lines: Sequence[Row], columns: Sequence[tuple[str, Cell]]) -> list[list[tuple[str, Cell]]]:
    """The columns in groups that fit, at least one in each."""
    parts, rest = [], list(columns)
    while rest:
        count = max((n for n in range(1, len(rest) + 1) if _fits(lines, rest[:n])), default=1)
        parts.append(list(islice(rest, count)))
        rest = rest[count:]
    return parts


def _key(row: Row) -> tuple[object, ...]:
    return row["method"], row["keep"], row["matches"]


def _name(row: Row) -> str:
    if not row["matches"]:
        return row["method"] if row["keep"] is None or row["method"] == "full" else f"{row['method']}@{row['keep']:g}"
    matched = [row["matches"], *row.get("also", [])]
    return f"{row['method']} = {matched[0]}" + (f" +{len(matched) - 1}" if len(matched) > 1 else "")


def _marked(row: Row) -> str:
    return ("* " if row["pareto"] else "  ") + plain(_name(row))


def _part(part: float | None, whole: float) -> str:
    return "-" if part is None else share(part, whole)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _difference(row: Row) -> str:
    if row["diff"] is None or row["method"] == "full":
        return "-"
    low, high = row["diff_ci"]
    return f"{100 * row['diff']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
