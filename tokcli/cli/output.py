"""Where words go: results to stdout, everything else to stderr, errors as one line."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.segment import Segment, Segments
from rich.text import Text

from tokcli.errors import TokcliError

GAP = 2
"""Blanks between the columns of a table."""


class UnreadError(SystemExit):
    """Ends a command quietly whose reader has what it wanted (`tokcli ... | head`): that is no failure."""


class _Results(Console):
    def _check_buffer(self) -> None:  # all that is printed passes here
        with _to_stdout():
            super()._check_buffer()

    def on_broken_pipe(self) -> None:
        close_stdout()


class _Notices(Console):
    """Goes on without a word where stderr is a closed pipe, a full disk or a terminal that is gone: work is not to be
    lost because nobody can read about it."""

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError:
            _to_nowhere(sys.stderr)

    def on_broken_pipe(self) -> None:
        _to_nowhere(sys.stderr)


@contextlib.contextmanager
def _to_stdout() -> Iterator[None]:
    """Around what writes there. Raises ``UnreadError`` where nobody reads it, ``TokcliError`` where it cannot be."""
    try:
        yield
    except BrokenPipeError:
        close_stdout()
    except OSError as error:
        _to_nowhere(sys.stdout)
        raise TokcliError(f"cannot write to stdout: {error.strerror}") from error


def _open_missing_streams() -> None:
    """Open to nowhere what this process was started without (`>&-`): else the next files that it opens, a shard too,
    would get the numbers 1 and 2, and libraries print there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def _to_nowhere(stream: TextIO) -> None:
    """What is written from here on is dropped; the interpreter's own flush at exit must find an open file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def close_stdout() -> NoReturn:
    """After a broken pipe: drop what else would be printed. Raises ``UnreadError``."""
    _to_nowhere(sys.stdout)
    raise UnreadError(0)


def if_read() -> contextlib.AbstractContextManager[None]:
    """Around what is printed when the work is done: that nobody reads it changes nothing of how a command ends."""
    return contextlib.suppress(UnreadError)


def width_of_pipe() -> int:
    """Columns of tables that go to a file or a pipe: those of the terminal behind it within 80 to 120, else 120."""
    columns = os.environ.get("COLUMNS", "")
    with contextlib.suppress(OSError, ValueError):
        columns = columns or str(os.get_terminal_size(sys.__stderr__.fileno() if sys.__stderr__ else 2).columns)
    return min(max(80, int(columns)), 120) if columns.isdigit() else 120


_open_missing_streams()
results = _Results(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else width_of_pipe())
"""stdout: what was asked for."""
notices = _Notices(stderr=True, highlight=False)
"""stderr: progress, notes, errors."""


def print_json(document: object) -> None:
    """One JSON document on one line of stdout; never wrapped or coloured."""
    with _to_stdout():
        sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()


def note(text: str) -> None:
    notices.print(f"[dim]{escape(text)}[/dim]", soft_wrap=True)


def warn(text: str) -> None:
    notices.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)


def fail(text: str) -> None:
    notices.print(f"[bold red]error:[/bold red] {escape(text)}", soft_wrap=True)


def table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    right: Iterable[str] = (),
    styles: Iterable[str] = (),
) -> Segments:
    """A plain table; columns named in ``right`` are aligned right, as numbers are. A cell may be a ``Text`` for its
    style, a row have one of ``styles``. Looks as Rich's own, which takes a millisecond for a row.

    Elsewhere than on a terminal no name and no word is cut, however long: whoever searches the lines has to find
    it.
    """
    columns, right = list(columns), set(right)
    body = [[cell if isinstance(cell, Text) else plain(str(cell)) for cell in row] for row in rows]
    widths = _widths([columns, *([str(cell) for cell in row] for row in body)], results.width)
    lines = [Segment(f"{title}\n")] if title else []
    aligned = [(width, name in right) for name, width in zip(columns, widths)]
    if any(columns):
        lines += _drawn(columns, aligned, "bold", low=True)
    for row, style in zip(body, itertools.chain(styles, itertools.repeat(""))):
        lines += _drawn(row, aligned, style)
    return Segments(lines)


def _widths(rows: Sequence[Sequence[str]], space: int) -> list[int]:
    """Widths of columns that fit into ``space`` with two blanks between them; elsewhere than on a terminal if the
    longest words let them.

    The first column, of names, is left as it is there: those of files may have blanks in them.
    """
    columns = list(zip(*rows))
    widths = [max(map(cell_len, column)) for column in columns]
    space -= GAP * (len(widths) - 1)
    if sum(widths) <= space:
        return widths
    least = [min(1, width) for width in widths]
    if not results.is_terminal:
        least = [max(cell_len(word) for cell in column for word in cell.split(" ")) for column in columns]
        least[0] = widths[0]
    while sum(widths) > space and widths != least:
        _, _, widest = max((width > low, width, number) for number, (width, low) in enumerate(zip(widths, least)))
        widths[widest] -= 1
    return widths


def _drawn(
    cells: Sequence[str | Text], aligned: Sequence[tuple[int, bool]], style: str, low: bool = False
) -> Iterator[Segment]:
    """The lines of a row, each column of a width and to the right or not; ``low``: texts of fewer lines at its foot."""
    parts = [_folded(str(cell), width, to_right) for cell, (width, to_right) in zip(cells, aligned)]
    height = max(map(len, parts))
    for part, (width, _) in zip(parts, aligned):
        blanks = [" " * width] * (height - len(part))
        part[:] = [*blanks, *part] if low else [*part, *blanks]
    styles = [results.get_style(f"{style} {cell.style}" if isinstance(cell, Text) else style) for cell in cells]
    for line in zip(*parts):
        for text, text_style, end in zip(line, styles, [*[" " * GAP] * (len(line) - 1), "\n"]):
            yield Segment(text + end, text_style)


def _folded(text: str, width: int, to_right: bool) -> list[str]:
    """The text in lines of this width."""
    lines = [text]
    if cell_len(text) > width:
        lines = [line.plain.rstrip() for line in Text(text).wrap(results, width, overflow="fold")]
    blanks = [" " * (width - cell_len(line)) for line in lines]
    return [blank + line if to_right else line + blank for blank, line in zip(blanks, lines)]


def plain(text: str) -> str:
    """``text`` with control characters escaped: a file's name must not move the cursor or break a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def counted(count: int, what: str) -> str:
    """1 -> '1 item', 1200 -> '1,200 items'."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


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
    """Print the document for machines or draw it for people; what is done behind it is done though nobody reads it."""
    with if_read():
        if as_json:
            print_json(document)
        else:
            draw()
