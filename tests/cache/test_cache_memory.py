"""Long items are neither written nor read with their tokens in memory twice; threads may share a reader."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_common import assert_same_item, make_item, make_manifest, write_cache

from tokcli.cache import CacheWriter, open_cache
from tokcli.types import EncodedItem, TokenSet, View

MIB = 1 << 20
ITEM_MIB = 192
MANIFEST = make_manifest()


def long_item(dtype: torch.dtype) -> EncodedItem:
    """One clip whose tokens take ``ITEM_MIB`` in ``dtype``."""
    width = 2048
    count = ITEM_MIB * MIB // (width * dtype.itemsize)
    rows = torch.arange(count)
    coords = torch.stack([rows * 0, rows // 256, rows // 16 % 16, rows % 16], 1).int()
    tokens = torch.ones(count, width, dtype=dtype)
    steps = -(-count // 256)
    return replace(
        make_item(),
        kept=TokenSet(tokens, coords, torch.ones(count), rows),
        views=(View("frames", (steps, 16, 16)),),
        source_tokens=count,
        times=np.arange(steps, dtype=np.float64),
        indices=np.arange(steps),
    )


def peak_mib(work: Callable[[], object]) -> float:
    """Most resident memory that ``work`` adds, by the kernel's own account."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = status("VmRSS")
    result = work()
    peak = status("VmHWM") - before
    del result
    return peak


def status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _measure(path: Path, dtype: torch.dtype) -> tuple[float, float, bool]:
    write_cache(path / "warm", make_item(), manifest=MANIFEST)
    open_cache(path / "warm")[0]
    item = long_item(dtype)
    with CacheWriter(path / "cache", MANIFEST) as writer:
        writing = peak_mib(lambda item=item: (writer.write(item), writer.commit()))  # type: ignore[misc]
    num_rows = len(item.kept)
    del item
    cache = open_cache(path / "cache")
    reading = peak_mib(lambda: cache[0])
    return writing, reading, len(cache[0].kept) == num_rows


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.float32, marks=pytest.mark.long)], ids=str)
def test_long_items(tmp_path: Path, dtype: torch.dtype) -> None:
    # A process of its own, and not a fork: torch's threads do not survive one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        writing, reading, whole = child.submit(_measure, tmp_path, dtype).result(timeout=240)
    assert whole
    stored = ITEM_MIB * 2 / dtype.itemsize
    assert writing < 48, f"writing {ITEM_MIB} MiB took {writing:.0f} MiB beside them"
    assert stored < reading < stored + 64, f"reading {stored} MiB took {reading:.0f} MiB"


def test_threads_share_a_reader(tmp_path: Path) -> None:
    items = [make_item(str(number), 100 + number, seed=number) for number in range(20)]
    write_cache(tmp_path, *items, max_shard_items=3)
    cache = open_cache(tmp_path)
    wrong: list[BaseException] = []

    def read(offset: int) -> None:
        try:
            for number in range(200):
                item = items[(number * offset) % 20]
                assert_same_item(cache[item.id], item)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(offset,)) for offset in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fork_while_another_thread_reads(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item())
    cache = open_cache(tmp_path)
    with cache._files._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if len(cache[0].kept) == 20 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_more_shards_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokcli.cache.files.MAX_OPEN", 2)
    items = [make_item(str(number), seed=number) for number in range(5)]
    write_cache(tmp_path, *items, max_shard_items=1)
    cache = open_cache(tmp_path)
    for _ in range(2):
        for item in items:
            assert_same_item(cache[item.id], item)
    descriptors = [Path(f"/proc/self/fd/{entry.name}") for entry in Path("/proc/self/fd").iterdir()]
    # Of this cache alone: earlier tests in the same process may have left readers open. Two files each, see ``files``.
    assert sum(link.readlink().is_relative_to(tmp_path) for link in descriptors if link.is_symlink()) <= 2 * 2
