"""Caches behind URLs: what is written is what a folder would hold, what is read is little more than is asked for."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from cache_common import make_item, make_manifest

from tokcli.cache import compact_cache, merge_caches, open_cache, repair_cache, verify_cache
from tokcli.cache.manifest import Manifest
from tokcli.cache.records import ErrorRow
from tokcli.cache.shard import ROW_GROUP_BYTES
from tokcli.cache.writer import CacheWriter
from tokcli.errors import CacheConflictError, CacheError, IntegrityError, UsageError
from tokcli.types import EncodedItem

URL = "s3://bucket/caches/one"
SHARDS = r"caches/one/data/part-"


@pytest.fixture
def items() -> list[EncodedItem]:
    return [make_item(f"item-{number}", 60 + 40 * number, seed=number) for number in range(6)]


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest()


def large_items(count: int) -> list[EncodedItem]:
    """Each of 3 MB: a row group of its own."""
    small = [make_item(f"item-{number}", 512, seed=number) for number in range(count)]
    wide = torch.arange(512 * 3072).reshape(512, 3072).half()
    return [replace(item, kept=replace(item.kept, tokens=wide + number)) for number, item in enumerate(small)]


def write(place: str | Path, manifest: Manifest, items: list[EncodedItem], **how: object) -> None:
    with CacheWriter(place, manifest, **how) as writer:
        for item in items:
            writer.write(item)
        writer.finish([item.id for item in items])


def tokens(cache: str | Path) -> dict[str, bytes]:
    return {
        item.id: item.kept.tokens.numpy().tobytes() + item.kept.coords.numpy().tobytes() for item in open_cache(cache)
    }


def names(url: str) -> list[str]:
    filesystem = fsspec.filesystem("s3")
    filesystem.invalidate_cache()
    return sorted(path.removeprefix(url.partition("://")[2] + "/") for path in filesystem.find(url))


def test_the_same_files_as_in_a_folder_each_by_one_put(s3, items, manifest, tmp_path):
    write(tmp_path / "local", manifest, items)
    s3.forget()
    write(URL, manifest, items)
    local = sorted(str(path.relative_to(tmp_path / "local")) for path in (tmp_path / "local").rglob("*"))
    local = [name for name in local if name not in ("data", "errors", ".lock")]
    assert names(URL) == local
    shard = next(name for name in local if name.startswith("data/"))
    filesystem = fsspec.filesystem("s3")
    assert filesystem.cat_file(f"bucket/caches/one/{shard}") == (tmp_path / "local" / shard).read_bytes()
    puts = [path for method, path, _ in s3.requests if method == "PUT"]
    assert sorted(puts) == [f"/bucket/caches/one/{name}" for name in local]
    assert tokens(URL) == tokens(tmp_path / "local")
    assert verify_cache(URL) == []


def test_opening_reads_footers_and_small_columns(s3, items, manifest):
    write(URL, manifest, items)
    s3.forget()
    cache = open_cache(URL)
    assert s3.counts(SHARDS) == {"GET": 2}
    # The manifest, the mark, and a listing of each table.
    assert s3.counts() == {"GET": 2 + 4}
    assert all("caches/one/" in path.replace("%2F", "/") for _, path, _ in s3.requests)
    s3.forget()
    assert len(cache.table()) == 6
    assert s3.counts() == {"GET": 2}
    assert cache.stats()["cache_bytes"] > 0
    assert s3.counts() == {"GET": 3}  # the table again; sizes are known from the listing


def test_random_access_is_one_request_for_one_row_group(s3, manifest):
    large = large_items(12)
    write(URL, manifest, large)
    s3.forget()
    cache = open_cache(URL)
    assert s3.counts(SHARDS) == {"GET": 1 + 12}  # the footer, and the small columns of each row group
    assert s3.sent < 12 * ROW_GROUP_BYTES / 4
    assert cache["item-5"].id == "item-5"  # opens the shard: its footer again
    for number in (7, 2, 9):
        s3.forget()
        assert cache[f"item-{number}"].kept.tokens.equal(large[number].kept.tokens)
        assert s3.counts() == {"GET": 1}
        assert s3.sent < 1.1 * large[number].kept.tokens.nbytes
    again = pickle.loads(pickle.dumps(cache))
    assert again["item-3"].kept.tokens.equal(large[3].kept.tokens)


def test_reading_in_order_takes_several_row_groups_at_once(s3, manifest):
    large = large_items(12)
    write(URL, manifest, large)
    cache = open_cache(URL)
    s3.forget()
    assert [item.id for item in cache] == [item.id for item in large]
    assert s3.counts()["GET"] <= 8  # the footer, one, and then two at a time: 3 MB each, 8 at most
    assert s3.sent < 1.1 * sum(item.kept.tokens.nbytes for item in large)


def test_a_writer_goes_on_where_one_was_killed(s3, items, manifest, tmp_path):
    """``kill -9`` in the middle of a put, after one shard was committed: that one counts, and nothing else is there."""
    code = """
import os, signal, sys
from tokcli.cache import open_cache
from tokcli.cache.writer import CacheWriter
from tokcli.storage import RemotePath
source = open_cache(sys.argv[1])
with CacheWriter(sys.argv[2], source.manifest) as writer:
    for number, item in enumerate(source):
        writer.write(item)
        if number == 1:
            writer.commit()
            RemotePath.put_file = lambda path, local: os.kill(os.getpid(), signal.SIGKILL)
        if number == 2:
            writer.commit()
"""
    source = tmp_path / "source"
    write(source, manifest, items)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.run([sys.executable, "-c", code, str(source), URL], env=environment, check=False)
    assert killed.returncode == -9
    assert len([name for name in names(URL) if name.startswith("data/")]) == 1
    assert not open_cache(URL).complete and len(open_cache(URL)) == 2
    assert len(list(temporary.iterdir())) == 1
    s3.forget()
    with CacheWriter(URL, manifest) as writer:
        assert writer.counts() == {"items": 2, "failed": 0}
        assert s3.counts(SHARDS) == {"GET": 2}  # its footer, and its small columns
        for item in items[2:]:
            writer.write(item)
        assert writer.finish([item.id for item in items]) == []
    assert tokens(URL) == tokens(source)
    assert verify_cache(URL) == []
    # What the killed one left on this machine goes when the next one needs such a folder.
    code = "from tokcli.storage import scratch_folder; scratch_folder()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(temporary.iterdir()) == []


def test_two_writers_at_once_do_no_harm(s3, items, manifest):
    with CacheWriter(URL, manifest) as one, CacheWriter(URL, manifest) as other:
        one.write(items[0])
        other.write(items[0])
        other.write(items[1])
    assert sorted(open_cache(URL).ids()) == sorted([items[0].id, items[1].id])
    assert open_cache(URL)[items[0].id].kept.tokens.equal(items[0].kept.tokens)


def test_what_supersedes_fails_and_goes(s3, items, manifest):
    write(URL, manifest, items[:3])
    with CacheWriter(URL, manifest) as writer:
        writer.fail(ErrorRow(items[0].id, "x", "decode", "Damaged", "for the test"))
        writer.write(items[3])
        writer.commit()
        writer.prune({items[1].id})
    cache = open_cache(URL)
    assert sorted(cache.ids()) == sorted([items[2].id, items[3].id])
    assert cache.errors()["id"].to_pylist() == [items[0].id]
    assert cache.stats()["cache_bytes"] > 0
    with pytest.raises(CacheConflictError):
        CacheWriter(URL, Manifest({**manifest.configuration, "seed": 5}))
    write(URL, manifest, items[:1], overwrite=True)
    assert open_cache(URL).ids() == [items[0].id]


def test_damage_is_found_and_named(s3, items, manifest):
    write(URL, manifest, items)
    filesystem = fsspec.filesystem("s3")
    shard = next(name for name in names(URL) if name.startswith("data/"))
    content = bytearray(filesystem.cat_file(f"bucket/caches/one/{shard}"))
    content[len(content) // 3] ^= 1
    filesystem.pipe_file(f"bucket/caches/one/{shard}", bytes(content))
    assert [problem.file for problem in verify_cache(URL)][:1] == [shard]
    filesystem.pipe_file(f"bucket/caches/one/{shard}", bytes(content[:-9]))
    with pytest.raises(IntegrityError, match=f"{URL}/{shard} is damaged"):
        open_cache(URL)
    with pytest.raises(UsageError, match="repairing works on folders of this machine only; copy the cache here"):
        repair_cache(URL)
    with pytest.raises(UsageError, match="compacting works on folders"):
        compact_cache(URL)


def test_reads_are_tried_again_and_not_for_ever(s3, items, manifest):
    write(URL, manifest, items)
    cache = open_cache(URL)
    s3.forget()
    left = [2]

    def refuse(method: str, path: str) -> int | None:
        left[0] -= 1
        return 500 if left[0] >= 0 else None

    s3.refuse = refuse
    assert cache[items[0].id].kept.tokens.equal(items[0].kept.tokens)
    assert s3.counts(SHARDS) == {"GET": 2 + 2}  # the footer at the third try, and the row group
    cache = open_cache(URL)
    s3.forget()
    s3.refuse = lambda method, path: 500
    with pytest.raises(CacheError, match="InternalError for the test"):
        cache[items[0].id]
    assert s3.counts(SHARDS) == {"GET": 4}


@pytest.mark.parametrize(
    "refused, url, said",
    [
        (None, "s3://nobucket/cache", "bucket does not exist|no manifest.json in it"),
        (403, URL, "AccessDenied for the test|Forbidden"),
    ],
)
def test_what_cannot_be_reached_is_one_line_and_nothing_is_written(s3, manifest, refused, url, said):
    s3.refuse = lambda method, path: refused
    for use in (lambda: CacheWriter(url, manifest), lambda: open_cache(url)):
        with pytest.raises(CacheError, match=said) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert "PUT" not in s3.counts()


def test_merging_reads_and_writes_both_kinds(s3, items, manifest, tmp_path):
    write(URL, manifest, items[:3])
    write(tmp_path / "local", manifest, items[3:])
    merge_caches([URL, tmp_path / "local"], "s3://bucket/caches/both")
    merge_caches([URL, tmp_path / "local"], tmp_path / "both")
    assert tokens("s3://bucket/caches/both") == tokens(tmp_path / "both")
    assert len(tokens(tmp_path / "both")) == len(items)
    assert verify_cache("s3://bucket/caches/both") == []


def test_other_kinds_of_urls(items, manifest, tmp_path):
    write(f"file://{tmp_path}/local", manifest, items)
    assert (tmp_path / "local" / "_SUCCESS").is_file()
    write("memory://caches/one", manifest, items)
    assert tokens("memory://caches/one") == tokens(tmp_path / "local")
    assert verify_cache("memory://caches/one") == []
