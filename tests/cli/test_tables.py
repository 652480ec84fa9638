"""Tables that go to a pipe: as wide as asked for, every name whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokcli.cli import catalog, output, tune_display
from tokcli.models import list_models

Tokcli = Callable[..., Any]


@pytest.mark.parametrize(("columns", "width"), [("", 120), ("200", 120), ("100", 100), ("20", 80), ("wide", 120)])
def test_a_pipe_is_80_to_120_columns_wide(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    def no_terminal(_descriptor: int) -> Any:
        raise OSError("Inappropriate ioctl for device")

    monkeypatch.setattr(output.os, "get_terminal_size", no_terminal)
    monkeypatch.setenv("COLUMNS", columns)
    assert output.width_of_pipe() == width


@pytest.mark.parametrize("command", ["methods", "models"])
def test_lists_fit_and_hold_every_name(tokcli: Tokcli, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(output.results, "width", 120)
    wide = tokcli(command).stdout
    assert max(map(len, wide.splitlines())) <= 120
    monkeypatch.setattr(output.results, "width", 80)
    narrow = tokcli(command).stdout
    assert len(narrow.splitlines()) > len(wide.splitlines())
    assert sorted(narrow.split()) == sorted(wide.split())
    if command == "models":
        named = {checkpoint for row in list_models() for checkpoint in row["checkpoints"]}
        assert named <= {word.rstrip(",") for word in narrow.split()}


COLUMNS = ("id", "tokens", "state", "what it does")
ROWS = [
    (
        "a/very long/猫/one file.mp4",
        7,
        Text("ok", style="green"),
        "one two  three four, and more than fits in the line",
    ),
    ("[red]b\n.mov", "12,345", Text("missing", style="red"), ""),
    ("c [1] é.mkv", 0, Text("[bold]", style="yellow"), "猫猫猫 猫猫 猫猫猫猫 as wide as two signs each"),
]
STYLES = ("", "bold", "dim")


def by_rich(title: str, columns: tuple[str, ...], widths: list[int]) -> Table:
    """The same table as Rich draws it, a row at a millisecond."""
    drawn = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    drawn.header_style, drawn.show_header, drawn.width = "bold", any(columns), sum(widths) + 2 * (len(widths) - 1)
    for name, width in zip(columns, widths):
        drawn.add_column(Text(name), justify="right" if name == "tokens" else "left", overflow="fold", width=width)
    for row, style in zip(ROWS, STYLES):
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(output.plain(str(cell))) for cell in row), style=style)
    return drawn


def on_screen(console: Console, drawn: Any) -> list[tuple[str, object]]:
    """Each sign with its style; a blank has none to be seen."""
    segments = console.render(drawn)
    return [(sign, segment.style or None if sign.strip() else None) for segment in segments for sign in segment.text]


@pytest.mark.parametrize("columns", [COLUMNS, ("", "tokens", "", ""), ("", "", "", "")])
@pytest.mark.parametrize(
    "title", ["", "A [title]", "A title that is wider than the table, and nevertheless on one line" * 2]
)
@pytest.mark.parametrize(("width", "last"), [(120, 51), (80, 34), (60, 14), (30, 8)])
def test_a_pipe_gets_what_rich_would_print(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    title: str,
    columns: tuple[str, ...],
    width: int,
    last: int,
) -> None:
    monkeypatch.setattr(output, "results", Console(width=width, soft_wrap=True, highlight=False))
    output.results.print(output.table(title, columns, ROWS, right=["tokens"], styles=STYLES))
    printed = capsys.readouterr().out
    output.results.print(by_rich(title, columns, [27, 6, 7, last]))
    assert printed == capsys.readouterr().out
    assert len(printed.splitlines()) >= 3


@pytest.mark.parametrize(("width", "widths"), [(100, [27, 6, 7, 51]), (40, [11, 6, 7, 10]), (12, [2, 2, 1, 1])])
def test_a_terminal_shows_what_rich_would_draw(monkeypatch: pytest.MonkeyPatch, width: int, widths: list[int]) -> None:
    """Of these widths: where not all fits, names are folded as well."""
    console = Console(width=width, soft_wrap=True, highlight=False, force_terminal=True, color_system="truecolor")
    monkeypatch.setattr(output, "results", console)
    drawn = output.table("", COLUMNS, ROWS, right=["tokens"], styles=STYLES)
    assert on_screen(console, drawn) == on_screen(console, by_rich("", COLUMNS, widths))


def test_what_fits_is_left_to_nobody_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich takes a millisecond for a row, and a cache may have a hundred thousand."""

    def wrap(*_: Any, **__: Any) -> None:
        raise AssertionError("a text that fits was folded")

    monkeypatch.setattr(Text, "wrap", wrap)
    rows = [(f"videos/{number:05d}.mp4", "video", number, "1.5%") for number in range(2_000)]
    output.results.print(output.table("", ("id", "kind", "tokens", "share"), rows, right=["tokens", "share"]))
    assert len(capsys.readouterr().out.splitlines()) == 2_001


def test_words_are_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "results", Console(width=30, soft_wrap=True, highlight=False))
    name = "a/very long/path/of/one file/that/is/somewhere.mp4"
    output.results.print(output.table("", ("id", "tokens", "what"), [(name, 7, "one two three")], right=["tokens"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{name}       7  one")
    assert [line.split() for line in lines[2:]] == [["two"], ["three"]]


def test_doctor_cuts_no_word(tokcli: Tokcli) -> None:
    lines = tokcli("doctor").stdout.splitlines()
    assert any(line.split()[:2] == ["transformers", "ok"] for line in lines)
    assert max(map(len, lines)) <= 120


def test_titles_and_cells_may_have_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    output.results.print(output.table("in/[a] 'b'.mov", ("", ""), [("[red]", Text("[bold]", style="green"))]))
    assert capsys.readouterr().out.split() == ["in/[a]", "'b'.mov", "[red]", "[bold]"]


def test_tune_names_every_setting_whole(capsys: pytest.CaptureFixture[str]) -> None:
    tried = {
        "kept_share": 0.168,
        "kept_tokens": 60.5,
        "items": 2,
        "questions": 4,
        "retained": 1.0,
        "ci": (0.316, 1.0),
        "tested": True,
    }
    settings = ["dtd:reference=kept;threshold=0.75", "keyframes:threshold=0.2;coverage=0.9+dtd:threshold=0.5@0.25"]
    rows = [{**tried, "setting": name, "verdict": "round 1: others keep fewer tokens"} for name in settings]
    output.results.print(tune_display._table({"confidence": 0.9, "table": rows}))
    words = capsys.readouterr().out.split()
    assert set(settings) <= set(words)
    assert {"16.8%", "60.5", "answers", "tokens"} <= set(words)


def test_a_model_page_leaves_room_for_what_it_says(tokcli: Tokcli) -> None:
    lines = tokcli("models", "nano").stdout.splitlines()
    family = next(line for line in lines if line.startswith("family"))
    assert family.index("qwen2_5_vl") < 60
    assert sum(line.startswith("equality ") for line in lines) == 2


def test_pages_of_models_show_brackets_as_they_are(monkeypatch: pytest.MonkeyPatch, tokcli: Tokcli) -> None:
    monkeypatch.setattr(catalog, "model_facts", lambda _page: [("media", "[video]")])
    assert "[video]" in tokcli("models", "qwen2_vl").stdout and "\\[" not in tokcli("models", "qwen2_vl").stdout
