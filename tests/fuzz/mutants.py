"""Broken copies of media files: the same number and seed give the same bytes on every machine."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EXTREMES = (0, 1, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"moof", b"traf", b"mvex", b"udta"}
)
"""Boxes of MP4 and MOV that hold other boxes."""
KINDS = (b"moov", b"trak", b"stsz", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"elst", b"mdat", b"free", b"zzzz")


@dataclass(frozen=True)
class Box:
    """A box of an MP4 or MOV file."""

    start: int
    end: int
    kind: bytes

    @property
    def payload(self) -> int:
        return self.start + 8


def boxes(data: bytes, start: int = 0, end: int | None = None) -> list[Box]:
    """All boxes, those that hold others before what they hold; what is no box ends the list."""
    end = len(data) if end is None else end
    found: list[Box] = []
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if not 8 <= size <= end - start:
            break
        found.append(Box(start, start + size, kind))
        if kind in CONTAINERS:
            found += boxes(data, start + 8, start + size)
        start += size
    return found


Mutation = Callable[[bytearray, random.Random, bytes], bytearray]


def flips(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """Single bits, anywhere or near the start, where the headers are."""
    reach = dice.choice((len(data), min(len(data), 4096)))
    for _ in range(dice.choice((1, 4, 16, 64))):
        data[dice.randrange(reach)] ^= 1 << dice.randrange(8)
    return data


def cut(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """The end is missing, or the start."""
    place = dice.randrange(1, max(2, len(data)))  # of one byte, which another mutation may have left, all
    return data[:place] if dice.random() < 0.8 else data[place:]


def hole(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """A run of zeros, ones or noise."""
    place, length = dice.randrange(len(data)), dice.choice((16, 512, 4096, 32768))
    length = min(length, len(data) - place)
    fill = dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))
    data[place : place + length] = fill
    return data


def chunks(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """A run of bytes that is left out, stands twice, or stands elsewhere."""
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.choice((1, 64, 1000, 20000)))
    run = data[start:end]
    rest = data[:start] + data[end:]
    how = dice.randrange(3)
    if how == 0:
        return rest
    if how == 1:
        return data[:end] + run + data[end:]
    place = dice.randrange(len(rest) + 1)
    return rest[:place] + run + rest[place:]


def numbers(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """Numbers of the header that are as large or small as can be."""
    for _ in range(dice.choice((1, 2, 4))):
        place = dice.randrange(max(1, min(len(data), 2048) - 8))
        form = dice.choice((">I", "<I", ">H", "<H", "B"))
        value = dice.choice(EXTREMES) & ((1 << 8 * struct.calcsize(form)) - 1)
        if place + struct.calcsize(form) <= len(data):
            struct.pack_into(form, data, place, value)
    return data


def spliced(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """The start of one file and the end of another, or one behind the other."""
    if dice.random() < 0.3:
        return data + other
    return data[: dice.randrange(1, max(2, len(data)))] + other[dice.randrange(len(other)) :]


def box_edits(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """Boxes with another size or type, that are gone or stand twice, and tables that lie."""
    found = boxes(bytes(data))
    if not found:
        return numbers(data, dice, other)
    inner = [box for box in found if box.kind not in (b"mdat", b"ftyp")] or found
    for _ in range(dice.choice((1, 1, 2, 3))):
        box = dice.choice(inner)
        if box.end > len(data):
            continue
        how = dice.randrange(6)
        if how == 0:
            struct.pack_into(">I", data, box.start, dice.choice((*EXTREMES, box.end - box.start + 1)))
        elif how == 1:
            data[box.start + 4 : box.start + 8] = dice.choice(KINDS)
        elif how == 2:
            return data[: box.start] + data[box.end :]
        elif how == 3:
            return data[: box.end] + data[box.start : box.end] + data[box.end :]
        elif box.end - box.payload >= 4:
            # Version and flags, counts, then the entries: early words are counts more often than not.
            words = (box.end - box.payload) // 4
            word = min(words - 1, dice.choice((0, 1, 2, 3, dice.randrange(words))))
            struct.pack_into(">I", data, box.payload + 4 * word, dice.choice((*EXTREMES, dice.randrange(1 << 32))))
    return data


MUTATIONS: tuple[Mutation, ...] = (flips, cut, hole, chunks, numbers, spliced, box_edits, box_edits)


def mutant(seed: int, number: int, sources: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """(file name, content) of mutant ``number``: one to three mutations of one of the sources (name, content)."""
    dice = random.Random(f"{seed}/{number}")
    name, content = dice.choice(sources)
    other = dice.choice(sources)[1]
    data = bytearray(content)
    applied = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        mutation = dice.choice(MUTATIONS)
        applied.append(mutation.__name__)
        data = mutation(data, dice, other) or bytearray(1)
    stem, _, suffix = name.rpartition(".")
    return f"{number:05}-{stem[:40]}-{'-'.join(applied)}.{suffix}", bytes(data)
