"""What an item costs beside its tokens in caches of very many: listing, writing, resuming, opening; whether it grows.

Items of one short token are written by the real writer, in as many parts as asked for, one after the other. Each step
is measured in a process of its own: wall and CPU seconds for a million items, and how far the peak of resident memory
rose above what the process held before. Where lines are straight, the figures of all counts are alike.

    python -m bench.scale [--long] [--items N ...] [--parts 8] [--shard-items 10000] [--folder DIR] [--json]

``--long`` adds a million items, which takes a quarter of an hour on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from bench.peak import peak_bytes
from bench.storage import MIB, make_item
from tokcli.cache import CacheWriter, Manifest, open_cache
from tokcli.cache.layout import list_shards
from tokcli.cache.part import Part
from tokcli.cache.writer import SHARD_ITEMS
from tokcli.media import scan_inputs
from tokcli.types import EncodedItem

MANIFEST = Manifest({"tokens_dtype": "float16", "model": {"fingerprint": "0" * 64}})
WIDTH = 8
"""Numbers of the one token: next to nothing, so that what remains is the price of an item."""
AT_A_TIME = 1000
"""Items that are made before the clock runs, and held in memory."""
PICKS = 300
Row = dict[str, float]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sizes:
    items: int
    parts: int
    shard_items: int

    def ids(self) -> list[str]:
        return [f"item-{number:06d}" for number in range(self.items)]


class Clock:
    """Sums wall and CPU seconds of calls, and watches memory."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.before = peak_bytes()

    def __call__(self, call: Callable[[], Result]) -> Result:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return result

    def row(self, sizes: Sizes) -> Row:
        share = sizes.items / 1e6
        grown = (peak_bytes() - self.before) / MIB
        return {"wall s/M": self.wall / share, "CPU s/M": self.cpu / share, "MiB": grown, "MiB/M": grown / share}


def listed(folder: Path, sizes: Sizes, part: Part | None = None) -> Row:
    """Read a manifest of the inputs, and ask the file system for those of the part; all are one file by many ids."""
    manifest = folder.with_suffix(".csv")
    with manifest.open("w", encoding="utf-8") as file:
        file.write("path,id\n")
        file.writelines(f"{manifest.name},{name}\n" for name in sizes.ids())
    clock = Clock()
    found = clock(lambda: scan_inputs([str(manifest)], id_col="id", wanted=None if part is None else part.has))
    return clock.row(sizes) | {"inputs": len(found.items)}


def write(folder: Path, sizes: Sizes) -> Row:
    """Fill the cache, the last look of the last part included; items are made while the clock stands."""
    token, expected, clock = torch.zeros(1, WIDTH).half(), sizes.ids(), Clock()
    for index in range(sizes.parts):
        part = Part(index, sizes.parts)
        opened = partial(CacheWriter, folder, MANIFEST, part=part, max_shard_items=sizes.shard_items)
        with clock(opened) as writer:
            own = (make_item(number, token) for number, name in enumerate(expected) if part.has(name))
            for items in _batches(own):
                clock(partial(_write_all, writer, items))
            clock(writer.commit)
            if index == sizes.parts - 1:
                missing = clock(partial(writer.finish, expected))
    return clock.row(sizes) | {"missing": len(missing)}


def _batches(items: Iterator[EncodedItem]) -> Iterator[list[EncodedItem]]:
    while batch := list(islice(items, AT_A_TIME)):
        yield batch


def _write_all(writer: CacheWriter, items: list[EncodedItem]) -> None:
    for item in items:
        writer.write(item)


def resumed(folder: Path, sizes: Sizes, part: Part | None = None) -> Row:
    """What a run does first: read which items are there; one part remembers its own."""
    clock = Clock()
    with clock(partial(CacheWriter, folder, MANIFEST, part=part)) as writer:
        row = clock.row(sizes)
        return row | {"items": writer.counts()["items"]}


def opened(folder: Path, sizes: Sizes) -> Row:
    """Build the index of where each item stands."""
    clock = Clock()
    cache = clock(partial(open_cache, folder))
    return clock.row(sizes) | {"items": len(cache)}


def table(folder: Path, sizes: Sizes) -> Row:
    """All that is known of the items but their tokens, as one table."""
    cache, clock = open_cache(folder), Clock()
    rows = clock(cache.table)
    return clock.row(sizes) | {"rows": len(rows)}


def random_reads(folder: Path, sizes: Sizes) -> Row:
    """Items picked at random, each decoded whole."""
    cache, times = open_cache(folder), []
    for number in random.Random(0).choices(range(sizes.items), k=PICKS):
        start = time.process_time()
        cache[number].kept.tokens.sum()
        times.append(time.process_time() - start)
    return {"median CPU ms": statistics.median(times) * 1e3}


def one_part(step: Callable[[Path, Sizes, Part], Row]) -> Callable[[Path, Sizes], Row]:
    return lambda folder, sizes: step(folder, sizes, Part(0, sizes.parts))


STEPS: dict[str, Callable[[Path, Sizes], Row]] = {
    "list": listed,
    "list a part": one_part(listed),
    "write": write,
    "resume": resumed,
    "resume a part": one_part(resumed),
    "open": opened,
    "table": table,
    "random": random_reads,
}


def measure(folder: Path, sizes: Sizes) -> Iterator[tuple[str, Row]]:
    """All steps for one number of items, each in a process of its own."""
    options = ["--items", sizes.items, "--parts", sizes.parts, "--shard-items", sizes.shard_items]
    for step in STEPS:
        command = [sys.executable, "-m", "bench.scale", "--step", step, str(folder), *map(str, options)]
        yield step, json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    shards = list_shards(folder)
    size = sum(shard.path.stat().st_size for shard in shards)
    yield "on disk", {"bytes/item": size / sizes.items, "shards": len(shards), "MiB": size / MIB}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--long", action="store_true", help="also a million items")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--shard-items", type=int, default=SHARD_ITEMS, help="items that a shard holds at most")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.step:
        step, folder = chosen.step
        sizes = Sizes(chosen.items[0], chosen.parts, chosen.shard_items)
        print(json.dumps(STEPS[step](Path(folder), sizes)))
        return 0
    results: dict[int, dict[str, Row]] = {}
    for count in [*chosen.items, *([1_000_000] if chosen.long else [])]:
        results[count] = {}
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            for step, row in measure(Path(name) / "cache", Sizes(count, chosen.parts, chosen.shard_items)):
                results[count][step] = row
                if not chosen.json:
                    cells = "".join(f"{value:11,.4g} {name}" for name, value in row.items())
                    print(f"{count:10,} {step:14}{cells}", flush=True)
    if chosen.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
