"""The cache beside safetensors, its checks beside bare checksums, and its index at a million items.

All bytes are touched: tokens that are read are summed, those of ``safetensors`` too, which maps its file into memory
and copies nothing. It is measured twice: all tokens as one tensor, the least that can be done, and the items as a cache
has them, each with tokens, places and sources of its own. Reading is compared by the processor's time, the shortest of
several runs in turns: the files are in memory, and what else the machine does should not count.

    python -m bench.cache_limits [--mebibytes 128] [--items 200000] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bench.storage import HIDDEN, MIB, make_item, read, write
from tokcli.cache import Cache, CacheWriter, Manifest, open_cache

LARGE_ITEMS = 200
"""Of those of the large cache, how many have a mebibyte of tokens; the others have one token."""
MANIFEST = Manifest({"tokens_dtype": "float16"})


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The same bytes, with an fsync as the cache has one."""
    save_file(tensors, path)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def read_safetensors(path: Path) -> None:
    """Every tensor of tokens, summed."""
    for name, tensor in load_file(path).items():
        if name.endswith("tokens"):
            tensor.view(torch.int64).sum()


def throughput(mebibytes: int, item_mebibytes: float, folder: Path) -> dict[str, float]:
    """Writing and reading whole, for one size of item."""
    per_item = int(item_mebibytes * MIB) // (HIDDEN * 2)
    count = max(1, round(mebibytes / item_mebibytes))
    tokens = torch.randn(count * per_item, HIDDEN, generator=torch.Generator().manual_seed(0)).half()
    items = [make_item(number, part) for number, part in enumerate(tokens.split(per_item))]
    flat = tokens.view(torch.uint8).numpy().reshape(-1)
    one, by_item = folder / f"{item_mebibytes}.one", folder / f"{item_mebibytes}.items"
    cache_folder = folder / f"{item_mebibytes}"
    parts = {
        f"{item.id}.{name}": getattr(item.kept, name).clone()
        for item in items
        for name in ("tokens", "coords", "source")
    }
    write_safetensors(by_item, parts)
    # In turns, so that what else the machine does falls on all of them.
    works: dict[str, Callable[[], object]] = {
        "write_safetensors": lambda: write_safetensors(one, {"tokens": tokens}),
        "write": lambda: write(cache_folder, items),
    }
    wall = shortest(works, time.perf_counter, 5)
    works = {
        "one": lambda: read_safetensors(one),
        "by_item": lambda: read_safetensors(by_item),
        "checked": lambda: read(open_cache(cache_folder)),
        "unchecked": lambda: read(open_cache(cache_folder, check=False)),
        "crc32": lambda: zlib.crc32(flat),
    }
    cpu = shortest(works, time.process_time, 7)
    return {
        "item_mib": item_mebibytes,
        "write_against_safetensors": wall["write_safetensors"] / wall["write"],
        "read_unchecked_against_one_tensor": cpu["one"] / cpu["unchecked"],
        "read_unchecked_against_tensors_by_item": cpu["by_item"] / cpu["unchecked"],
        "read_checked_against_unchecked_and_crc32": cpu["checked"] / (cpu["unchecked"] + cpu["crc32"]),
    }


def shortest(works: dict[str, Callable[[], object]], clock: Callable[[], float], rounds: int) -> dict[str, float]:
    """Seconds of each, the least of so many rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: min(values) for name, values in seconds.items()}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def index(count: int, folder: Path) -> dict[str, float]:
    """Opening, scanning for what to resume, and random access, in a cache of so many items."""
    tiny, large = torch.zeros(1, HIDDEN).half(), torch.zeros(MIB // (HIDDEN * 2), HIDDEN).half()
    every = max(1, count // LARGE_ITEMS)
    write_seconds = _timed(
        lambda: write(folder, [make_item(number, tiny if number % every else large) for number in range(count)])
    )
    resume_seconds = _timed(lambda: CacheWriter(folder, MANIFEST).close())
    open_seconds = _timed(lambda: open_cache(folder))
    cache = open_cache(folder)
    picks = random.Random(0).sample(range(0, count, every), k=LARGE_ITEMS)
    plain = folder / "plain.bin"
    plain.write_bytes(bytes(MIB) * 256)
    cache_times, plain_times = [], []
    with plain.open("rb", buffering=0) as file:
        for number in picks:
            cache_times.append(_timed(partial(_read_item, cache, number)))
            plain_times.append(_timed(partial(_read_plain, file.fileno(), number % 256 * MIB)))
    plain.unlink()
    cache_ms, plain_ms = (statistics.quantiles(times, n=4)[0] * 1e3 for times in (cache_times, plain_times))
    return {
        "items": count,
        "write_seconds_per_million": write_seconds / count * 1e6,
        "open_seconds_per_million": open_seconds / count * 1e6,
        "resume_seconds_per_million": resume_seconds / count * 1e6,
        "random_item_ms": cache_ms,
        "random_item_against_plain_file": cache_ms / plain_ms,
    }


def _read_item(cache: Cache, number: int) -> None:
    cache[number].kept.tokens.view(torch.int64).sum()


def _read_plain(handle: int, offset: int) -> None:
    torch.frombuffer(bytearray(os.pread(handle, MIB, offset)), dtype=torch.int64).sum()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache_limits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=128, help="tokens in all")
    parser.add_argument("--item-mebibytes", type=float, nargs="+", default=[0.0625, 1.0, 16.0])
    parser.add_argument("--items", type=int, default=200_000, help="items of the large cache")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        rows = [throughput(chosen.mebibytes, size, Path(name)) for size in chosen.item_mebibytes]
        large = index(chosen.items, Path(name) / "large")
    if chosen.json:
        print(json.dumps({"throughput": rows, "index": large}))
        return 0
    for key in rows[0]:
        print(f"{key:44}" + "".join(f"{row[key]:10.3g}" for row in rows))
    for key, value in large.items():
        print(f"{key:44}{value:10.3g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
