"""Commands on a cache that are killed, for the crash table: what is there before, and what must hold after."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
from cache_common import assert_same_item, make_item, make_manifest, media_item

from tokcli.cache import (
    CacheWriter,
    ErrorRow,
    compact_cache,
    merge_caches,
    open_cache,
    repair_cache,
    verify_cache,
)
from tokcli.cache.part import Part
from tokcli.errors import CacheError

MANIFEST = make_manifest()
IDS = [f"clip-{number}" for number in range(7)]
FAILING = {"clip-2", "clip-6"}
WANT = {item_id: make_item(item_id, 20, seed=seed) for seed, item_id in enumerate(IDS) if item_id not in FAILING}


def error(item_id: str) -> ErrorRow:
    return ErrorRow(item_id, item_id, "decode", "MediaError", "no", source_bytes=1000, source_modified_ns=5)


def compress(
    path: Path, *, overwrite: bool = False, pruned: bool = False, ids: list[str] = IDS, part: Part | None = None
) -> int:
    """What a compress run does with a cache; gives how many items it had to do."""
    done = 0
    with CacheWriter(path, MANIFEST, overwrite=overwrite, part=part, max_shard_items=3, chunk_bytes=96) as writer:
        for item_id in ids:
            if part is not None and not part.has(item_id):
                continue
            if writer.state(media_item(item_id), lambda: "ab" * 32) in ("done", "failed"):
                continue
            done += 1
            if item_id in FAILING:
                writer.fail(error(item_id))
            else:
                writer.write(WANT[item_id])
        if pruned:
            writer.prune(writer.others(ids))
        missing = writer.finish(ids)
        assert all(part is not None and not part.has(item_id) for item_id in missing)
    return done


def assert_complete(path: Path, ids: list[str] = IDS) -> None:
    """The cache is what an undisturbed run makes, but for the cut into shards."""
    cache = open_cache(path)
    assert cache.complete
    assert sorted(cache.ids()) == sorted(set(ids) - FAILING)
    assert sorted(cache.errors()["id"].to_pylist()) == sorted(FAILING & set(ids))
    for item_id in cache.ids():
        assert_same_item(cache[item_id], WANT[item_id])
    assert verify_cache(path) == []
    assert list(path.rglob(".tmp-*")) == []


def assert_readable(path: Path) -> list[str]:
    """It opens, if there is a manifest, and gives whole items as they were written; their ids."""
    if not (path / "manifest.json").exists():
        return []
    cache = open_cache(path)
    for item_id in cache.ids():
        assert_same_item(cache[item_id], WANT[item_id])
    return cache.ids()


class Scenario:
    """A command on a cache: what is there before, what it does, and what must hold after a kill and in the end."""

    def prepare(self, path: Path) -> None:
        """Nothing is there."""

    def act(self, path: Path) -> None:
        compress(path)

    def killed(self, path: Path) -> None:
        assert_readable(path)

    def finished(self, path: Path) -> None:
        assert_complete(path)
        assert compress(path) == 0


class Compress(Scenario):
    pass


class Parts(Scenario):
    def act(self, path: Path) -> None:
        for index in range(2):
            compress(path, part=Part(index, 2))


class Overwrite(Scenario):
    def prepare(self, path: Path) -> None:
        compress(path)
        with CacheWriter(path, make_manifest(seed=1), overwrite=True, max_shard_items=2) as writer:
            for item in WANT.values():
                writer.write(item)
            writer.finish(WANT)

    def act(self, path: Path) -> None:
        compress(path, overwrite=True)


class Compact(Scenario):
    def prepare(self, path: Path) -> None:
        """Small shards with rows that no longer count."""
        with CacheWriter(path, MANIFEST) as writer:
            writer.write(make_item("clip-0", 5, seed=99))
            writer.write(WANT["clip-5"])
            writer.fail(error("clip-1"))
        with CacheWriter(path, MANIFEST, max_shard_items=2, chunk_bytes=96) as writer:
            for item_id in IDS:
                if item_id in FAILING:
                    writer.fail(error(item_id))
                elif item_id != "clip-5":
                    writer.write(WANT[item_id])
            writer.finish(IDS)

    def act(self, path: Path) -> None:
        compact_cache(path, max_shard_items=4)

    def killed(self, path: Path) -> None:
        assert sorted(assert_readable(path)) == sorted(WANT)  # all, at every moment
        assert open_cache(path).complete

    def finished(self, path: Path) -> None:
        assert_complete(path)
        rows = sum(
            pq.read_table(part, columns=["chunk"])["chunk"].to_pylist().count(0) for part in path.glob("data/*.parquet")
        )
        assert rows == len(WANT)


class Prune(Compact):
    KEPT: ClassVar = ["clip-1", "clip-2", "clip-4"]

    def act(self, path: Path) -> None:
        compress(path, pruned=True, ids=self.KEPT)

    def killed(self, path: Path) -> None:
        assert set(self.KEPT) - FAILING <= set(assert_readable(path)) <= set(WANT)

    def finished(self, path: Path) -> None:
        assert_complete(path, self.KEPT)
        stored = {row for part in path.rglob("*.parquet") for row in pq.read_table(part)["id"].to_pylist()}
        assert stored == set(self.KEPT)


class Merge(Scenario):
    def prepare(self, path: Path) -> None:
        compress(path.with_suffix(".one"), ids=IDS[:4])
        compress(path.with_suffix(".other"), ids=IDS[2:])

    def act(self, path: Path) -> None:
        merge_caches([path.with_suffix(".one"), path.with_suffix(".other")], path, max_shard_items=2)


class Repair(Compact):
    """A damaged shard whose items have older rows, a file that is no shard, and a manifest with damaged notes."""

    def prepare(self, path: Path) -> None:
        super().prepare(path)
        (shard,) = path.glob("data/part-000003-*.parquet")
        assert set(pq.read_table(shard, columns=["id"])["id"].to_pylist()) == {"clip-0", "clip-1"}
        chunk = pq.read_metadata(shard).row_group(0)
        column = chunk.column(chunk.num_columns - 1)
        content = bytearray(shard.read_bytes())
        content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
        shard.write_bytes(content)
        (path / "data" / "copy.parquet").write_bytes(b"PAR1")
        manifest = (path / "manifest.json").read_text()
        assert "torch_version" in manifest
        (path / "manifest.json").write_text(manifest.replace('"torch_version": "2.9"', '"torch_version": "2.8"'))

    def act(self, path: Path) -> None:
        repair_cache(path)

    def killed(self, path: Path) -> None:
        """Damaged still, or sound already; what is given out is right."""
        try:
            cache = open_cache(path)
        except CacheError:
            return
        for item_id in cache.ids():
            try:
                item = cache[item_id]
            except CacheError:
                continue
            assert_same_item(item, WANT[item_id])

    def finished(self, path: Path) -> None:
        assert verify_cache(path) == []
        assert not open_cache(path).complete
        assert set(assert_readable(path)) == set(WANT) - {"clip-0", "clip-1"}
        assert len(list((path / "damaged").iterdir())) == 2
        assert compress(path) == 2
        assert_complete(path)


SCENARIOS: dict[str, Scenario] = {
    kind.__name__.lower(): kind() for kind in (Compress, Parts, Overwrite, Compact, Prune, Merge, Repair)
}
