"""The cache beside safetensors, its checks beside bare checksums, and its index at a million items.

All bytes are touched: tokens that are read are summed. ``safetensors`` maps one file of the same tokens into memory and
copies nothing; whole caches are read by ``Cache.blocks``, from mapped files too, and item by item. ``plain`` is reading
an item's bytes from an open file.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from bench.storage import HIDDEN, MIB, make_item, median_seconds, read, write
from tokcli.cache import Cache, CacheWriter, Manifest, open_cache

LARGE_ITEMS = 200
"""Of those of the large cache, how many have a mebibyte of tokens; the others have one token."""
MANIFEST = Manifest({"tokens_dtype": "float16"})


@contextmanager
def unchecked() -> Iterator[None]:
    """Read caches without any check of their bytes."""
    parquet_file = partial(pq.ParquetFile)

    def opened(*arguments: object, **named: object) -> pq.ParquetFile:
        return parquet_file(*arguments, **{**named, "page_checksum_verification": False})

    with (
        patch("tokcli.cache.parquet.pq.ParquetFile", opened),
        patch("tokcli.cache.decode.checksum_problem", lambda *_: None),
    ):
        yield


def write_safetensors(path: Path, tokens: torch.Tensor) -> None:
    """The same bytes, with an fsync as the cache has one."""
    save_file({"tokens": tokens}, path)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def throughput(mebibytes: int, item_mebibytes: float, folder: Path) -> dict[str, float]:
    """Writing and reading whole, for one size of item."""
    per_item = int(item_mebibytes * MIB) // (HIDDEN * 2)
    count = max(1, round(mebibytes / item_mebibytes))
    tokens = torch.randn(count * per_item, HIDDEN, generator=torch.Generator().manual_seed(0)).half()
    items = [make_item(number, part) for number, part in enumerate(tokens.split(per_item))]
    flat = tokens.view(torch.uint8).numpy().reshape(-1)
    other = folder / f"{item_mebibytes}.safetensors"
    cache_folder = folder / f"{item_mebibytes}"
    write_safetensors_seconds = median_seconds(lambda: write_safetensors(other, tokens))
    write_seconds = median_seconds(lambda: write(cache_folder, items))
    # In turns, so that what else the machine does falls on all of them.
    seconds: dict[str, list[float]] = {}
    for _ in range(9):
        cache = open_cache(cache_folder)
        for name, work in {
            "safetensors": lambda: load_file(other)["tokens"].view(torch.int64).sum(),
            "crc32": lambda: zlib.crc32(flat),
            "mapped": partial(_read_blocks, cache, check=False, memory_map=True),
            "mapped, checked": partial(_read_blocks, cache, check=True, memory_map=True),
            "read": partial(_read_blocks, cache, check=False, memory_map=False),
            "read, checked": partial(_read_blocks, cache, check=True, memory_map=False),
            "items, checked": partial(read, cache),
        }.items():
            seconds.setdefault(name, []).append(_timed(work))
        with unchecked():
            seconds.setdefault("items", []).append(_timed(partial(read, open_cache(cache_folder))))
    median = {name: statistics.median(values) for name, values in seconds.items()}

    def checks(way: str) -> float:
        return median[f"{way}, checked"] / (median[way] + median["crc32"])

    return {
        "item_mib": item_mebibytes,
        "write_against_safetensors": write_safetensors_seconds / write_seconds,
        "mapped_blocks_against_safetensors": median["safetensors"] / median["mapped"],
        "read_blocks_against_safetensors": median["safetensors"] / median["read"],
        "items_against_safetensors": median["safetensors"] / median["items"],
        "checked_mapped_blocks_against_mapped_and_crc32": checks("mapped"),
        "checked_blocks_against_read_and_crc32": checks("read"),
        "checked_items_against_items_and_crc32": checks("items"),
    }


def _read_blocks(cache: Cache, *, check: bool, memory_map: bool) -> None:
    for block in cache.blocks(check=check, memory_map=memory_map):
        block.tokens.view(torch.int64).sum()


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
    picks = random.Random(0).choices(range(0, count, every), k=300)
    plain = folder / "plain.bin"
    plain.write_bytes(bytes(MIB) * 256)
    cache_times, plain_times = [], []
    with plain.open("rb", buffering=0) as file:
        for number in picks:
            cache_times.append(_timed(partial(_read_item, cache, number)))
            plain_times.append(_timed(partial(_read_plain, file.fileno(), number % 256 * MIB)))
    plain.unlink()
    return {
        "items": count,
        "write_seconds_per_million": write_seconds / count * 1e6,
        "open_seconds_per_million": open_seconds / count * 1e6,
        "resume_seconds_per_million": resume_seconds / count * 1e6,
        "random_item_ms": statistics.median(cache_times) * 1e3,
        "random_item_against_plain_file": statistics.median(cache_times) / statistics.median(plain_times),
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
