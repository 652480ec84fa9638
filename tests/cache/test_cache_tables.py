"""Metadata as tables: in Python, and by tools that know nothing of tokcli. The queries are those of SPEC.md."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pytest
import torch
from cache_common import HIDDEN, make_item, make_manifest, write_cache

import tokcli.cache
from tokcli.cache import CacheWriter, ErrorRow, open_cache
from tokcli.errors import CacheError

SPEC = (Path(tokcli.cache.__file__).parent / "SPEC.md").read_text()


def example(language: str, number: int) -> str:
    """A code block of the specification."""
    return re.findall(rf"```{language}\n(.*?)```", SPEC, re.DOTALL)[number]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache at ``cache`` in the working folder: a superseded item, an image, a failure."""
    monkeypatch.chdir(tmp_path)
    stats = {"drop_ratio": np.array([0.0, 0.75, 0.25], np.float32)}
    with CacheWriter("cache", make_manifest(), chunk_bytes=160) as writer:
        writer.write(make_item("a.mp4", 10, seed=1, metadata={"label": "old"}))
        writer.write(make_item("b.mp4", 30, seed=2, metadata={"label": "dog"}, stats=stats))
        writer.write(make_item("late.mp4", 5))
        writer.commit()
        writer.write(make_item("a.mp4", 20, seed=3, metadata={"label": "cat"}, stats=stats))
        writer.write(make_item("c.png", 40, seed=4, kind="image", duration_seconds=0.0, source_bytes=50))
        writer.fail(ErrorRow("bad.mp4", "clips/bad.mp4", "decode", "MediaError", "no frames"))
        writer.fail(ErrorRow("late.mp4", "clips/late.mp4", "decode", "MediaError", "changed and broken"))
    return tmp_path / "cache"


def test_duckdb_reads_the_items_of_the_specification(folder: Path) -> None:
    rows = duckdb.sql(example("sql", 0)).fetchall()
    assert rows == [("b.mp4", 30, 512), ("a.mp4", 20, 512), ("c.png", 40, 512)]


def test_duckdb_reads_statistics(folder: Path) -> None:
    assert dict(duckdb.sql(example("sql", 1)).fetchall()) == {"a.mp4": 0.75, "b.mp4": 0.75}


def test_duckdb_counts_failures(folder: Path) -> None:
    assert duckdb.sql(example("sql", 2)).fetchall() == [("decode", "MediaError", 2)]


def test_tokens_without_tokcli(folder: Path) -> None:
    names: dict[str, object] = {}
    exec(example("python", 0), names)
    assert torch.equal(names["tokens"], open_cache(folder)["b.mp4"].kept.tokens)  # type: ignore[arg-type]
    assert names["tokens"].shape == (30, HIDDEN)  # type: ignore[attr-defined]


def test_the_python_of_the_specification(folder: Path) -> None:
    names: dict[str, object] = {}
    exec(example("python", 1), names)
    assert isinstance(names["frame"], pandas.DataFrame)


def test_table_and_pandas(folder: Path) -> None:
    cache = open_cache(folder)
    table = cache.table()
    assert table["id"].to_pylist() == cache.ids() == ["b.mp4", "a.mp4", "c.png"]
    assert table["meta_label"].to_pylist() == ["dog", "cat", None]
    assert not set(table.column_names) & {"tokens", "coords", "source", "mass", "assignment", "chunk", "num_chunks"}
    assert cache.table(["kept_tokens", "id"]).column_names == ["kept_tokens", "id"]
    frame = cache.to_pandas()
    assert frame.groupby("kind")["kept_tokens"].sum().to_dict() == {"image": 40, "video": 50}
    with pytest.raises(CacheError, match=r"has no column 'labels'; it has id, "):
        cache.table(["labels"])


def test_stats(folder: Path) -> None:
    stats = open_cache(folder).stats()
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    video = {"items": 2, "kept_tokens": 50, "source_tokens": 1024, "source_bytes": 2000, "media_seconds": 4.0}
    image = {"items": 1, "kept_tokens": 40, "source_tokens": 512, "source_bytes": 50, "media_seconds": 0.0}
    total = {name: video[name] + image[name] for name in video}
    assert stats == {**total, "failed": 2, "cache_bytes": size, "kinds": {"image": image, "video": video}}


def test_an_empty_cache(tmp_path: Path) -> None:
    write_cache(tmp_path)
    cache = open_cache(tmp_path)
    assert (len(cache), len(cache.table()), len(cache.errors()), len(cache.to_pandas())) == (0, 0, 0, 0)
    assert cache.stats()["items"] == cache.stats()["kept_tokens"] == 0
    assert cache.stats()["kinds"] == {}
    assert list(cache) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], [1.0, 2.5, None]),
        ([2**60, 0.5], [float(2**60), 0.5]),
        ([1, "x", True, 2.0], ["1", "x", "true", "2.0"]),
        (["x", ["a"], {"k": 1}], ["x", '["a"]', '{"k": 1}']),
        ([[1], [2.5], []], [[1.0], [2.5], []]),
        ([2**80, 1], [str(2**80), "1"]),
        ([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([None, None], None),
        ([Decimal("1.5"), "x"], ['"1.5"', "x"]),
        (["\udcff"], ["\\udcff"]),
        ([b"\x00", b"\x01"], [b"\x00", b"\x01"]),
    ],
)
@pytest.mark.parametrize("runs", [1, 2], ids=["one-run", "a-run-each"])
def test_metadata_of_mixed_types(tmp_path: Path, values: list[object], expected: list[object], runs: int) -> None:
    items = [make_item(str(n), metadata={"x": value, "n": n}) for n, value in enumerate(values)]
    for batch in [items] if runs == 1 else [[item] for item in items]:
        write_cache(tmp_path, *batch)
    cache = open_cache(tmp_path)
    assert cache.table()["meta_n"].to_pylist() == list(range(len(values)))
    if expected is None:
        assert "meta_x" not in cache.table().column_names
    else:
        assert cache.table()["meta_x"].to_pylist() == expected
    assert len(list(cache)) == len(values)
