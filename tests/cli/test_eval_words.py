"""The words of the table of `tokcli eval` are explained under it, and in its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokcli.cli.eval_table import draw_results
from tokcli.evaluate.evaluate import Evaluation


def row(method: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "method": method,
        "keep": None,
        "matches": None,
        "kind": None,
        "accuracy": 0.5,
        "chance": None,
        "measure": "accuracy",
        "kept_tokens": 10,
        "source_tokens": 20,
        "cache_bytes": 5,
        "source_bytes": 50,
        "diff": None,
        "kl": None,
        "answer_seconds": 1.0,
        "pareto": False,
        "reason": None,
    }
    return values | changes


def drawn(capsys: pytest.CaptureFixture[str], *rows: dict[str, Any]) -> str:
    told = {"questions": 4, "items": 2}
    draw_results(Evaluation({"results": list(rows), "evaluation": told}, Path("eval"), 0))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "% of" in line]
    return line


def test_every_row_that_is_no_method_is_explained_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(name, chance=0.25) for name in ("full", "evs", "blind", "guess")]
    assert drawn(capsys, *rows) == (
        "right: % of questions; full: from all tokens; blind: without pictures; guess: the usual answer "
        "about other items, no model; chance: by lot"
    )
    assert drawn(capsys, row("full"), row("evs")) == "right: % of questions; full: from all tokens"


def test_agreement_is_explained_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    line = drawn(capsys, row("full", measure="agreement"), row("blind", measure="agreement"))
    assert line == "equal: % of answers that are those from all tokens; full: from all tokens; blind: without pictures"


def test_the_help_explains_them(tokcli: Callable[..., Any]) -> None:
    words = " ".join(tokcli("eval", "--help").stdout.split())
    for text in (
        "full: from all tokens",
        "blind: without pictures",
        "guess: ",
        "chance: ",
        "% of questions",
    ):
        assert text in words, text
