"""Parts that any item may go into: somebody else sees to it that each item goes into one."""

from __future__ import annotations

from pathlib import Path

from cache_common import make_item, make_manifest, media_item

from tokcli.cache import CacheWriter, ErrorRow, open_cache, verify_cache
from tokcli.cache.layout import list_shards
from tokcli.cache.part import Stripe
from tokcli.cache.state import load_state

MANIFEST = make_manifest()
IDS = [f"clips/{number:02d}.mp4" for number in range(12)]


def test_any_item_goes_into_any_stripe_and_the_numbers_never_meet(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with CacheWriter(cache, MANIFEST) as whole:
        whole.write(make_item("old", 6))
    with (
        CacheWriter(cache, MANIFEST, part=Stripe(0, 2), max_shard_items=2) as one,
        CacheWriter(cache, MANIFEST, part=Stripe(1, 2), max_shard_items=2) as other,
    ):
        assert one.state(media_item("old"), lambda: "ab" * 32) == "new"  # it knows nothing of the others
        for number, item_id in enumerate(IDS):
            (one if number < 9 else other).write(make_item(item_id, 6, seed=number))
    sequences = [shard.sequence for shard in list_shards(cache)]
    assert len(set(sequences)) == len(sequences) == 1 + 5 + 2
    assert sorted(open_cache(cache).ids()) == sorted([*IDS, "old"])
    assert verify_cache(cache) == []


def test_what_is_committed_is_told(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "cache", MANIFEST, part=Stripe(0, 1), max_shard_items=2) as writer:
        writer.write(make_item("a", 6))
        assert not writer.is_committed("a")
        writer.fail(ErrorRow("b", "b", "decode", "MediaError", "no"))  # the second row fills the shard
        assert writer.is_committed("a") and writer.is_committed("b")
        writer.fail(ErrorRow("b", "b", "decode", "MediaError", "no"))
        assert not writer.is_committed("b")
        writer.commit()
        assert writer.is_committed("b")


def test_the_state_since_a_shard_has_what_came_from_then_on(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for item_id in ("a", "b"):
        with CacheWriter(cache, MANIFEST) as writer:
            writer.write(make_item(item_id, 6))
    last = list_shards(cache)[-1].sequence
    assert load_state(cache, MANIFEST)[0].keys() == {"a", "b"}
    assert load_state(cache, MANIFEST, least=last)[0].keys() == {"b"}
    assert load_state(cache, MANIFEST, least=last + 1)[0].keys() == set()
