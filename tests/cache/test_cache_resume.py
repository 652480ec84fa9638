"""The committed shards are the state: what is done, what failed, what changed, what is newest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cache_common import assert_same_item, make_item, make_manifest, media_item, parts, write_cache

from tokcli.cache import CacheWriter, ErrorRow, open_cache, verify_cache
from tokcli.errors import CacheError, IntegrityError, UsageError

MANIFEST = make_manifest()


def never() -> str:
    raise AssertionError("the file was hashed without need")


def error(item_id: str, **changes: object) -> ErrorRow:
    values: dict[str, object] = {"source_bytes": 1000, "source_modified_ns": 5}
    return ErrorRow(item_id, f"clips/{item_id}", "decode", "MediaError", "broken", **values | changes)  # type: ignore[arg-type]


def test_states(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, MANIFEST) as writer:
        writer.write(make_item("done"))
        writer.fail(error("failed"))
        # Also what is not committed yet counts, so that a repeated input is not done twice.
        assert writer.state(media_item("done"), never) == "done"
        assert writer.state(media_item("failed"), never) == "failed"
        assert writer.counts() == {"items": 1, "failed": 1}
    with CacheWriter(tmp_path, MANIFEST) as writer:
        assert writer.state(media_item("other"), never) == "new"
        assert writer.state(media_item("done"), never) == "done"
        assert writer.state(media_item("done", size=999), never) == "changed"
        assert writer.state(media_item("done", modified_ns=6), lambda: "ab" * 32) == "done"
        assert writer.state(media_item("done", modified_ns=6), lambda: "cd" * 32) == "changed"
        assert writer.state(media_item("failed"), never) == "failed"
        assert writer.state(media_item("failed", size=999), never) == "changed"
        assert writer.state(media_item("failed", modified_ns=6), never) == "changed"
        assert writer.counts() == {"items": 1, "failed": 1}


def test_an_unknown_modification_time_is_not_trusted(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item("a", source_modified_ns=0))
    with CacheWriter(tmp_path, MANIFEST) as writer:
        assert writer.state(media_item("a", modified_ns=0), lambda: "cd" * 32) == "changed"


def test_a_changed_item_is_superseded(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item("a", seed=1), make_item("b", seed=2))
    newer = make_item("a", kept=7, seed=3, source_bytes=2000)
    write_cache(tmp_path, newer)
    cache = open_cache(tmp_path)
    assert cache.ids() == ["b", "a"]  # in the order of writing
    assert_same_item(cache["a"], newer)
    assert cache.table()["id"].to_pylist() == ["b", "a"]
    assert cache.stats()["kept_tokens"] == 27
    with CacheWriter(tmp_path, MANIFEST) as writer:
        assert writer.state(media_item("a", size=2000), never) == "done"
        assert writer.state(media_item("a"), never) == "changed"
    assert verify_cache(tmp_path) == []


def test_twice_in_one_run_without_a_commit_between(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, MANIFEST) as writer:
        for seed in range(3):
            writer.write(make_item("a", seed=seed))
    assert len(parts(tmp_path)) == 3
    assert_same_item(open_cache(tmp_path)["a"], make_item("a", seed=2))


@pytest.mark.parametrize("commit", [False, True])
def test_success_and_failure_supersede_one_another(tmp_path: Path, commit: bool) -> None:
    with CacheWriter(tmp_path, MANIFEST) as writer:
        for number, what in enumerate(["fail", "write", "fail", "write"]):
            if what == "fail":
                writer.fail(error("a"))
            else:
                writer.write(make_item("a", seed=number))
            assert writer.counts() == {"items": int(what == "write"), "failed": int(what == "fail")}
            if commit:
                writer.commit()
                cache = open_cache(tmp_path)
                assert (len(cache), len(cache.errors())) == (int(what == "write"), int(what == "fail"))
    cache = open_cache(tmp_path)
    assert_same_item(cache["a"], make_item("a", seed=3))
    assert len(cache.errors()) == 0
    assert verify_cache(tmp_path) == []


def test_errors_are_a_table(tmp_path: Path) -> None:
    row = error("b\udcff", attempts=2, log_tail="[h264] no frame!\n" * 3)
    with CacheWriter(tmp_path, MANIFEST) as writer:
        writer.write(make_item("a"))
        writer.fail(row)
        assert writer.finish(["a", "b\udcff"]) == []
    cache = open_cache(tmp_path)
    (stored,) = cache.errors().to_pylist()
    assert stored["id"] == r"b\udcff"
    assert (stored["stage"], stored["error_class"], stored["message"]) == ("decode", "MediaError", "broken")
    assert (stored["attempts"], stored["log_tail"]) == (2, row.log_tail)
    with pytest.raises(CacheError, match=r"failed when .* was made and has no tokens"):
        cache[r"b\udcff"]


def test_success_stands_only_over_a_complete_cache(tmp_path: Path) -> None:
    success = tmp_path / "_SUCCESS"
    with CacheWriter(tmp_path, MANIFEST) as writer:
        writer.write(make_item("a"))
        assert writer.finish(["a", "b"]) == ["b"]
        assert not success.exists()
        writer.fail(error("b"))
        assert writer.finish(["a", "b"]) == []
    assert json.loads(success.read_text()) == {"items": 1, "failed": 1}
    assert verify_cache(tmp_path) == []
    writer = CacheWriter(tmp_path, MANIFEST)
    assert not success.exists()
    writer.close()


def test_limits_commit(tmp_path: Path) -> None:
    by_items, by_bytes, by_seconds = (tmp_path / name for name in ("items", "bytes", "seconds"))
    items = [make_item(str(n)) for n in range(6)]
    write_cache(by_items, *items, max_shard_items=2)
    write_cache(by_bytes, *items, max_shard_bytes=20 * (16 + 16 + 4) * 3)
    write_cache(by_seconds, *items, max_shard_seconds=0)
    assert [len(parts(path)) for path in (by_items, by_bytes, by_seconds)] == [3, 2, 6]
    for path in (by_items, by_bytes, by_seconds):
        assert open_cache(path).ids() == [item.id for item in items]


def test_shards_are_never_touched_again(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item("a"))
    (name,) = parts(tmp_path)
    before = (tmp_path / "data" / name).stat()
    write_cache(tmp_path, make_item("b"), make_item("a"))
    after = (tmp_path / "data" / name).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_exception_keeps_whole_items(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), CacheWriter(tmp_path, MANIFEST) as writer:
        writer.write(make_item("a"))
        writer.fail(error("b"))
        raise KeyboardInterrupt
    cache = open_cache(tmp_path)
    assert (cache.ids(), len(cache.errors())) == (["a"], 1)


def test_an_interrupt_between_rows_keeps_no_half_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.cache.shard import ShardWriter

    add, calls = ShardWriter.add, []

    def interrupted(self: ShardWriter, row: dict[str, object]) -> None:
        calls.append(row)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, row)

    monkeypatch.setattr(ShardWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt), CacheWriter(tmp_path, MANIFEST, chunk_bytes=32) as writer:
        writer.write(make_item("a", kept=10))
    assert len(open_cache(tmp_path)) == 0
    assert list((tmp_path / "data").iterdir()) == []


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path, MANIFEST)
    writer.close()
    writer.close()
    with pytest.raises(CacheError, match="is closed or has failed"):
        writer.write(make_item())


@pytest.mark.parametrize("table", ["data", "errors"])
def test_a_damaged_shard_stops_the_resume(tmp_path: Path, table: str) -> None:
    with CacheWriter(tmp_path, MANIFEST) as writer:
        writer.write(make_item("a"))
        writer.fail(error("b"))
    shard = tmp_path / table / parts(tmp_path, table)[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    for opens in (open_cache, lambda path: CacheWriter(path, MANIFEST)):
        with pytest.raises(
            IntegrityError, match=rf"{shard.name} is damaged .*; `tokcli repair {tmp_path}` takes it out"
        ) as caught:
            opens(tmp_path)
        assert "\n" not in str(caught.value)
    shard.unlink()  # what repairing does, but for keeping the file elsewhere
    with CacheWriter(tmp_path, MANIFEST) as writer:
        assert writer.state(media_item("a" if table == "data" else "b"), never) == "new"


def test_a_shard_of_another_cache_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path / "one", make_item("a"))
    write_cache(tmp_path / "two", make_item("b"), manifest=make_manifest(seed=1))
    (name,) = parts(tmp_path / "two")
    (tmp_path / "two" / "data" / name).rename(tmp_path / "one" / "data" / name)
    with pytest.raises(IntegrityError, match="was written with another configuration"):
        open_cache(tmp_path / "one")


def test_statistics_that_doubles_cannot_hold(tmp_path: Path) -> None:
    import numpy as np

    with CacheWriter(tmp_path, MANIFEST) as writer:
        with pytest.raises(UsageError, match=r"stat 'seen' of a .*does not fit in doubles"):
            writer.write(make_item("a", stats={"seen": np.array([2**53 + 1])}))
        writer.write(make_item("b"))
    assert open_cache(tmp_path).ids() == ["b"]
