"""What it means that two caches hold the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from tokcli.cache import open_cache
from tokcli.types import EncodedItem


def assert_same_caches(left: Path, right: Path, *, but_for: tuple[str, ...] = ()) -> None:
    """Equal configuration, items and failures; tokens and all else bit for bit. ``but_for`` names fields of items."""
    one, other = open_cache(left), open_cache(right)
    assert one.manifest.differences(other.manifest) == []
    assert one.manifest.digest == other.manifest.digest
    assert one.complete == other.complete
    assert sorted(one.ids()) == sorted(other.ids()) != []
    for item_id in one.ids():
        assert_same_items(one[item_id], other[item_id], but_for=but_for)
    drop = ["sequence", "message"]
    errors = [cache.errors().drop_columns(drop).sort_by("id").to_pylist() for cache in (one, other)]
    assert errors[0] == errors[1]


def assert_same_items(one: EncodedItem, other: EncodedItem, *, but_for: tuple[str, ...] = ()) -> None:
    for field in fields(EncodedItem):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "kept" or field.name in but_for:
            continue
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, (one.id, field.name)
    for name in ("tokens", "coords", "mass", "source", "assignment", "deepstack"):
        a, b = getattr(one.kept, name), getattr(other.kept, name)
        assert (a is None) == (b is None), (one.id, name)
        if a is not None:
            assert a.dtype == b.dtype, (one.id, name)
            assert torch.equal(a, b), (one.id, name)
    assert one.kept.stats.keys() == other.kept.stats.keys(), one.id
    for name, values in one.kept.stats.items():
        assert values.dtype == other.kept.stats[name].dtype, (one.id, name)
        assert np.array_equal(values, other.kept.stats[name]), (one.id, name)
