"""Where words go: results to stdout, everything else to stderr, errors as one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has what it wanted (`tokcli ... | head`): that is no failure."""
        close_stdout()


def close_stdout() -> NoReturn:
    """End quietly after a broken pipe; the interpreter's own flush at exit must find an open file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


# Tables that go to a file or a pipe are not folded to the 80 columns of a terminal that is not there.
results = _Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
"""stdout: what was asked for."""
notices = Console(stderr=True, highlight=False)
"""stderr: progress, notes, errors."""


def print_json(document: object) -> None:
    """One JSON document on one line of stdout; never wrapped or coloured."""
    try:
        sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()


def note(text: str) -> None:
    notices.print(f"[dim]{escape(text)}[/dim]", soft_wrap=True)


def warn(text: str) -> None:
    notices.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)


def fail(text: str) -> None:
    notices.print(f"[bold red]error:[/bold red] {escape(text)}", soft_wrap=True)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], right: Iterable[str] = ()) -> Table:
    """A plain table; columns named in ``right`` are aligned right, as numbers are."""
    columns = list(columns)
    named = any(columns)
    drawn = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=named
    )
    for name in columns:
        drawn.add_column(name, justify="right" if name in set(right) else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(plain(str(cell))) for cell in row))
    return drawn


def plain(text: str) -> str:
    """``text`` with control characters escaped: a file's name must not move the cursor or break a line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """3725 -> '1h02m'."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def share(part: float, whole: float) -> str:
    """A percentage, or a dash where there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def show(document: Any, as_json: bool, draw: Callable[[], None]) -> None:
    """Print the document for machines or draw it for people."""
    if as_json:
        print_json(document)
    else:
        draw()
