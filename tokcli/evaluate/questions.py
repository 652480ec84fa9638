"""Questions with their right answers, from JSON lines as lmms-eval's tasks and `tokcli render` write them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokcli.errors import UsageError
from tokcli.pipeline.prompts import lines_of

TEXT_KEYS = ("question", "prompt")
ANSWER_KEYS = ("answer", "answers")
OPTION_KEYS = ("options", "candidates", "choices")
ITEM_KEYS = ("video", "image", "path", "video_path", "image_path", "video_id", "id", "item")
"""In this order: files of tasks often have an ``id`` of the question beside the name of the video."""
KIND_KEYS = ("kind", "category", "question_category", "task_type", "question_type")
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One question about one item."""

    number: int
    """Its place in the file, from 0."""
    text: str
    items: tuple[str, ...]
    """Names that may be those of its item, the likeliest first; none for a prompt to every item."""
    answers: tuple[str, ...] = ()
    """Accepted answers; with options the right one alone. Empty where nobody knows."""
    options: tuple[str, ...] = ()
    """What a multiple-choice question offers; empty for an open one."""
    correct: int | None = None
    """Number of the right option."""
    kind: str | None = None
    chance: float | None = None
    """How often guessing is right, where the file or the number of options tells it."""


def read_questions(path: Path, *, labelled: bool) -> list[Question]:
    """The questions of a ``.jsonl`` file, a JSON object a line.

    ``labelled`` asks for an answer in every row. Raises ``UsageError`` that names file and line for a row that cannot
    be used.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the questions: {getattr(error, 'strerror', None) or error}") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UsageError(f"{path}: no questions in it; write a JSON object a line")
    return [_question(index, line, f"{path}:{number}", labelled) for index, (number, line) in enumerate(rows)]


def general_questions(prompts: Sequence[str], first: int = 0) -> list[Question]:
    """Prompts to every item, without right answers."""
    return [Question(first + number, prompt, ()) for number, prompt in enumerate(prompts)]


def _question(index: int, line: str, where: str, labelled: bool) -> Question:
    try:
        row = json.loads(line)
    except ValueError:
        raise UsageError(f"{where}: not a JSON object") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: not a JSON object")
    text = _first(row, TEXT_KEYS)
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where}: needs a non-empty 'question'")
    items = tuple(str(row[key]) for key in ITEM_KEYS if row.get(key) not in (None, ""))
    if not items:
        raise UsageError(f"{where}: needs the item that it is about, as 'video', 'image', 'path' or 'id'")
    answer, offered = _first(row, ANSWER_KEYS), _first(row, OPTION_KEYS)
    if answer in (None, [], "") and labelled:
        raise UsageError(f"{where}: needs an 'answer'; without right answers, use --against full")
    options, letters = _options(offered, where)
    correct = None if not options or answer in (None, [], "") else _correct(answer, options, letters, where)
    kind = _first(row, KIND_KEYS)
    return Question(
        number=index,
        text=text.strip(),
        items=items,
        answers=_answers(answer, where) if correct is None else (options[correct],),
        options=options,
        correct=correct,
        kind=None if kind is None else str(kind),
        chance=_chance(row.get("chance"), options, where),
    )


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _answers(answer: Any, where: str) -> tuple[str, ...]:
    listed = answer if isinstance(answer, list) else [] if answer in (None, "") else [answer]
    if any(isinstance(value, (dict, list)) for value in listed):
        raise UsageError(f"{where}: 'answer' must be text, a number, or a list of those")
    return tuple(dict.fromkeys(str(value) for value in listed))


def _options(offered: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options' texts, and the letters that stand for them."""
    if offered in (None, [], {}):
        return (), ()
    if isinstance(offered, dict):
        return tuple(str(text) for text in offered.values()), tuple(str(key) for key in offered)
    if not isinstance(offered, list) or len(offered) < 2:
        raise UsageError(f"{where}: 'options' must be a list of at least two, or an object by letter")
    texts = tuple(str(text) for text in offered)
    letters = tuple(chr(ord("A") + number) for number in range(len(texts)))
    found = [_LETTERED.fullmatch(text) for text in texts]
    if [match and match.group(1) for match in found] == list(letters):
        # "A. A dog", "B. A cat": what is likely is the text, not its letter.
        texts = tuple(match.group(2) for match in found if match)
    return texts, letters


def _correct(answer: Any, options: Sequence[str], letters: Sequence[str], where: str) -> int:
    """The number of the right option: by its text, else its letter, else its number from 0."""
    value = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    text = str(value).strip()
    lettered = _LETTERED.fullmatch(text)
    for known, wanted in (
        (list(options), text),
        (list(letters), text.strip("().: ")),
        (list(options), lettered.group(2) if lettered else text),
        ([str(number) for number in range(len(options))], text),
    ):
        if wanted in known:
            return known.index(wanted)
    raise UsageError(f"{where}: the answer {value!r} is none of the options {', '.join(map(repr, options))}")


def _chance(value: Any, options: Sequence[str], where: str) -> float | None:
    if value is None:
        return 1 / len(options) if options else None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not 0 <= value <= 1
    ):
        raise UsageError(f"{where}: 'chance' must be a number from 0 to 1, got {value!r}")
    return float(value)
