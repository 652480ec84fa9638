"""Prompts with fields in braces: ``Is there a {label} here?``"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokcli.errors import UsageError, nearest

_FIELD = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
"""``{{name}}`` or ``{name}``; all other braces, as those of JSON, stand for themselves."""


def fields_of(text: str) -> list[str]:
    """The fields that a prompt names, each once."""
    return list(dict.fromkeys(match[2] for match in _FIELD.finditer(text) if match[2]))


def listed(columns: Iterable[str]) -> list[str]:
    """The names of columns, without the longer one of those that have two."""
    names = list(columns)
    return [name for name in names if name.removeprefix("meta_") == name or name.removeprefix("meta_") not in names]


def check_fields(text: str, known: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for a field that no item can have."""
    for name in fields_of(text):
        if name not in known:
            raise UsageError(
                f"prompt {text!r}: the cache has no field {name!r}; it has {', '.join(listed(known))}"
                f"{nearest(name, known)}; write {{{{{name}}}}} for the word in braces"
            )


def fill(text: str, values: Mapping[str, Any]) -> str:
    """The prompt for one item; ``{{name}}`` becomes ``{name}``. Raises ``UsageError`` where it has no value."""

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        if values[match[2]] is None:
            raise UsageError(f"it has no value for {match[2]!r}, which the prompt asks for")
        return str(values[match[2]])

    return _FIELD.sub(value, text)
