"""Processes that are killed, disks that are full, writers that meet: nothing is lost, nothing comes twice."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_common import assert_same_item, make_item, make_manifest, media_item, parts

from tokcli.cache import Cache, CacheWriter, ErrorRow, atomic, open_cache, shard, verify_cache, writer
from tokcli.errors import CacheError

MANIFEST = make_manifest()
IDS = [f"clip-{number}" for number in range(7)]
FAILING = {"clip-2", "clip-6"}


def run(path: Path) -> int:
    """What a compress run does with a cache; gives how many items it had to do."""
    done = 0
    with CacheWriter(path, MANIFEST, max_shard_items=3, chunk_bytes=96) as cache_writer:
        for seed, item_id in enumerate(IDS):
            if cache_writer.state(media_item(item_id), lambda: "ab" * 32) in ("done", "failed"):
                continue
            done += 1
            if item_id in FAILING:
                row = ErrorRow(item_id, item_id, "decode", "MediaError", "no", source_bytes=1000, source_modified_ns=5)
                cache_writer.fail(row)
            else:
                cache_writer.write(make_item(item_id, 20, seed=seed))
        assert cache_writer.finish(IDS) == []
    return done


def assert_complete(path: Path) -> None:
    """The cache is what one undisturbed run would have made, but for the cut into shards."""
    cache = open_cache(path)
    assert sorted(cache.ids()) == sorted(set(IDS) - FAILING)
    assert sorted(cache.errors()["id"].to_pylist()) == sorted(FAILING)
    for seed, item_id in enumerate(IDS):
        if item_id not in FAILING:
            assert_same_item(cache[item_id], make_item(item_id, 20, seed=seed))
    assert stored_rows(cache) == len(IDS)  # none twice, not even out of sight
    assert verify_cache(path) == []
    assert list(path.rglob(".tmp-*")) == []
    assert (path / "_SUCCESS").exists()


def stored_rows(cache: Cache) -> int:
    """Items and errors in the shards, superseded ones included."""
    import pyarrow.parquet as pq

    data = (pq.read_table(part, columns=["chunk"])["chunk"].to_pylist() for part in cache.path.glob("data/*.parquet"))
    errors = (pq.read_metadata(part).num_rows for part in cache.path.glob("errors/*.parquet"))
    return sum(column.count(0) for column in data) + sum(errors)


def forked(work: Callable[[], object]) -> int:
    """Run ``work`` in a child process and give the child's id."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def points(counter: Callable[[], None]) -> Iterator[tuple[object, str, Callable[..., Any]]]:
    """Wraps every step that changes what is on disk, with ``counter`` called before and after each."""

    def wrapped(step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **named: Any) -> Any:
            counter()
            result = step(*arguments, **named)
            counter()
            return result

        return stepped

    steps = [(Path, "replace"), (shard.ShardWriter, "_flush"), (shard._HashingFile, "sync"), (atomic, "sync_folder")]
    for owner, name in [*steps, (writer, "write_success")]:
        yield owner, name, wrapped(getattr(owner, name))


def test_killed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill before and after each step in turn, run again, and compare with an undisturbed run."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill leaves the page cache as it is
    number = 0
    while True:
        path = tmp_path / str(number)

        def killed_run(path: Path = path, left: list[int] = [number]) -> None:  # noqa: B006
            def counter() -> None:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

            for owner, name, replacement in points(counter):
                setattr(owner, name, replacement)
            run(path)

        _, status = os.waitpid(forked(killed_run), 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        run(path)
        assert_complete(path)
        number += 1
    assert number > 30  # manifest, shards of both tables, _SUCCESS: the steps were really there
    assert_complete(path)


@pytest.mark.parametrize("folders", [3, pytest.param(40, marks=pytest.mark.long)])
def test_killed_at_random_moments(tmp_path: Path, folders: int) -> None:
    pick = random.Random(folders)
    number, kills = 0, 0
    began = time.monotonic()
    os.waitpid(forked(lambda: run(tmp_path / "undisturbed")), 0)
    whole = time.monotonic() - began
    # A run that goes on is shorter than a whole one, so that some kills come too late, more of them on a busy machine.
    while number < folders or kills <= folders:
        assert number < 10 * folders, "hardly any kill came in time"
        path = tmp_path / str(number)
        for _ in range(6):
            child = forked(lambda path=path: run(path))  # type: ignore[misc]
            time.sleep(pick.uniform(0, whole))
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            if (path / "manifest.json").exists():
                open_cache(path)  # readable at every moment
        run(path)
        assert_complete(path)
        number += 1


def test_killed_while_overwriting(tmp_path: Path) -> None:
    """At every moment the folder is a cache, of the old configuration or of the new."""
    newer = make_manifest(seed=1)
    for number in range(8):
        path = tmp_path / str(number)
        run(path)

        def killed_run(path: Path = path, left: int = number) -> None:
            unlink, replace = Path.unlink, Path.replace
            calls = iter([True] * left)

            def counted(step: Callable[..., Any]) -> Callable[..., Any]:
                def stepped(*arguments: Any, **named: Any) -> Any:
                    if not next(calls, False):
                        os.kill(os.getpid(), signal.SIGKILL)
                    return step(*arguments, **named)

                return stepped

            Path.unlink, Path.replace = counted(unlink), counted(replace)  # type: ignore[assignment, method-assign]
            CacheWriter(path, newer, overwrite=True)

        assert os.WIFSIGNALED(os.waitpid(forked(killed_run), 0)[1])
        cache = open_cache(path)
        assert cache.manifest.configuration in (MANIFEST.configuration, newer.configuration)
        assert len(list(cache)) == len(cache)
        CacheWriter(path, newer, overwrite=True).close()
        assert (len(open_cache(path)), open_cache(path).manifest.configuration) == (0, newer.configuration)


def test_a_run_over_a_complete_cache_does_nothing(tmp_path: Path) -> None:
    assert run(tmp_path) == len(IDS)
    before = parts(tmp_path), parts(tmp_path, "errors")
    assert run(tmp_path) == 0
    assert (parts(tmp_path), parts(tmp_path, "errors")) == before


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    ready, tell = os.pipe()

    def hold() -> None:
        with CacheWriter(tmp_path, MANIFEST):
            os.write(tell, b"x")
            time.sleep(60)

    child = forked(hold)
    os.read(ready, 1)
    with pytest.raises(CacheError, match=f"is being written by process {child} on ") as caught:
        CacheWriter(tmp_path, MANIFEST)
    assert caught.value.exit_code == 2
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert run(tmp_path) == len(IDS)
    assert_complete(tmp_path)


def test_readers_need_no_lock(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, MANIFEST) as cache_writer:
        cache_writer.write(make_item("a"))
        cache_writer.commit()
        snapshot = open_cache(tmp_path)
        cache_writer.write(make_item("b"))
        cache_writer.commit()
        assert (len(snapshot), len(open_cache(tmp_path))) == (1, 2)
        assert_same_item(snapshot["a"], make_item("a"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: str) -> None:
    with CacheWriter(tmp_path, MANIFEST) as cache_writer:
        cache_writer.write(make_item("a"))
    before = parts(tmp_path)
    cache_writer = CacheWriter(tmp_path, MANIFEST)
    cache_writer.write(make_item("b"))

    def refuse(self: object, data: object = None) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(shard._HashingFile, step, refuse)
        with pytest.raises(CacheError, match=f"cannot write in .*: {os.strerror(code)}; what was committed") as caught:
            cache_writer.commit()
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
        with pytest.raises(CacheError, match="is closed or has failed"):
            cache_writer.write(make_item("c"))
        cache_writer.close()
    assert parts(tmp_path) == before
    assert list(tmp_path.rglob(".tmp-*")) == []
    assert open_cache(tmp_path).ids() == ["a"]
    assert run(tmp_path) == len(IDS)


def test_a_file_size_limit_met_for_real(tmp_path: Path) -> None:
    """The kernel refuses in the middle of an item's rows."""
    with CacheWriter(tmp_path, MANIFEST) as cache_writer:
        cache_writer.write(make_item("a"))

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with CacheWriter(tmp_path, MANIFEST, chunk_bytes=16) as cache_writer:
            with pytest.raises(CacheError, match=f"cannot write in .*: {os.strerror(errno.EFBIG)}; "):
                for number in range(1000):
                    cache_writer.write(make_item(f"b{number}", 512))
                    cache_writer.commit() if number % 2 else None
            assert list(tmp_path.rglob(".tmp-*")) == []
        os._exit(7)

    _, status = os.waitpid(forked(limited), 0)
    assert os.WEXITSTATUS(status) == 7
    assert "a" in open_cache(tmp_path)
    assert verify_cache(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CacheError, match=r"cannot write in .*: Permission denied"):
        CacheWriter(tmp_path / "new", MANIFEST)
