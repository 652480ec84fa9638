"""Which questions are put to which items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokcli.errors import UsageError
from tokcli.pipeline.conversations import CONVERSATION_KEYS, Turn, read_conversation
from tokcli.recipe import InferRecipe

TEXT_KEYS = ("prompt", "question")
ITEM_KEYS = ("id", "item", "video", "image", "path")


@dataclass(frozen=True)
class Prompt:
    """One question, to every item or to one."""

    text: str
    item: str | None = None
    """Id of the item that it is for, or the end of it after a slash; None: for all."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other keys of the prompts file (``answer``, ``kind``), carried into the output as ``expected`` and so on."""
    before: tuple[Turn, ...] = ()
    """What is asked first, in the same conversation."""
    system: str | None = None
    """The conversation's own system message."""

    @property
    def conversation(self) -> str | None:
        """What tells this conversation from others that end in the same question; None for a single question."""
        if not self.before and self.system is None:
            return None
        parts = [self.system, [list(turn) for turn in self.before], self.text]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def load_prompts(recipe: InferRecipe) -> list[Prompt]:
    """The recipe's own prompts, or those of its file.

    A text file has a prompt a line. A ``.jsonl`` file has an object a line with ``prompt`` (or ``question``) and, for a
    question to one item, ``id`` (or ``video``, ``image``, ``path``); or with ``messages``, a conversation. A ``.json``
    file holds one such object, or the messages alone. Raises ``UsageError`` for an empty or bad line.
    """
    if recipe.prompts is None:
        return [Prompt(text) for text in recipe.prompt]
    path = Path(recipe.prompts)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot read the prompts: {reason}") from None
    if path.suffix == ".json":
        return [_parse_object(text, str(path))]
    lines = lines_of(text)
    if not lines:
        raise UsageError(f"{path}: no prompts in it; write one a line")
    parse = _parse_object if path.suffix in (".jsonl", ".ndjson") else _parse_line
    return [parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def lines_of(text: str) -> list[str]:
    """Lines as files have them: what else Unicode calls the end of a line, ``str.splitlines`` too, may be in a text."""
    return text.removesuffix("\n").split("\n") if text else []


def _parse_line(line: str, where: str) -> Prompt:
    if not line.strip():
        raise UsageError(f"{where}: empty line; every line is a prompt, remove it")
    return Prompt(line.strip())


def _parse_object(line: str, where: str) -> Prompt:
    if not line.strip():
        raise UsageError(f"{where}: empty line; every line is a JSON object with a prompt, remove it")
    try:
        data = json.loads(line)
    except ValueError:
        raise UsageError(f"{where}: not a JSON object") from None
    if isinstance(data, list) and where.endswith(".json"):
        data = {"messages": data}
    if not isinstance(data, dict):
        raise UsageError(f"{where}: not a JSON object")
    item = next((str(data[key]) for key in ITEM_KEYS if key in data), None)
    known = {*TEXT_KEYS, *ITEM_KEYS, *CONVERSATION_KEYS}
    extra = {key: value for key, value in data.items() if key not in known}
    if messages := next((data[key] for key in CONVERSATION_KEYS if key in data), None):
        system, before, last = read_conversation(messages, where)
        return Prompt(last, item, extra, before, system)
    text = next((data[key] for key in TEXT_KEYS if key in data), None)
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where}: needs a non-empty 'prompt' or 'question'")
    return Prompt(text.strip(), item, extra)


@dataclass(frozen=True)
class Question:
    """A prompt with the item, or the group of items, that it is put to."""

    item_id: str
    prompt: Prompt
    problem: str | None = None
    """Why it can't be asked."""

    @property
    def key(self) -> tuple[str, str]:
        return self.item_id, self.prompt.conversation or self.prompt.text


def questions(prompts: Iterable[Prompt], ids: list[str]) -> tuple[list[Question], list[str]]:
    """Every pair of item and prompt, item by item, each pair once; and names of items that are not among ``ids``."""
    general, by_item, missing = [], {item_id: [] for item_id in ids}, []  # type: ignore[var-annotated]
    names = ItemNames(ids)
    for prompt in prompts:
        if prompt.item is None:
            general.append(prompt)
        elif (found := names.find(prompt.item)) is not None:
            by_item[found].append(prompt)
        else:
            missing.append(prompt.item)
    asked = {q.key: q for item_id in ids for q in _of_item(item_id, general + by_item[item_id])}
    return list(asked.values()), missing


def _of_item(item_id: str, prompts: list[Prompt]) -> Iterator[Question]:
    for prompt in prompts:
        yield Question(item_id, prompt)


class ItemNames:
    """Finds an id by itself or by its last parts, if those belong to one id only."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = set(ids)

    def find(self, name: str) -> str | None:
        """The one id that ``name`` is, that ends with it, or that it ends with; None for none or several."""
        if name in self.ids:
            return name
        matching = [*self._by_end.get(name, ()), *(end for end in _ends(name) if end in self.ids)]
        return matching[0] if len(matching) == 1 else None

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Ids by each of their ends, so that a name costs no look at all ids whose files are called alike."""
        found: dict[str, list[str]] = {}
        for item_id in self.ids:
            for end in _ends(item_id):
                found.setdefault(end, []).append(item_id)
        return found


def _ends(path: str) -> Iterator[str]:
    """What follows each slash."""
    return (path[place + 1 :] for place, sign in enumerate(path) if sign == "/")
