"""Which part an item belongs to, the numbers of a part, and its name."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from blake3 import blake3

from tokcli.cache.part import Part, part_of
from tokcli.errors import UsageError


def test_an_item_has_one_part_and_parts_are_even() -> None:
    """The rule, by hand: the first 8 bytes of blake3 of the id, the greatest first, modulo the number of parts."""
    assert part_of("videos/cat.mp4", 8) == int(blake3(b"videos/cat.mp4").hexdigest()[:16], 16) % 8
    names = [f"{number}.mp4" for number in range(8000)]
    shares = Counter(part_of(name, 8) for name in names)
    assert sorted(shares) == list(range(8))
    assert all(850 < count < 1150 for count in shares.values())  # 1000 +- 5 standard deviations
    assert all(sum(Part(index, 8).has(name) for index in range(8)) == 1 for name in names[:100])
    assert part_of("\udcff.mp4", 5) == part_of("\\udcff.mp4", 5)  # an id is what is stored


def test_numbers_of_two_parts_never_meet() -> None:
    taken = {(part, part.next_sequence(least)) for least in range(1, 60) for part in (Part(i, 4) for i in range(4))}
    assert {(part.index, number % 4) for part, number in taken} == {(index, index) for index in range(4)}
    assert all(least <= Part(3, 4).next_sequence(least) < least + 4 for least in range(1, 60))


@pytest.mark.parametrize("text", ["3/8", " 3/8 ", "1/1", "1000/1000"])
def test_parts_as_text(text: str) -> None:
    assert str(Part.parse(text)) == text.strip()
    assert Part.of_lock(Part.parse(text).lock_name) == Part.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0/8", "parts are counted from 1 to n, the last of 8 is 8/8"),
        ("9/8", "parts are counted from 1 to n, the last of 8 is 8/8"),
        ("1/0", "there must be one part at least, 1/1"),
        ("3", "is not i/n; write for example --shard 3/8"),
        ("a/8", "is not i/n"),
        ("-1/8", "is not i/n"),
        ("1/8/2", "is not i/n"),
        ("", "is not i/n"),
    ],
)
def test_other_texts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        Part.parse(text)
