"""Every byte of every file of a cache, changed one at a time: verify tells, and reading is right or an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_common import assert_same_item, make_item, make_manifest

from tokcli.cache import CacheWriter, ErrorRow, open_cache, verify_cache
from tokcli.cache.blocks import TokenBlock
from tokcli.errors import CacheError
from tokcli.types import EncodedItem

MANIFEST = make_manifest(information={"inputs": ["clips"], "versions": {"torch": "2.9"}})
AT_ONCE = 500
"""Bytes tried in one child process: damage that crashes a decoder must not end the test unheard."""


def items() -> list[EncodedItem]:
    """A video in two rows with every blob, and a still with none but what it must have."""
    video = make_item(
        "a",
        6,
        mass=torch.full((6,), 1.5),
        assignment=torch.arange(512).int() % 6,
        stats={"seen": np.array([1.5])},
        metadata={"label": "cat"},
    )
    return [video, make_item("b", 2, kind="image", source_fps=None, sample_fps=None, seconds_per_step=None)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "cache"
    with CacheWriter(path, MANIFEST, chunk_bytes=64) as writer:
        for item in items():
            writer.write(item)
        writer.fail(ErrorRow("c", "clips/c", "decode", "MediaError", "broken", source_bytes=9))
        writer.finish("abc")
    assert verify_cache(path) == []
    return path


def told(cache: Path) -> bool:
    """Whether verify tells that something is wrong."""
    try:
        return verify_cache(cache) != []
    except CacheError:
        return True


def assert_never_wrong(cache: Path) -> None:
    """Reading gives what was written, or an error."""
    want = {item.id: item for item in items()}
    try:
        opened = open_cache(cache)
    except CacheError:
        return
    for item_id in opened.ids():
        try:
            got = opened[item_id]
        except CacheError:
            continue
        object.__setattr__(want[item_id], "metadata", {"label": "cat" if item_id == "a" else None})
        assert_same_item(got, want[item_id])
    try:
        for block in opened.blocks():
            for number, item_id in enumerate(block.ids):
                assert_part_of(want[item_id], block, slice(*block.starts[number : number + 2]))
    except CacheError:
        pass
    try:
        failed = opened.errors().to_pylist()
    except CacheError:
        return
    assert [(row["id"], row["message"], row["source_bytes"]) for row in failed] == [("c", "broken", 9)]


def assert_part_of(item: EncodedItem, block: TokenBlock, rows: slice) -> None:
    """What a block has of an item in these rows is what the item has there."""
    first = int(torch.nonzero(item.kept.source == block.source[rows][0])[0])
    for name in ("tokens", "coords", "source"):
        got, whole = getattr(block, name)[rows], getattr(item.kept, name)
        assert torch.equal(got, whole[first : first + len(got)])


def try_bytes(cache: Path, name: str, offsets: range) -> None:
    path = cache / name
    content = path.read_bytes()
    for offset in offsets:
        # One bit; a digit of hexadecimals becomes another, a blank no other blank.
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        assert told(cache), f"byte {offset} of {name} was changed, and nobody said so"
        assert_never_wrong(cache)
    path.write_bytes(content)


def in_child(cache: Path, name: str, offsets: range) -> None:
    child = os.fork()
    if child == 0:
        try:
            try_bytes(cache, name, offsets)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"{name}, bytes {offsets}: status {status}, see stderr"


@pytest.mark.parametrize("every", [293, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_every_byte_of_every_file(sound: Path, tmp_path: Path, every: int) -> None:
    files = sorted(path.relative_to(sound) for path in sound.rglob("*") if path.is_file() and path.name != ".lock")
    assert {path.name for path in files} >= {"manifest.json", "_SUCCESS"} and len(files) == 4
    tried = 0
    for file in files:
        cache = Path(shutil.copytree(sound, tmp_path / file.name.replace(".", "-")))
        size = (cache / file).stat().st_size
        for start in range(0, size, AT_ONCE):
            offsets = range(start, min(start + AT_ONCE, size), every)
            in_child(cache, str(file), offsets)
            tried += len(offsets)
    assert tried >= 12_000 // every
