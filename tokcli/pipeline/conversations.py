"""Conversations: several questions in turn, with the answers so far in sight."""

from __future__ import annotations

from typing import Any

from tokcli.errors import UsageError

Turn = tuple[str, str | None]
"""A question, and the reply that is given for it; None: the model's own."""
CONVERSATION_KEYS = ("messages", "conversations")
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}


def read_conversation(messages: Any, where: str) -> tuple[str | None, tuple[Turn, ...], str]:
    """System message, turns before the last question, and that question.

    Messages are objects with ``role`` and ``content``, or ``from`` and ``value``. Questions may follow each other, then
    the model answers each; where a reply stands between, it is taken as given.

    Raises:
        UsageError: They are something else, or don't end in a question.
    """
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"{where}: messages must be a list with a question in it")
    system: str | None = None
    turns: list[Turn] = []
    for number, message in enumerate(messages, 1):
        role, text = _parts(message, f"{where}: message {number}")
        if role == "user":
            turns.append((text, None))
        elif role == "system":
            if number > 1:
                raise UsageError(f"{where}: message {number}: a system message must be the first")
            system = text
        elif not turns or turns[-1][1] is not None:
            raise UsageError(f"{where}: message {number} is a reply that no question stands before")
        else:
            turns[-1] = (turns[-1][0], text)
    if not turns or turns[-1][1] is not None:
        raise UsageError(f"{where}: the last message must be a question, by the user; nobody would answer otherwise")
    return system, tuple(turns[:-1]), turns[-1][0]


def _parts(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise UsageError(f"{where} is no object with role and content")
    role = message.get("role", message.get("from"))
    if role not in _ROLES:
        raise UsageError(f"{where}: unknown role {role!r}; allowed: {', '.join(_ROLES)}")
    text = message.get("content", message.get("value"))
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where} needs a text in content; items go before the first question by themselves")
    # Where items go is the model's template's business; data sets of LLaVA mark it in the text.
    return _ROLES[role], text.replace("<image>", "").replace("<video>", "").strip()
