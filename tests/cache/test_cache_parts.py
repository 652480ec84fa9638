"""Several writers of one cache at once, each of its own part."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from cache_common import assert_same_item, make_item, make_manifest, media_item

from tokcli.cache import CacheWriter, ErrorRow, compact_cache, open_cache, repair_cache, verify_cache
from tokcli.cache.folder import make_folder
from tokcli.cache.layout import list_shards
from tokcli.cache.lock import CacheLockedError
from tokcli.cache.part import Part
from tokcli.errors import CacheConflictError

MANIFEST = make_manifest()
IDS = [f"clips/{number:02d}.mp4" for number in range(40)]
FAILING = set(IDS[::9])
WANT = {item_id: make_item(item_id, 6, seed=seed) for seed, item_id in enumerate(IDS) if item_id not in FAILING}
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves the page cache as it is."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def fill(path: Path, part: Part | None, ids: list[str] = IDS, seeds: int = 0) -> tuple[int, list[str]]:
    """What a run does with its part; gives how many items it had to do, and which of all are missing at its end."""
    done = 0
    with CacheWriter(path, MANIFEST, part=part, max_shard_items=3, chunk_bytes=96) as writer:
        for item_id in ids:
            if (part is not None and not part.has(item_id)) or writer.state(media_item(item_id), lambda: "ab" * 32) in (
                "done",
                "failed",
            ):
                continue
            done += 1
            if item_id in FAILING:
                writer.fail(ErrorRow(item_id, item_id, "decode", "MediaError", "no", 1, "", 1000, 5))
            else:
                writer.write(WANT[item_id] if not seeds else make_item(item_id, 6, seed=seeds))
        return done, writer.finish(ids)


def started(*calls: Callable[[], object]) -> Sequence[BaseProcess]:
    """Processes that begin at one moment."""
    barrier = FORK.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        call()

    processes = [FORK.Process(target=run, args=(call,)) for call in calls]
    for process in processes:
        process.start()
    return processes


def assert_whole(path: Path) -> None:
    cache = open_cache(path)
    assert cache.complete
    assert sorted(cache.ids()) == sorted(WANT)
    assert sorted(cache.errors()["id"].to_pylist()) == sorted(FAILING)
    for item_id in cache.ids():
        assert_same_item(cache[item_id], WANT[item_id])
    assert verify_cache(path) == []
    assert list(path.rglob(".tmp-*")) == []
    sequences = [shard.sequence for shard in list_shards(path)]
    assert len(sequences) == len(set(sequences))


def test_four_processes_fill_one_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    processes = started(*(lambda index=index: fill(path, Part(index, 4)) for index in range(4)))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert_whole(path)
    assert len(list_shards(path)) >= 12
    assert fill(path, Part(2, 4)) == (0, [])
    assert fill(path, None) == (0, [])
    assert_whole(path)


def test_all_end_at_once_and_the_cache_is_marked(tmp_path: Path) -> None:
    """Each may find others still there, but for the last: never does nobody mark the cache."""
    end = FORK.Barrier(6)

    def run(path: Path, part: Part) -> None:
        with CacheWriter(path, MANIFEST, part=part) as writer:
            for item_id in filter(part.has, IDS):
                writer.write(make_item(item_id, 2))
            writer.commit()
            end.wait()
            writer.finish(IDS)

    for number in range(5):
        path = tmp_path / str(number)
        processes = started(*(lambda path=path, i=i: run(path, Part(i, 6)) for i in range(6)))
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 6
        assert open_cache(path).complete
        assert verify_cache(path) == []


def test_no_mark_while_another_part_is_at_work(tmp_path: Path) -> None:
    """All items are there, but one is about to be done again: its counts would be wrong."""
    for index in range(2):
        fill(tmp_path, Part(index, 2))
    again = CacheWriter(tmp_path, MANIFEST, part=Part(1, 2))
    assert not open_cache(tmp_path).complete
    assert fill(tmp_path, Part(0, 2)) == (0, [])
    assert not open_cache(tmp_path).complete
    failed = next(item_id for item_id in IDS if again._part.has(item_id) and item_id in FAILING)  # type: ignore[union-attr]
    again.write(make_item(failed, 3))
    assert again.finish(IDS) == []
    assert open_cache(tmp_path).complete
    assert verify_cache(tmp_path) == []


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    of_others = [item_id for item_id in IDS if not Part(0, 3).has(item_id)]
    done, missing = fill(tmp_path, Part(0, 3))
    assert (done, missing) == (len(IDS) - len(of_others), of_others)
    assert not open_cache(tmp_path).complete
    assert set(open_cache(tmp_path).ids()) == set(WANT) - set(of_others)


@pytest.mark.parametrize("count", [8, 3, None])
def test_another_number_of_parts_goes_on(tmp_path: Path, count: int | None) -> None:
    """What is newer wins, whoever wrote it: numbers go on above all that were seen."""
    for index in range(4):
        fill(tmp_path, Part(index, 4), ids=IDS[:25], seeds=99)
    others = [None] if count is None else [Part(index, count) for index in range(count)]
    for part in others:
        with CacheWriter(tmp_path, MANIFEST, part=part, max_shard_items=2) as writer:
            for item_id in IDS:
                if part is None or part.has(item_id):
                    if item_id in FAILING:
                        writer.fail(ErrorRow(item_id, item_id, "decode", "MediaError", "no", 1, "", 1000, 5))
                    else:
                        writer.write(WANT[item_id])
            writer.finish(IDS)
    assert_whole(tmp_path)
    compact_cache(tmp_path)
    assert_whole(tmp_path)
    assert fill(tmp_path, Part(1, 2)) == (0, [])


def test_items_of_other_parts_are_refused(tmp_path: Path) -> None:
    foreign = next(item_id for item_id in WANT if not Part(0, 2).has(item_id))
    with CacheWriter(tmp_path, MANIFEST, part=Part(0, 2)) as writer:
        with pytest.raises(ValueError, match=f"{foreign} does not belong to part 1/2"):
            writer.write(WANT[foreign])
        with pytest.raises(ValueError, match="does not belong to part 1/2"):
            writer.fail(ErrorRow(foreign, foreign, "decode", "MediaError", "no"))
    with pytest.raises(ValueError, match="cannot replace"):
        CacheWriter(tmp_path, MANIFEST, part=Part(0, 2), overwrite=True)


@pytest.fixture
def part_at_work(tmp_path: Path) -> Iterator[Path]:
    with CacheWriter(tmp_path / "cache", MANIFEST, part=Part(2, 8)):
        yield tmp_path / "cache"


@pytest.mark.parametrize(
    "command",
    [
        lambda path: CacheWriter(path, MANIFEST),
        lambda path: CacheWriter(path, MANIFEST, overwrite=True),
        compact_cache,
        repair_cache,
    ],
    ids=["compress", "overwrite", "compact", "repair"],
)
def test_parts_keep_the_whole_out(part_at_work: Path, command: Callable[[Path], object]) -> None:
    with pytest.raises(
        CacheLockedError, match=rf"is being written by part 3/8, process {os.getpid()} on \S+; wait for"
    ):
        command(part_at_work)


def test_the_whole_keeps_parts_out(tmp_path: Path) -> None:
    refusal = rf"is being written by process {os.getpid()} on \S+; wait for it"
    with CacheWriter(tmp_path, MANIFEST), pytest.raises(CacheLockedError, match=refusal):
        CacheWriter(tmp_path, MANIFEST, part=Part(0, 2))
    with CacheWriter(tmp_path, MANIFEST, part=Part(0, 2)), CacheWriter(tmp_path, MANIFEST, part=Part(1, 2)):
        pass
    CacheWriter(tmp_path, MANIFEST).close()


def test_a_part_keeps_itself_and_other_numbers_of_parts_out(part_at_work: Path) -> None:
    with pytest.raises(CacheLockedError, match=rf"part 3/8 of \S+ is being written by process {os.getpid()} on"):
        CacheWriter(part_at_work, MANIFEST, part=Part(2, 8))
    with pytest.raises(
        CacheLockedError, match=r"written in 8 parts \(part 3/8, .* part 1/4 has to wait .* --shard i/8"
    ):
        CacheWriter(part_at_work, MANIFEST, part=Part(0, 4))
    CacheWriter(part_at_work, MANIFEST, part=Part(3, 8)).close()


def test_another_configuration_is_refused_and_the_lock_given_back(part_at_work: Path) -> None:
    with pytest.raises(CacheConflictError, match="was made with another configuration"):
        CacheWriter(part_at_work, make_manifest(seed=1), part=Part(0, 8))
    CacheWriter(part_at_work, MANIFEST, part=Part(0, 8)).close()


def test_a_new_cache_is_begun_by_many_at_once(tmp_path: Path) -> None:
    """The first one's manifest stands; none takes the folder for somebody else's."""

    def run(path: Path, number: int) -> None:
        with CacheWriter(path, make_manifest(information={"host": str(number)}), part=Part(number, 8)) as writer:
            for item_id in filter(Part(number, 8).has, WANT):
                writer.write(WANT[item_id])
                writer.commit()

    for number in range(6):
        path = tmp_path / str(number)
        processes = started(*(lambda path=path, i=i: run(path, i) for i in range(8)))
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 8
        assert sorted(open_cache(path).ids()) == sorted(WANT)


def test_a_folder_that_another_makes_between_two_looks_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, exists = tmp_path / "cache", Path.exists

    def made_meanwhile(path: Path) -> bool:
        cache.mkdir(exist_ok=True)
        return exists(path)

    monkeypatch.setattr(Path, "exists", made_meanwhile)
    make_folder(cache)
    assert cache.is_dir()


def test_a_part_clears_away_nothing_of_others(tmp_path: Path) -> None:
    """Temporaries of parts that may be at work stay; what nobody can be writing goes."""
    fill(tmp_path, Part(0, 4))
    kept = ["data/.tmp-002-of-004-aa", "errors/.tmp-004-of-004-bb"]
    stale = ["data/.tmp-001-of-004-cc", "data/.tmp-002-of-008-dd", ".tmp-0123456789abcdef", "data/.tmp-ee"]
    for name in (*kept, *stale):
        (tmp_path / name).write_bytes(b"x")
    CacheWriter(tmp_path, MANIFEST, part=Part(0, 4)).close()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob(".tmp-*")) == kept
    CacheWriter(tmp_path, MANIFEST).close()
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_temporaries_carry_the_name_of_the_part(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, MANIFEST, part=Part(1, 3)) as writer:
        writer.write(WANT[next(filter(Part(1, 3).has, WANT))])
        (temporary,) = tmp_path.rglob(".tmp-*")
        assert re.fullmatch(r"\.tmp-002-of-003-[0-9a-f]{32}", temporary.name)


def test_a_killed_part_is_resumed_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    other = CacheWriter(path, MANIFEST, part=Part(1, 2))

    def die() -> None:
        with CacheWriter(path, MANIFEST, part=Part(0, 2), max_shard_items=3) as writer:
            for item_id in list(filter(Part(0, 2).has, WANT))[:8]:
                writer.write(WANT[item_id])
            os.kill(os.getpid(), 9)

    (process,) = started(die)
    process.join()
    assert process.exitcode == -9
    assert len(list(path.rglob(".tmp-001-of-002-*"))) == 1
    (own,) = filter(Part(0, 2).has, [next(filter(Part(0, 2).has, WANT))])
    assert own in open_cache(path)
    done, missing = fill(path, Part(0, 2))
    assert done == sum(map(Part(0, 2).has, IDS)) - 6
    assert missing == [item_id for item_id in IDS if Part(1, 2).has(item_id)]
    other.close()
    fill(path, Part(1, 2))
    assert_whole(path)
