"""The part of a cache that one of several writers at once fills, as ``--shard 3/8`` names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from blake3 import blake3

from tokcli.cache.atomic import TEMPORARY_PREFIX
from tokcli.cache.layout import LOCK
from tokcli.cache.records import clean_text
from tokcli.errors import UsageError

MAX_PARTS = 999_999

_TEXT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_TAG = re.compile(r"([0-9]{3,6})-of-([0-9]{3,6})")


def part_of(item_id: str, count: int) -> int:
    """Which of ``count`` parts an item belongs to, from 0: the same on every machine, whatever is in the file."""
    return int.from_bytes(blake3(clean_text(item_id).encode()).digest(length=8), "big") % count


@dataclass(frozen=True, order=True)
class Part:
    """One of ``count`` parts; ``index`` counts from 0, as text it counts from 1."""

    index: int
    count: int

    remembers: ClassVar[bool] = True
    """Whether its writer knows which of its items the cache has."""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count <= MAX_PARTS:
            raise ValueError(f"part {self.index} of {self.count}: index counts from 0 and stays below count")

    @classmethod
    def parse(cls, text: str) -> Part:
        """``3/8`` is the third of eight. Raises ``UsageError`` for anything else."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"--shard {text!r} is not i/n; write for example --shard 3/8, the third of eight parts")
        number, count = int(match[1]), int(match[2])
        if not 1 <= number <= count:
            raise UsageError(
                f"--shard {text!r}: parts are counted from 1 to n, the last of {count} is {count}/{count}"
                if count
                else f"--shard {text!r}: there must be one part at least, 1/1"
            )
        return cls(number - 1, count)

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    @property
    def tag(self) -> str:
        """``003-of-008``, in the names of its files."""
        return f"{self.index + 1:03d}-of-{self.count:03d}"

    @property
    def lock_name(self) -> str:
        return f"{LOCK}-{self.tag}"

    @classmethod
    def of_lock(cls, name: str) -> Part | None:
        """The part whose lock a file of this name is; None for other files."""
        match = _TAG.fullmatch(name.removeprefix(f"{LOCK}-"))
        if match is None or not name.startswith(f"{LOCK}-") or not 1 <= int(match[1]) <= int(match[2]):
            return None
        return cls(int(match[1]) - 1, int(match[2]))

    def has(self, item_id: str) -> bool:
        return part_of(item_id, self.count) == self.index

    def next_sequence(self, least: int) -> int:
        """The smallest of its sequence numbers that is not below ``least``; they are ``count`` apart."""
        return least + (self.index - least) % self.count

    def may_remove(self, temporary: str) -> bool:
        """Whether what was left under this name cannot be in work while this part is locked.

        A writer of the whole cache, or of a part of another number of parts, has no lock beside this one.
        """
        match = _TAG.match(temporary.removeprefix(TEMPORARY_PREFIX))
        return match is None or match[0] == self.tag or int(match[2]) != self.count


class Stripe(Part):
    """A part that any item may go into.

    Who hands items out has to know what the cache has, and to give each item to one writer only: of two rows of an item
    that are written at once, either may count.
    """

    remembers = False

    def has(self, item_id: str) -> bool:
        return True
