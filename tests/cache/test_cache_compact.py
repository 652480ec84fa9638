"""Shards rewritten in place: the same items, the same bytes, nothing that no longer counts."""

from __future__ import annotations

import datetime
import os
import random
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import assert_same_item, make_item, make_manifest, media_item, parts, write_cache

from tokcli.cache import CacheWriter, ErrorRow, compact_cache, merge_caches, open_cache, repair_cache, verify_cache
from tokcli.cache.prune import prune_items
from tokcli.cache.state import load_state
from tokcli.errors import CacheError, IntegrityError
from tokcli.types import EncodedItem

MANIFEST = make_manifest()


def error(item_id: str) -> ErrorRow:
    return ErrorRow(item_id, item_id, "decode", "MediaError", "no", source_bytes=1000, source_modified_ns=5)


def several_runs(path: Path, items: int = 9) -> dict[str, EncodedItem]:
    """Small shards with superseded rows, failures that came and went, and users' columns that widen."""
    want: dict[str, EncodedItem] = {}
    labels: list[Any] = [1, 2.5, "three", None, datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)]
    with CacheWriter(path, MANIFEST, max_shard_items=2, chunk_bytes=96) as writer:
        for number in range(items):
            merged = {"mass": torch.full((12,), 1.5), "assignment": torch.arange(512).int() % 12}
            metadata = {"label": labels[number % 5], "number": number}
            want[str(number)] = make_item(str(number), 12, seed=number, metadata=metadata, **merged)
            writer.write(want[str(number)])
        writer.fail(error("gone"))
        writer.fail(error("mended"))
        writer.commit()
        want["0"] = make_item("0", 20, seed=50, metadata={"number": 0}, stats={"seen": np.array([1, 2], np.int64)})
        want["mended"] = make_item("mended", 7, seed=51)
        writer.write(want["0"])
        writer.write(want["mended"])
        writer.fail(error("1"))
        del want["1"]
        assert writer.finish([*want, "gone", "1"]) == []
    return want


def contents(path: Path) -> dict[str, bytes]:
    cache = open_cache(path)
    return {item_id: cache[item_id].kept.tokens.view(torch.uint8).numpy().tobytes() for item_id in cache.ids()}


def assert_holds(path: Path, want: dict[str, EncodedItem], failed: set[str]) -> None:
    """These items, but that users' columns may have become wider."""
    cache = open_cache(path)
    assert sorted(cache.ids()) == sorted(want)
    assert {row["id"] for row in cache.errors().to_pylist()} == failed
    for item_id, item in want.items():
        got = cache[item_id]
        for name, value in item.metadata.items():
            told = str(got.metadata.get(name)).strip('"')
            assert told in (str(value), str(float(value)) if isinstance(value, int) else "")
        object.__setattr__(got, "metadata", item.metadata)
        assert_same_item(got, item)
    assert verify_cache(path) == []
    assert list(path.rglob(".tmp-*")) == []


def stored_ids(path: Path) -> Counter[str]:
    """How often an id stands in the shards, superseded rows included."""
    found: Counter[str] = Counter()
    for part in sorted(path.glob("data/*.parquet")):
        table = pq.read_table(part, columns=["id", "chunk"]).to_pylist()
        found.update(row["id"] for row in table if row["chunk"] == 0)
    for part in sorted(path.glob("errors/*.parquet")):
        found.update(pq.read_table(part, columns=["id"])["id"].to_pylist())
    return found


def test_compacting_keeps_every_byte(tmp_path: Path) -> None:
    want = several_runs(tmp_path)
    before, shards = contents(tmp_path), len(parts(tmp_path)) + len(parts(tmp_path, "errors"))
    foreseen = compact_cache(tmp_path, dry_run=True)
    assert len(parts(tmp_path)) + len(parts(tmp_path, "errors")) == shards
    done = compact_cache(tmp_path)
    assert (done.shards_before, done.shards_after, done.superseded) == (shards, 2, 3)
    assert (foreseen.shards_after, foreseen.superseded) == (done.shards_after, done.superseded)
    assert done.bytes_before > done.bytes_after
    assert done.bytes_after == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert contents(tmp_path) == before
    assert_holds(tmp_path, want, {"gone", "1"})
    assert max(stored_ids(tmp_path).values()) == 1
    assert open_cache(tmp_path).complete
    assert len(parts(tmp_path)) == len(parts(tmp_path, "errors")) == 1


@pytest.mark.parametrize("codec", ["bfloat16", "float32", "int8", "int8c", "int4", "fp8"])
@pytest.mark.parametrize("levels", [0, 2])
def test_all_codecs(tmp_path: Path, codec: str, levels: int) -> None:
    """Codes are moved as they are: decoding and encoding them again would lose a little each time."""
    model = {"model": "m", "fingerprint": "f" * 64} | ({"deepstack_levels": levels} if levels else {})
    manifest = make_manifest(tokens_dtype=codec, model=model)
    for seed in range(3):
        item = make_item(str(seed), 20, seed=seed, dtype=torch.float32)
        stacked = torch.randn(20, levels, 8) if levels else None
        item = replace(item, kept=replace(item.kept, deepstack=stacked))
        write_cache(tmp_path, item, manifest=manifest, chunk_bytes=200)
    rows = [pq.read_table(part).drop_columns(["sequence", "row_crc32"]) for part in sorted(tmp_path.glob("data/*"))]
    before = contents(tmp_path)
    assert compact_cache(tmp_path).shards_after == 1
    (part,) = tmp_path.glob("data/*")
    assert pq.read_table(part).drop_columns(["sequence", "row_crc32"]).to_pylist() == pa.concat_tables(rows).to_pylist()
    assert contents(tmp_path) == before
    assert verify_cache(tmp_path) == []


def test_compacting_again_does_nothing(tmp_path: Path) -> None:
    several_runs(tmp_path)
    compact_cache(tmp_path)
    names = parts(tmp_path), parts(tmp_path, "errors")
    done = compact_cache(tmp_path)
    assert (done.shards_before, done.shards_after, done.superseded) == (2, 2, 0)
    assert (parts(tmp_path), parts(tmp_path, "errors")) == names


def test_a_run_goes_on_after_compacting(tmp_path: Path) -> None:
    want = several_runs(tmp_path)
    compact_cache(tmp_path)
    with CacheWriter(tmp_path, MANIFEST) as writer:
        assert writer.state(media_item("3"), lambda: "") == "done"
        assert writer.state(media_item("1"), lambda: "") == writer.state(media_item("gone"), lambda: "") == "failed"
        want["new"] = make_item("new", 3)
        writer.write(want["new"])
    assert_holds(tmp_path, want, {"gone", "1"})


@pytest.mark.parametrize("limits", [{"max_shard_items": 4}, {"max_shard_bytes": 100_000}])
def test_full_shards_are_left_alone(tmp_path: Path, limits: dict[str, int]) -> None:
    items = [make_item(str(number), 500, seed=number) for number in range(12)]
    write_cache(tmp_path, *items, max_shard_items=4)
    write_cache(tmp_path, *(make_item(f"late {number}", 500) for number in range(3)), max_shard_items=1)
    before = parts(tmp_path)
    compact_cache(tmp_path, **limits)
    assert parts(tmp_path)[:3] == before[:3]
    assert len(parts(tmp_path)) < len(before)
    assert len(open_cache(tmp_path)) == 15
    names = parts(tmp_path)
    compact_cache(tmp_path, **limits)
    assert parts(tmp_path) == names


def test_a_cache_without_items(tmp_path: Path) -> None:
    write_cache(tmp_path)
    done = compact_cache(tmp_path)
    assert (done.shards_before, done.shards_after) == (0, 0)
    with CacheWriter(tmp_path, MANIFEST) as writer:
        writer.fail(error("a"))
        writer.commit()
        writer.write(make_item("a", 0))
    assert compact_cache(tmp_path).shards_after == 1
    assert_holds(tmp_path, {"a": make_item("a", 0)}, set())


def test_damage_is_not_carried_into_new_shards(tmp_path: Path) -> None:
    several_runs(tmp_path)
    first = tmp_path / "data" / parts(tmp_path)[2]
    content = bytearray(first.read_bytes())
    chunk = pq.read_metadata(first).row_group(0)
    last = chunk.column(chunk.num_columns - 1)
    content[last.data_page_offset + last.total_compressed_size - 1] ^= 1
    first.write_bytes(content)
    before = parts(tmp_path)
    with pytest.raises(IntegrityError, match=f"{first.name} is damaged"):
        compact_cache(tmp_path)
    assert parts(tmp_path) == before
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_a_column_of_a_newer_tokcli_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.cache import shard as shard_module

    rows_table = shard_module.rows_table
    with monkeypatch.context() as patch:
        # As a later version might write it.
        def wider(rows: list[Any], schema: Any) -> Any:
            import pyarrow as pa

            known = schema.remove(schema.get_field_index("later"))
            return rows_table(rows, known).add_column(0, schema.field("later"), pa.array([1] * len(rows)))

        def later(*arguments: Any) -> Any:
            import pyarrow as pa

            from tokcli.cache.schema import shard_schema

            schema = shard_schema(*arguments)
            return schema.insert(0, pa.field("later", pa.int64())).with_metadata(schema.metadata)

        patch.setattr("tokcli.cache.writer.shard_schema", later)
        patch.setattr("tokcli.cache.shard.rows_table", wider)
        write_cache(tmp_path, make_item("a"), make_item("b"), max_shard_items=1)
    assert open_cache(tmp_path).ids() == ["a", "b"]
    with pytest.raises(CacheError, match="has a column 'later' that this tokcli does not know and would lose"):
        compact_cache(tmp_path)


def test_one_at_a_time(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", make_item("a"))
    write_cache(tmp_path / "other", make_item("b"))
    with CacheWriter(tmp_path / "cache", MANIFEST) as writer:
        held = f"cache is being written by process {os.getpid()} on {socket.gethostname()}; wait for it"
        for change in (compact_cache, repair_cache, lambda path: merge_caches([tmp_path / "other"], path)):
            with pytest.raises(CacheError, match=held) as caught:
                change(tmp_path / "cache")
            assert caught.value.exit_code == 2
        assert compact_cache(tmp_path / "cache", dry_run=True).shards_after == 1  # looking needs no lock
        writer.finish(["a"])


def test_opening_while_shards_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader has listed the folder when compacting takes away what it lists."""
    from tokcli.cache import index
    from tokcli.cache.layout import Shard

    want, list_shards, calls = several_runs(tmp_path), index.list_shards, []

    def listed(cache: Path) -> list[Shard]:
        found = list_shards(cache)
        calls.append(len(found))
        if len(calls) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(index, "list_shards", list_shards)
                compact_cache(cache)
        return found

    monkeypatch.setattr(index, "list_shards", listed)
    assert sorted(open_cache(tmp_path).ids()) == sorted(want)
    assert calls[0] > calls[1] == 2


def prune(path: Path, ids: set[str], **limits: int) -> None:
    from tokcli.cache.layout import list_shards

    _, sequence = load_state(path, MANIFEST)
    sizes = {"max_shard_bytes": 1 << 20, "max_shard_items": 100} | limits
    prune_items(path, MANIFEST, ids, list_shards(path), sequence, **sizes)


def test_pruning_leaves_no_trace(tmp_path: Path) -> None:
    want = several_runs(tmp_path)
    (tmp_path / "_SUCCESS").unlink()
    untouched = [name for name in parts(tmp_path) if "4" in pq.read_table(tmp_path / "data" / name)["id"].to_pylist()]
    prune(tmp_path, {"0", "1", "mended", "gone", "no such id"})
    for item_id in ("0", "mended"):
        del want[item_id]
    assert_holds(tmp_path, want, set())
    assert not stored_ids(tmp_path).keys() & {"0", "1", "mended", "gone"}
    assert set(untouched) <= set(parts(tmp_path))  # what shares no shard with them is not rewritten


def test_random_histories(tmp_path: Path) -> None:
    """Writes, failures, compactions and prunings in any order, against a dictionary."""
    for seed in range(6):
        pick, path = random.Random(seed), tmp_path / str(seed)
        want: dict[str, EncodedItem] = {}
        failed: set[str] = set()
        for step in range(12):
            action = pick.choice(["write", "write", "fail", "compact", "prune"])
            ids = {str(pick.randrange(8)) for _ in range(pick.randrange(1, 4))}
            if action == "compact" and want:
                compact_cache(path, max_shard_items=pick.choice([2, 5, 100]))
            elif action == "prune" and want:
                prune(path, ids, max_shard_items=pick.choice([2, 100]))
                want = {item_id: item for item_id, item in want.items() if item_id not in ids}
                failed -= ids
            else:
                with CacheWriter(path, MANIFEST, max_shard_items=2, chunk_bytes=160) as writer:
                    for item_id in sorted(ids):
                        if action == "fail":
                            writer.fail(error(item_id))
                            failed.add(item_id)
                            want.pop(item_id, None)
                        else:
                            want[item_id] = make_item(item_id, pick.randrange(0, 30), seed=step)
                            writer.write(want[item_id])
                            failed.discard(item_id)
            if (path / "manifest.json").exists():
                assert_holds(path, want, failed)
