"""The errors that tokcli raises on purpose.

Each message is one line that says what was wrong, where, what was allowed, and what to do next. The library raises;
only ``tokcli.cli`` prints and exits, with the code that the class names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'dtd'?"`` where a known name is close to ``name``, else an empty string."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class TokcliError(Exception):
    """Base of all expected failures; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(TokcliError):
    """What was asked for cannot be done: unknown name, impossible budget, missing input."""

    exit_code = 2


class MediaError(TokcliError):
    """A media file cannot be found, opened or decoded."""


class MethodError(UsageError):
    """A compression method is unknown, or its options or budget cannot be met."""


class ModelError(UsageError):
    """A model is unknown, incomplete, or not the one that is needed."""


class OtherModelError(ModelError):
    """A model is not the one that made the cache: its tokens would mean nothing to it."""

    exit_code = 4


class RecipeError(UsageError):
    """A recipe file is malformed."""


class CacheError(TokcliError):
    """A token cache cannot be read or written."""


class CacheConflictError(CacheError):
    """A cache exists that was made with another configuration; nothing was written."""

    exit_code = 4


class IntegrityError(CacheError):
    """Stored bytes are not those that were written."""

    exit_code = 5
