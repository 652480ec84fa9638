"""Several caches of one configuration become one: every row once, none decoded, nothing decided in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cache_common import assert_same_item, make_item, make_manifest, parts, write_cache

from tokcli.cache import CacheWriter, ErrorRow, merge_caches, open_cache, verify_cache
from tokcli.errors import CacheConflictError, IntegrityError, UsageError

MANIFEST = make_manifest()


def error(item_id: str) -> ErrorRow:
    return ErrorRow(item_id, item_id, "decode", "MediaError", "no", source_bytes=1000, source_modified_ns=5)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """a, b, and c failed; c, d, b of the same file, and e failed."""
    one, other = tmp_path / "one", tmp_path / "other"
    with CacheWriter(one, MANIFEST, max_shard_items=1, chunk_bytes=160) as writer:
        writer.write(make_item("a", 30, seed=1, metadata={"label": 1}))
        writer.write(make_item("b", seed=2))
        writer.fail(error("c"))
        writer.finish("abc")
    with CacheWriter(other, make_manifest(information={"host": "b"})) as writer:
        writer.write(make_item("d", seed=9))
        writer.commit()
        writer.write(make_item("c", seed=3))
        writer.write(make_item("d", seed=4, metadata={"label": "x"}))
        writer.write(make_item("b", seed=2))
        writer.fail(error("e"))
        writer.finish("bcde")
    return one, other


def test_merged(two: tuple[Path, Path], tmp_path: Path) -> None:
    done = merge_caches(two, tmp_path / "all")
    assert (done.items, done.failed, done.copied, done.conflicts, done.complete) == (4, 1, 5, (), True)
    cache = open_cache(tmp_path / "all")
    assert sorted(cache.ids()) == list("abcd")
    for item_id, item in (
        ("a", make_item("a", 30, seed=1, metadata={"label": "1"})),
        ("b", make_item("b", seed=2, metadata={"label": None})),
        ("c", make_item("c", seed=3, metadata={"label": None})),
        ("d", make_item("d", seed=4, metadata={"label": "x"})),
    ):
        assert_same_item(cache[item_id], item)
    assert [row["id"] for row in cache.errors().to_pylist()] == ["e"]
    assert verify_cache(tmp_path / "all") == []
    assert cache.manifest.information["merged_from"] == [str(path) for path in two]
    assert json.loads((tmp_path / "all" / "_SUCCESS").read_text()) == {"failed": 1, "items": 4}
    assert cache.manifest.digest == open_cache(two[0]).manifest.digest


def test_again_and_more(two: tuple[Path, Path], tmp_path: Path) -> None:
    merge_caches(two, tmp_path / "all")
    assert merge_caches(two, tmp_path / "all").copied == 0
    write_cache(tmp_path / "third", make_item("z"), make_item("e", seed=7))
    done = merge_caches([tmp_path / "third"], tmp_path / "all")
    assert (done.items, done.failed, done.copied, done.complete) == (6, 0, 2, True)
    assert_same_item(open_cache(tmp_path / "all")["z"], make_item("z", metadata={"label": None}))
    assert verify_cache(tmp_path / "all") == []


def test_an_incomplete_source_makes_an_incomplete_cache(two: tuple[Path, Path], tmp_path: Path) -> None:
    (two[1] / "_SUCCESS").unlink()
    assert not merge_caches(two, tmp_path / "all").complete
    assert not open_cache(tmp_path / "all").complete
    with CacheWriter(tmp_path / "begun", MANIFEST) as writer:
        writer.write(make_item("y"))
    assert not merge_caches([two[0]], tmp_path / "begun").complete


def test_conflicts(two: tuple[Path, Path], tmp_path: Path) -> None:
    newer = make_item("a", 3, seed=8, source_hash="cd" * 32, source_modified_ns=9)
    write_cache(tmp_path / "third", newer, make_item("b", source_hash="cd" * 32, source_modified_ns=1))
    caches = [*two, tmp_path / "third"]
    with pytest.raises(UsageError, match=r"2 items were made of different files under one id \(a, b\)"):
        merge_caches(caches, tmp_path / "all")
    assert not (tmp_path / "all").exists()
    assert set(merge_caches(caches, tmp_path / "first", on_conflict="first").conflicts) == {"a", "b"}
    assert len(open_cache(tmp_path / "first")["a"].kept) == 30
    merge_caches(caches, tmp_path / "newest", on_conflict="newest")
    taken = make_item("a", 3, seed=8, source_hash="cd" * 32, source_modified_ns=9, metadata={"label": None})
    assert_same_item(open_cache(tmp_path / "newest")["a"], taken)
    assert open_cache(tmp_path / "newest")["b"].source_hash == "ab" * 32
    assert verify_cache(tmp_path / "newest") == []


def test_other_configurations_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    write_cache(tmp_path / "third", make_item("z"), manifest=make_manifest(seed=1))
    with pytest.raises(CacheConflictError, match=rf"seed: 0 in {two[0]}, 1 in {tmp_path / 'third'}") as caught:
        merge_caches([*two, tmp_path / "third"], tmp_path / "all")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "all").exists()
    with pytest.raises(CacheConflictError):
        merge_caches(two, tmp_path / "third")


def test_the_same_weights_under_another_name(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Rows say which configuration they belong to: those of the other name are written anew with the first one's."""
    model = {"model": "/copies/nano", "fingerprint": "f" * 64, "dtype": "bfloat16"}
    write_cache(tmp_path / "third", make_item("z"), manifest=make_manifest(model=model))
    merge_caches([two[0], tmp_path / "third"], tmp_path / "all")
    assert verify_cache(tmp_path / "all") == []
    assert_same_item(open_cache(tmp_path / "all")["z"], make_item("z", metadata={"label": None}))


def test_what_cannot_be_the_output(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is one of the caches to merge"):
        merge_caches(two, two[0])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        merge_caches(two, tmp_path / "full")


def test_a_damaged_source(two: tuple[Path, Path], tmp_path: Path) -> None:
    bad = two[1] / "data" / parts(two[1])[-1]
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match=f"{bad.name} is damaged"):
        merge_caches(two, tmp_path / "all")
    assert not (tmp_path / "all").exists()
