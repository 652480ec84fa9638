"""A damaged cache is made sound again, nothing that can be saved is thrown away, and what is lost is named."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cache_common import assert_same_item, make_item, make_manifest, media_item, parts

from tokcli.cache import CacheWriter, ErrorRow, open_cache, repair_cache, verify_cache
from tokcli.errors import CacheError, IntegrityError

MANIFEST = make_manifest(information={"inputs": ["clips"]})


def error(item_id: str) -> ErrorRow:
    return ErrorRow(item_id, item_id, "decode", "MediaError", "no", source_bytes=1000, source_modified_ns=5)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Shard 1: a, b; 2: failed f; 3: a anew, c; 4: f, which works now."""
    path = tmp_path / "cache"
    with CacheWriter(path, MANIFEST) as writer:
        writer.write(make_item("a", seed=1))
        writer.write(make_item("b", seed=2))
        writer.fail(error("f"))
        writer.commit()
        writer.write(make_item("a", seed=3, source_bytes=1001))
        writer.write(make_item("c", seed=4))
        writer.commit()
        writer.write(make_item("f", seed=5))
        assert writer.finish(["a", "b", "c", "f"]) == []
    return path


def shard(cache: Path, sequence: int) -> Path:
    (path,) = cache.glob(f"*/part-{sequence:06d}-*.parquet")
    return path


def flip_tokens(path: Path) -> None:
    """A byte that the checksums of pages and rows find, and that hides nobody's id."""
    group = pq.read_metadata(path).row_group(0)
    last = group.column(group.num_columns - 1)
    flip(path, last.data_page_offset + last.total_compressed_size - 1)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def run_again(cache: Path) -> list[str]:
    """The next compress run; gives what it had to make."""
    sizes, made = {"a": 1001}, []
    with CacheWriter(cache, MANIFEST) as writer:
        for seed, item_id in ((3, "a"), (2, "b"), (4, "c"), (5, "f")):
            size = sizes.get(item_id, 1000)
            if writer.state(media_item(item_id, size), lambda: "ab" * 32) != "done":
                made.append(item_id)
                writer.write(make_item(item_id, seed=seed, source_bytes=size))
        assert writer.finish("abcf") == []
    assert verify_cache(cache) == []
    for seed, item_id in ((3, "a"), (2, "b"), (4, "c"), (5, "f")):
        assert_same_item(
            open_cache(cache)[item_id], make_item(item_id, seed=seed, source_bytes=sizes.get(item_id, 1000))
        )
    return made


def test_a_sound_cache_is_not_touched(cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.name != ".lock"}
    done = repair_cache(cache)
    assert (done.problems, done.moved, done.redo, done.unnamed) == ((), (), (), False)
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()} == before
    assert not (cache / "damaged").exists()


def test_a_damaged_shard_is_moved_and_its_items_are_named(cache: Path) -> None:
    bad = shard(cache, 3)
    flip_tokens(bad)
    content = bad.read_bytes()
    foreseen = repair_cache(cache, dry_run=True)
    assert bad.exists() and (cache / "_SUCCESS").exists()
    done = repair_cache(cache)
    assert foreseen.problems == done.problems and foreseen.redo == done.redo == ("a", "c")
    assert (done.moved, done.unnamed) == ((f"data/{bad.name}",), False)
    assert (cache / "damaged" / bad.name).read_bytes() == content
    assert verify_cache(cache) == []
    assert not (cache / "_SUCCESS").exists()
    # The older row of `a` was of another file: it does not come back to life.
    assert open_cache(cache).ids() == ["f", "b"]
    assert repair_cache(cache) == type(done)()
    assert run_again(cache) == ["a", "c"]


def test_an_old_failure_does_not_come_back(cache: Path) -> None:
    flip_tokens(shard(cache, 4))
    assert repair_cache(cache).redo == ("f",)
    assert len(open_cache(cache).errors()) == 0  # else the next run would take it for failed and leave it
    assert run_again(cache) == ["f"]


@pytest.mark.parametrize("where", [0, -1, -40])
def test_a_shard_whose_ids_cannot_be_read(cache: Path, where: int) -> None:
    bad = shard(cache, 3)
    if where == 0:
        bad.write_bytes(bad.read_bytes()[:-100])
    else:
        flip(bad, where)
    done = repair_cache(cache)
    assert (done.redo, done.unnamed, len(done.moved)) == ((), True, 1)
    assert verify_cache(cache) == []
    assert run_again(cache) == ["a", "c"]


def test_damaged_errors(cache: Path) -> None:
    with CacheWriter(cache, MANIFEST) as writer:
        writer.fail(error("g"))
    bad = cache / "errors" / parts(cache, "errors")[-1]
    flip(bad, 60)
    done = repair_cache(cache)
    assert done.moved == (f"errors/{bad.name}",)
    assert verify_cache(cache) == []
    assert set(open_cache(cache).ids()) == set("abcf")


def test_all_that_can_be_wrong_at_once(cache: Path) -> None:
    (cache / "data" / "export.parquet").write_bytes(b"PAR1")
    twin = shard(cache, 4)
    twin.with_name(twin.name.replace("000004", "000003")).write_bytes(twin.read_bytes())
    (cache / "_SUCCESS").write_text("yes\n")
    (cache / "data" / ".tmp-left").write_bytes(b"x")
    manifest = (cache / "manifest.json").read_text()
    (cache / "manifest.json").write_text(manifest.replace("clips", "clops"))
    with pytest.raises(IntegrityError, match="is not what was written"):
        open_cache(cache)
    done = repair_cache(cache)
    assert {problem.file.split("/")[0] for problem in done.problems} == {"manifest.json", "data"}
    assert sorted(Path(name).name[:11] for name in done.moved) == ["export.parq", "part-000003"]
    assert verify_cache(cache) == [] and list(cache.rglob(".tmp-*")) == []
    assert run_again(cache) in ([], ["a", "c"])  # which of the two with one number is the true one, nobody can tell
    assert repair_cache(cache).problems == ()


def test_a_lost_shard(cache: Path) -> None:
    shard(cache, 3).unlink()
    done = repair_cache(cache)
    assert [problem.file for problem in done.problems] == ["_SUCCESS"]
    assert done.unnamed
    assert verify_cache(cache) == []
    assert run_again(cache) == ["a", "c"]


def test_what_cannot_be_mended(cache: Path, tmp_path: Path) -> None:
    manifest = (cache / "manifest.json").read_text()
    (cache / "manifest.json").write_text(manifest.replace('"threshold": 0.5', '"threshold": 0.6'))
    with pytest.raises(IntegrityError, match="no shard confirms what is left of its configuration"):
        repair_cache(cache)
    (cache / "manifest.json").write_text(manifest[:-30])
    with pytest.raises(IntegrityError, match="is damaged"):
        repair_cache(cache)
    assert json.loads(manifest)["format"] == 1
    with pytest.raises(CacheError, match="is not a token cache"):
        repair_cache(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_copy_that_came_back_is_kept_beside_the_first(cache: Path) -> None:
    bad = shard(cache, 3)
    flip_tokens(bad)
    content = bad.read_bytes()
    repair_cache(cache)
    bad.write_bytes(content)
    repair_cache(cache)
    assert sorted(path.name for path in (cache / "damaged").iterdir()) == [bad.name, f"{bad.name}.1"]
