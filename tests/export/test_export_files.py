"""Formats of data: what their own libraries read back is what the cache holds."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import IDS, run
from safetensors import safe_open

from tokcli.cache import Cache, open_cache
from tokcli.errors import UsageError

CACHES = ["odd_cache", "merged_cache"]


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def check_item(cache: Cache, item_id: str, got: dict[str, torch.Tensor]) -> None:
    """Every tensor of an item, bit for bit and of the same type."""
    want = cache.tensors(item_id) | {"indices": torch.from_numpy(cache[item_id].indices)}
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("together", [1, 2])
def test_safetensors_hold_all_tensors_and_their_grids(cache: Path, together: int, tmp_path: Path) -> None:
    summary = run(cache, tmp_path / "out", "safetensors", samples_per_shard=together)
    opened = open_cache(cache)
    index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))["items"]
    assert [entry["id"] for entry in index] == opened.ids()
    assert len({entry["file"].lower() for entry in index}) == -(-len(opened) // together)
    for entry in index:
        with safe_open(tmp_path / "out" / entry["file"], "pt") as file:
            names = [name for name in file.keys() if name.startswith(entry["prefix"])]  # noqa: SIM118
            check_item(opened, entry["id"], {n.removeprefix(entry["prefix"]): file.get_tensor(n) for n in names})
            told = json.loads(file.metadata()[entry["prefix"].rstrip("/") or "item"])
        item = opened[entry["id"]]
        assert told["grids"] == [list(view.grid) for view in item.views]
        assert (told["id"], told["kept_tokens"]) == (item.id, len(item.kept)) == (entry["id"], entry["tokens"])
        assert told["metadata"] == dict(item.metadata)
    assert summary.items == len(opened) and summary.tokens == sum(entry["tokens"] for entry in index)
    sizes = [path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert (summary.files, summary.bytes) == (len(sizes), sum(sizes))


def test_webdataset_reads_every_sample(cache: Path, tmp_path: Path) -> None:
    import webdataset

    run(cache, tmp_path / "out", "webdataset", samples_per_shard=2)
    opened = open_cache(cache)
    shards = sorted(str(path) for path in (tmp_path / "out").glob("shard-*.tar"))
    assert len(shards) == -(-len(opened) // 2)
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert [sample["json"]["id"] for sample in samples] == opened.ids()
    for sample in samples:
        arrays = {name.removesuffix(".npy"): value for name, value in sample.items() if name.endswith(".npy")}
        check_item(opened, sample["json"]["id"], {name: torch.from_numpy(value) for name, value in arrays.items()})
        assert sample["json"]["grids"] == [list(view.grid) for view in opened[sample["json"]["id"]].views]


def test_datasets_reads_typed_rows(cache: Path, tmp_path: Path) -> None:
    import datasets

    run(cache, tmp_path / "out", "hf-datasets", samples_per_shard=2)
    opened = open_cache(cache)
    parts = sorted(str(path) for path in (tmp_path / "out" / "data").glob("*.parquet"))
    assert len(parts) == -(-len(opened) // 2)
    by_files = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(tmp_path / "hf"))
    by_folder = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))
    assert by_files.features == by_folder.features
    assert by_files.features["tokens"] == datasets.Array2D(shape=(None, 8), dtype="float16")
    assert by_files.features["kept_tokens"] == datasets.Value("int64")
    assert by_folder["id"][:] == opened.ids()
    for row in by_files.with_format("numpy"):
        item = opened[str(row["id"])]
        # The library reads no tokens at all as an array of no width.
        np.testing.assert_array_equal(np.reshape(row["tokens"], (-1, 8)), item.kept.tokens.numpy())
        np.testing.assert_array_equal(np.reshape(row["coords"], (-1, 4)), item.kept.coords.numpy())
        for name in ("mass", "source"):
            np.testing.assert_array_equal(row[name], getattr(item.kept, name).numpy())
        np.testing.assert_array_equal(row["times"], item.times)
        np.testing.assert_array_equal(np.reshape(row["grids"], (-1, 3)), [view.grid for view in item.views])
        assert json.loads(str(row["metadata"])) == dict(item.metadata)
        if item.kept.assignment is not None:
            np.testing.assert_array_equal(row["assignment"], item.kept.assignment.numpy())
    # The library turns all floats into torch's default type.
    assert torch.equal(by_files.with_format("torch")[0]["tokens"], opened[0].kept.tokens.float())


def test_names_leave_the_folder_nowhere(odd_cache: Path, tmp_path: Path) -> None:
    assert open_cache(odd_cache).ids() == list(IDS)
    run(odd_cache, tmp_path / "deep" / "er" / "out", "safetensors")
    run(odd_cache, tmp_path / "deep" / "er" / "tars", "webdataset")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["deep", "er", "out", "tars"]
    with tarfile.open(tmp_path / "deep" / "er" / "tars" / "shard-000000.tar") as tar:
        names = tar.getnames() + [path.name for path in (tmp_path / "deep" / "er" / "out").iterdir()]
    assert all(name.isascii() and "/" not in name and len(name) < 100 and " " not in name for name in names)


def test_quantized_caches_give_float16_and_types_can_be_chosen(merged_cache: Path, tmp_path: Path) -> None:
    assert run(merged_cache, tmp_path / "a", "safetensors").tokens_dtype == "float16"
    assert run(merged_cache, tmp_path / "b", "safetensors", tokens_dtype="bfloat16").tokens_dtype == "bfloat16"
    entry = json.loads((tmp_path / "b" / "index.json").read_text())["items"][0]
    with safe_open(tmp_path / "b" / entry["file"], "pt") as file:
        assert torch.equal(file.get_tensor("tokens"), open_cache(merged_cache)["m.mp4"].kept.tokens.bfloat16())
    with pytest.raises(UsageError, match="webdataset has no bfloat16; take float32"):
        run(merged_cache, tmp_path / "c", "webdataset", tokens_dtype="bfloat16")


def test_bfloat16_widens_where_a_format_has_none_and_float16_is_checked(tmp_path: Path) -> None:
    import webdataset
    from cache_common import make_item, make_manifest, write_cache

    item = make_item("a.mp4", dtype=torch.bfloat16)
    item.kept.tokens[0, 0] = 1e6
    write_cache(tmp_path / "cache", item, manifest=make_manifest(tokens_dtype="bfloat16"))
    assert run(tmp_path / "cache", tmp_path / "a", "webdataset").tokens_dtype == "float32"
    (sample,) = webdataset.WebDataset(str(tmp_path / "a" / "shard-000000.tar"), shardshuffle=False).decode()
    assert torch.equal(torch.from_numpy(sample["tokens.npy"]), item.kept.tokens.float())
    with pytest.raises(UsageError, match=r"tokens of a\.mp4 reach .*, float16 ends at 65504; .* bfloat16 or float32"):
        run(tmp_path / "cache", tmp_path / "b", "safetensors", tokens_dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "cache"]


def test_shards_end_before_they_are_too_large(odd_cache: Path, tmp_path: Path) -> None:
    run(odd_cache, tmp_path / "out", "safetensors", samples_per_shard=100, max_shard_size="1KB")
    index = json.loads((tmp_path / "out" / "index.json").read_text())["items"]
    files = [entry["file"] for entry in index]
    for file in set(files):
        with safe_open(tmp_path / "out" / file, "pt") as opened:
            size = sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118
        assert size <= 1000 or files.count(file) == 1
    assert 1 < len(set(files)) < len(files)


def test_levels_are_exported_and_not_shared_with_tokens(tmp_path: Path) -> None:
    from dataclasses import replace

    import datasets
    from cache_common import make_item, make_manifest, write_cache

    item = make_item("a.mp4", kept=6)
    levels = torch.randn(6, 2, 8).half()
    item = replace(item, kept=replace(item.kept, deepstack=levels))
    model = {"model": "tiny", "family": "qwen3_vl", "fingerprint": "f", "deepstack_levels": 2}
    write_cache(tmp_path / "cache", item, manifest=make_manifest(model=model))
    run(tmp_path / "cache", tmp_path / "a", "safetensors")
    (entry,) = json.loads((tmp_path / "a" / "index.json").read_text())["items"]
    with safe_open(tmp_path / "a" / entry["file"], "pt") as file:
        assert torch.equal(file.get_tensor("deepstack"), levels)
        assert torch.equal(file.get_tensor("tokens"), item.kept.tokens)
    run(tmp_path / "cache", tmp_path / "b", "hf-datasets")
    rows = datasets.load_dataset(str(tmp_path / "b"), split="train", cache_dir=str(tmp_path / "hf"))
    assert rows.features["deepstack"] == datasets.Array3D(shape=(None, 2, 8), dtype="float16")
    assert torch.equal(rows.with_format("torch")[0]["deepstack"], levels.float())
