"""Every item exactly once, whoever reads: map style and iterable, workers forked and spawned, ranks, epochs."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_common import make_item, make_manifest, write_cache
from torch.utils.data import DataLoader

import tokcli
from tokcli.api.datasets import shuffled
from tokcli.cache import CacheWriter
from tokcli.errors import UsageError

COUNT, A_SHARD = 23, 5
IDS = [f"{number:02}.mp4" for number in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 items in five shards."""
    path = tmp_path_factory.mktemp("shards") / "cache"
    for first in range(0, COUNT, A_SHARD):
        names = range(first, min(first + A_SHARD, COUNT))
        with CacheWriter(path, make_manifest()) as writer:
            for number in names:
                writer.write(make_item(IDS[number], kept=4 + number, seed=number, metadata={"label": number % 3}))
            writer.finish(IDS[: names.stop])
    return path


@pytest.fixture
def cache(folder: Path) -> tokcli.TokenCache:
    return tokcli.open_cache(folder)


def loaded(dataset: Any, workers: int, start: str | None, **options: Any) -> list[str]:
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=workers,
        multiprocessing_context=start if workers else None,
        collate_fn=list,
        **options,
    )
    return [item.id for batch in loader for item in batch]


@pytest.mark.parametrize(
    ("workers", "start"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.long)]
)
def test_each_item_once_in_an_epoch(cache: tokcli.TokenCache, workers: int, start: str | None) -> None:
    cache[0]  # a file that is open before workers are made
    assert len(cache.ids_by_shard()) == 5
    mapped = cache.as_torch_dataset()
    assert loaded(mapped, workers, start) == IDS
    assert sorted(loaded(mapped, workers, start, shuffle=True)) == IDS
    stream = cache.as_torch_dataset(iterable=True)
    assert sorted(loaded(stream, workers, start)) == IDS
    parts = [
        loaded(
            cache.as_torch_dataset(iterable=True, shuffle=True, seed=3, buffer_size=6, rank=rank, world_size=3),
            workers,
            start,
        )
        for rank in range(3)
    ]
    assert Counter(name for part in parts for name in part) == Counter(IDS)
    assert sorted(len(part) for part in parts) == [7, 8, 8]


def test_a_loaded_item_is_the_stored_one(cache: tokcli.TokenCache) -> None:
    loader = DataLoader(cache.as_torch_dataset(iterable=True), batch_size=None, num_workers=2)
    for item in loader:
        assert torch.equal(item.kept.tokens, cache[item.id].kept.tokens)


def test_more_workers_than_items(cache: tokcli.TokenCache) -> None:
    few = cache.select(IDS[:1]).as_torch_dataset(iterable=True, shuffle=True)
    assert loaded(few, 2, "fork") == IDS[:1]
    assert loaded(cache.select([]).as_torch_dataset(iterable=True, shuffle=True), 0, None) == []


def test_samples_of_columns(cache: tokcli.TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = cache.as_torch_dataset(["tokens", "label", "id", "assignment"])
    sample = dataset[7]
    assert list(sample) == ["tokens", "label", "id", "assignment"]
    assert (sample["label"], sample["id"], sample["assignment"]) == (1, "07.mp4", None)
    assert torch.equal(sample["tokens"], cache["07.mp4"].kept.tokens)
    labels = [label for batch in DataLoader(cache.as_torch_dataset(["label"]), 4) for label in batch["label"].tolist()]
    assert labels == [number % 3 for number in range(COUNT)]
    with pytest.raises(UsageError, match=r"no column 'lable'; it has tokens, .*label"):
        cache.as_torch_dataset(["lable"])
    monkeypatch.setattr(tokcli.TokenCache, "__getitem__", lambda *_: pytest.fail("tokens were read"))
    assert cache.as_torch_dataset(["label"])[4] == {"label": 1}


def test_epochs_differ_and_repeat(cache: tokcli.TokenCache) -> None:
    stream = cache.as_torch_dataset(["id"], iterable=True, shuffle=True, seed=1, buffer_size=4)

    def epoch(number: int, dataset: Any = stream) -> list[str]:
        dataset.set_epoch(number)
        return [sample["id"] for sample in dataset]

    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == IDS and first != second != IDS
    assert epoch(0) == first
    assert epoch(1, pickle.loads(pickle.dumps(stream))) == second
    other = cache.as_torch_dataset(["id"], iterable=True, shuffle=True, seed=2, buffer_size=4)
    assert epoch(0, other) != first


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_that_stay_hear_of_the_epoch(cache: tokcli.TokenCache, start: str) -> None:
    stream = cache.as_torch_dataset(["id"], iterable=True, shuffle=True)
    loader = DataLoader(stream, None, num_workers=1, persistent_workers=True, multiprocessing_context=start)
    epochs = []
    for number in (0, 1, 0):
        stream.set_epoch(number)
        epochs.append([sample["id"] for sample in loader])
    assert epochs[0] == epochs[2] != epochs[1]


def test_shards_are_taken_one_after_another() -> None:
    """Without a buffer all items of a shard come together, and the shards in another order."""
    order = shuffled([5, 5, 5, 5, 3], np.random.default_rng(0), 1)
    shards = (order // 5).tolist()
    changes = sum(one != other for one, other in pairwise(shards))
    assert changes == 4 and shards != sorted(shards)
    mixed = shuffled([500] * 4, np.random.default_rng(0), 64)
    assert sorted(mixed.tolist()) == list(range(2000))
    places = np.empty(2000, dtype=np.int64)
    places[mixed] = np.arange(2000)
    # Neighbours in a shard end up apart, but no shard is spread over the whole epoch.
    assert np.median(np.abs(np.diff(places))) > 20
    assert all(np.ptp(np.sort(places[first : first + 500])[25:-25]) < 800 for first in range(0, 2000, 500))


def test_what_does_not_divide_is_left_out_on_request(cache: tokcli.TokenCache) -> None:
    parts = [
        cache.as_torch_dataset(["id"], iterable=True, rank=rank, world_size=4, drop_last=True) for rank in range(4)
    ]
    assert [len(part) for part in parts] == [5] * 4
    assert len({sample["id"] for part in parts for sample in part}) == 20


def test_a_cache_that_grows_does_not_change_a_dataset(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item("a"), make_item("b"))
    dataset = tokcli.open_cache(tmp_path).as_torch_dataset()
    write_cache(tmp_path, make_item("a", kept=5, source_bytes=7), make_item("c"))
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy[number].id for number in range(len(copy))] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": True}, "are for iterable=True"),
        ({"iterable": True, "rank": 0}, "both rank and world_size"),
        ({"iterable": True, "rank": 2, "world_size": 2}, r"from 0 to world_size - 1 = 1, got 2"),
        ({"iterable": True, "buffer_size": 0}, "at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_go_together(cache: tokcli.TokenCache, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cache.as_torch_dataset(**arguments)
