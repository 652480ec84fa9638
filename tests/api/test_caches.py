"""Selecting items, and what is known of them without their tokens."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from cache_common import make_item, write_cache

import tokcli
from tokcli.errors import CacheError, UsageError

LABELS = {"a.mp4": "cat", "b.mp4": "dog", "c.mp4": "cat", "d.mp4": None}


@pytest.fixture
def cache(tmp_path: Path) -> tokcli.TokenCache:
    items = [
        make_item(name, kept=10 + number, seed=number, metadata={"label": label})
        for number, (name, label) in enumerate(LABELS.items())
    ]
    write_cache(tmp_path, *items)
    return tokcli.open_cache(tmp_path)


def test_where_gives_a_cache_of_the_items_that_pass(cache: tokcli.TokenCache) -> None:
    cats = cache.where("label = 'cat' and kept_tokens > 10")
    assert cats.ids() == ["c.mp4"] and len(cats) == 1 and "a.mp4" not in cats
    assert [item.metadata["label"] for item in cache.where("label = 'cat'")] == ["cat", "cat"]
    assert cats.table(["id"]).to_pylist() == [{"id": "c.mp4"}]
    assert cats.stats()["kept_tokens"] == len(cats[0].kept) == 12
    assert len(cache) == 4 and len(cache.where("label = 'cow'")) == 0
    with pytest.raises(CacheError, match=r"no item 'a\.mp4'"):
        cats["a.mp4"]
    assert pickle.loads(pickle.dumps(cats)).ids() == ["c.mp4"]
    assert type(pickle.loads(pickle.dumps(cache))) is tokcli.TokenCache
    assert cache.where("duration_s > 1").where("label = 'dog'").ids() == ["b.mp4"]


def test_a_condition_that_is_none_is_an_error(cache: tokcli.TokenCache) -> None:
    with pytest.raises(UsageError, match="Referenced column"):
        cache.where("lable = 'cat'")


def test_select_keeps_the_order_of_the_cache(cache: tokcli.TokenCache) -> None:
    assert cache.select(["d.mp4", "b.mp4"]).ids() == ["b.mp4", "d.mp4"]
    with pytest.raises(CacheError, match=r"no item 'e\.mp4'; the nearest is"):
        cache.select(["a.mp4", "e.mp4"])


def test_metadata_and_fingerprints_without_tokens(cache: tokcli.TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokcli.TokenCache, "__getitem__", lambda *_: pytest.fail("tokens were read"))
    known = cache.metadata("b.mp4")
    assert (known["label"], known["kept_tokens"], known["duration_s"]) == ("dog", 11, 2.0)
    assert "tokens" not in known
    assert cache.fingerprint == cache.manifest.digest and cache.tower_fingerprint == "f" * 64
    with pytest.raises(CacheError, match="no item"):
        cache.metadata("nothing")
