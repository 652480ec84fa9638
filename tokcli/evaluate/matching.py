"""Which questions are about which items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from tokcli.errors import UsageError
from tokcli.evaluate.questions import Question
from tokcli.pipeline.prompts import ItemNames


def by_item(questions: Sequence[Question], ids: Sequence[str]) -> tuple[dict[str, list[Question]], list[str]]:
    """Questions by item, in the order of ``ids``, items without any left out; and names that are no item.

    A name is an id or the end of one after a slash, with or without the file's ending, if that is one item's only; a
    folder in it must be the item's. Raises ``UsageError`` where no question has an item.
    """
    names, stems = ItemNames(ids), _Stems(ids)
    found: dict[str, list[Question]] = {item_id: [] for item_id in ids}
    missing = []
    for question in questions:
        if not question.items:
            for asked in found.values():
                asked.append(question)
            continue
        known = (names.find(name) or stems.find(name) for name in question.items)
        item_id = next((candidate for candidate in known if candidate is not None), None)
        if item_id is None:
            missing.append(question.items[0])
        else:
            found[item_id].append(question)
    asked_about = {item_id: asked for item_id, asked in found.items() if asked}
    if not asked_about:
        raise UsageError(
            f"none of the {len(questions)} questions is about one of the {len(ids)} items; the questions name "
            f"{', '.join(map(repr, list(dict.fromkeys(missing))[:3]))}, the items are {', '.join(map(repr, ids[:3]))}"
        )
    return asked_about, missing


class _Stems:
    """Finds an id without its ending by the same rules as with it: a folder in the name must be the item's."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids: dict[str, list[str]] = {}
        for item_id in ids:
            self._ids.setdefault(str(PurePosixPath(item_id).with_suffix("")), []).append(item_id)
        self._names = ItemNames(self._ids)

    def find(self, name: str) -> str | None:
        candidates = self._ids.get(self._names.find(name) or "", [])
        return candidates[0] if len(candidates) == 1 else None
