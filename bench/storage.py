"""How fast the cache stores and gives back tokens, as shares of what the same machine copies in memory.

    python -m bench.storage [--mebibytes 128] [--item-mebibytes 1] [--folder DIR] [--json]

The absolute figures depend on the machine and its neighbours; the ratios to ``memcpy`` are taken in one run, with the
reference measured before and after, and travel better.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from tokcli.cache import Cache, CacheWriter, Manifest, open_cache, verify_cache
from tokcli.types import EncodedItem, TokenSet, View

HIDDEN = 1024
MIB = 1 << 20


def make_item(number: int, tokens: torch.Tensor) -> EncodedItem:
    """An item of one view with as many temporal steps as its tokens fill, 16x16 each."""
    count = len(tokens)
    rows = torch.arange(count)
    coords = torch.stack([torch.zeros_like(rows), rows // 256, rows // 16 % 16, rows % 16], 1).int()
    steps = -(-count // 256)
    kept = TokenSet(tokens, coords, torch.ones(count), rows)
    return EncodedItem(
        id=f"item-{number:06d}",
        path=f"clips/item-{number:06d}.mp4",
        kind="video",
        kept=kept,
        views=(View("frames", (steps, 16, 16)),),
        source_tokens=steps * 256,
        times=np.arange(steps, dtype=np.float64),
        indices=np.arange(steps, dtype=np.int64),
        frame_size=(448, 448),
        source_size=(720, 1280),
        duration_seconds=float(steps),
        source_fps=30.0,
        sample_fps=1.0,
        seconds_per_step=1.0,
        codec="h264",
        decoder="none",
        source_bytes=1,
        source_modified_ns=1,
        source_hash="0" * 64,
    )


def median_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median wall time of ``work``."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def write_raw(path: Path, tokens: torch.Tensor) -> None:
    """The same bytes into one file, fsync included: what the disk allows."""
    with path.open("wb") as file:
        file.write(memoryview(tokens.view(torch.uint8).numpy()).cast("B"))
        file.flush()
        os.fsync(file.fileno())


def write(folder: Path, items: list[EncodedItem]) -> None:
    """One whole run of the writer, the fsync included."""
    manifest = Manifest({"tokens_dtype": "float16"})
    with CacheWriter(folder, manifest, overwrite=True) as writer:
        for item in items:
            writer.write(item)


def read(cache: Cache) -> None:
    """Every item in order, every byte touched."""
    for item in cache:
        item.kept.tokens.view(torch.int64).sum()


def random_access_ms(cache: Cache, count: int = 200) -> float:
    """Median milliseconds for one item picked at random, its bytes not touched again."""
    ids = cache.ids()
    picks = random.Random(0).choices(ids, k=count)
    cache[ids[0]]
    times = []
    for item_id in picks:
        start = time.perf_counter()
        cache[item_id]
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def measure(mebibytes: int, item_mebibytes: float, folder: Path) -> dict[str, float]:
    """All figures for one size of item."""
    per_item = int(item_mebibytes * MIB) // (HIDDEN * 2)
    count = max(1, round(mebibytes / item_mebibytes))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(count * per_item, HIDDEN, generator=generator).half()
    items = [make_item(number, part) for number, part in enumerate(tokens.split(per_item))]
    mib = tokens.numel() * 2 / MIB
    target = torch.empty_like(tokens)
    copies = [median_seconds(lambda: target.copy_(tokens))]
    folder.mkdir(parents=True)
    raw = folder.with_suffix(".raw")
    raw_seconds = [median_seconds(lambda: write_raw(raw, tokens))]
    write_seconds = median_seconds(lambda: write(folder, items))
    raw_seconds.append(median_seconds(lambda: write_raw(raw, tokens)))
    raw.unlink()
    open_seconds = median_seconds(lambda: open_cache(folder))
    cache = open_cache(folder)
    read_seconds = median_seconds(lambda: read(cache))
    touch_seconds = median_seconds(lambda: tokens.view(torch.int64).sum())
    access = random_access_ms(cache)
    verify_seconds = median_seconds(lambda: verify_cache(folder), 1)
    copies.append(median_seconds(lambda: target.copy_(tokens)))
    copy_seconds = statistics.mean(copies)
    stored = cache.stats()["cache_bytes"] / MIB
    return {
        "item_mib": item_mebibytes,
        "items": count,
        "memcpy_mib_s": mib / copy_seconds,
        "touch_mib_s": mib / touch_seconds,
        "write_mib_s": mib / write_seconds,
        "write_to_memcpy": copy_seconds / write_seconds,
        "write_to_raw_file": statistics.mean(raw_seconds) / write_seconds,
        "read_mib_s": mib / read_seconds,
        "read_to_memcpy": copy_seconds / read_seconds,
        "verify_mib_s": mib / verify_seconds,
        "random_access_ms": access,
        "random_access_ms_per_mib": access / item_mebibytes,
        "open_ms": open_seconds * 1e3,
        "overhead_share": stored / mib - 1,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures for small, middling and large items."""
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=128, help="tokens in all (default 128)")
    parser.add_argument("--item-mebibytes", type=float, nargs="+", default=[0.0625, 1.0, 16.0])
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in arguments.item_mebibytes:
            results.append(measure(arguments.mebibytes, size, Path(folder) / f"{size}"))
    if arguments.json:
        print(json.dumps({"storage": results}))
        return 0
    for name in results[0]:
        print(f"{name:26}" + "".join(f"{result[name]:12.4g}" for result in results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
