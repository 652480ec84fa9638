"""Questions to a small cache, and the rows that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokcli.pipeline.infer import InferSummary, infer
from tokcli.recipe import InferRecipe

PROMPTS = ["What color is the circle?", "How many objects are there?", "Which way does the square move?"]
TIMES = ("seconds",)


def ask(cache: Path, **settings: Any) -> list[dict[str, Any]]:
    return run(cache, **settings)[0]


def run(cache: Path, **settings: Any) -> tuple[list[dict[str, Any]], InferSummary]:
    rows: list[dict[str, Any]] = []
    given = {"prompt": PROMPTS[:1]} | settings if "prompts" not in settings else settings
    summary = infer(InferRecipe(cache=str(cache), dtype="float32", device="cpu", **given), on_row=rows.append)
    return sorted(rows, key=lambda row: row["id"]), summary


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    kept = [{key: value for key, value in row.items() if key not in (*TIMES, *names)} for row in rows]
    return sorted(kept, key=lambda row: (row["id"], row["prompt"]))
