"""Tokens stored by a codebook: the nearest centroids, and nothing without the very codebook."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import HIDDEN, make_item, make_manifest

from tokcli.cache import CacheWriter, Manifest, decode_row, open_cache, verify_cache
from tokcli.cache.codebook import FILE, KEY, LEAST_VECTORS, Codebook, load_codebook, train
from tokcli.cache.codecs import codec_of
from tokcli.cache.compact import compact_cache
from tokcli.cache.merge import merge_caches
from tokcli.errors import CacheError, IntegrityError, UsageError

SIZES = {"pq4": 4, "pq8": 8}


def some_codebook(size: int, width: int = HIDDEN, seed: int = 0) -> Codebook:
    rng = np.random.default_rng(seed)
    return Codebook(rng.normal(size=(width // size, 256, size)).astype("<f4"))


def manifest_of(codebook: Codebook, codec: str) -> Manifest:
    manifest = make_manifest(tokens_dtype=codec)
    return replace(manifest, configuration={**manifest.configuration, KEY: codebook.digest})


def write(path: Path, codec: str, codebook: Codebook, *names: str) -> None:
    with CacheWriter(path, manifest_of(codebook, codec), codebook=codebook) as writer:
        for seed, name in enumerate(names):
            writer.write(make_item(name, 20, seed=seed))
            writer.commit()
        assert writer.finish(names) == []


def nearest(codebook: Codebook, tokens: torch.Tensor) -> torch.Tensor:
    """What should come back, part by part, by the plain definition in double precision."""
    parts, _, size = codebook.centroids.shape
    back = torch.empty(tokens.shape, dtype=torch.float16)
    for part in range(parts):
        some = tokens[:, part * size : (part + 1) * size].double().numpy()
        distances = np.square(some[:, None] - codebook.centroids[part].astype(np.float64)).sum(axis=2)
        back[:, part * size : (part + 1) * size] = torch.from_numpy(
            codebook.centroids[part][distances.argmin(axis=1)]
        ).half()
    return back


@pytest.mark.parametrize("codec", SIZES)
def test_the_nearest_centroid_of_every_part(codec: str) -> None:
    codebook = some_codebook(SIZES[codec], 64)
    tokens = torch.randn(700, 64, generator=torch.Generator().manual_seed(1))
    coder = codec_of(codec, codebook)
    encoded = coder.encode(tokens)
    assert encoded.nbytes == coder.num_bytes(700, 64) == 700 * 64 // SIZES[codec]
    assert torch.equal(coder.decode(pa.py_buffer(encoded.tobytes()), 64), nearest(codebook, tokens))


def test_training_finds_the_parts_that_there_are() -> None:
    """256 different values of each part: a codebook can hold them all, and k-means nearly does."""
    rng = np.random.default_rng(0)
    parts = 10 * rng.normal(size=(4, 256, 4)).astype(np.float32)
    picks = rng.integers(0, 256, (LEAST_VECTORS, 4))
    vectors = np.concatenate([parts[part][picks[:, part]] for part in range(4)], axis=1)
    codebook = train(vectors, 4)
    error = np.square(codebook.decode(codebook.encode(vectors)) - vectors).sum(axis=1).mean()
    assert error < 0.05 * np.square(vectors).sum(axis=1).mean()
    assert train(vectors, 4).digest == codebook.digest


def test_training_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="vectors of 12 numbers can't be cut in parts of 8"):
        train(np.zeros((LEAST_VECTORS, 12), np.float32), 8)
    with pytest.raises(UsageError, match="trained on 9,984 vectors at least, there are 10"):
        train(np.zeros((10, 16), np.float32), 8)


@pytest.mark.parametrize("codec", SIZES)
def test_through_a_cache(tmp_path: Path, codec: str) -> None:
    codebook = some_codebook(SIZES[codec])
    write(tmp_path, codec, codebook, "a", "b")
    item = make_item("b", 20, seed=1)
    back = open_cache(tmp_path)["b"].kept
    assert torch.equal(back.tokens, nearest(codebook, item.kept.tokens))
    assert torch.equal(back.coords, item.kept.coords)
    _, block = open_cache(tmp_path).blocks()
    assert torch.equal(block.tokens, back.tokens)
    assert verify_cache(tmp_path) == []


def test_compacting_and_merging_keep_it(tmp_path: Path) -> None:
    codebook = some_codebook(4)
    write(tmp_path / "one", "pq4", codebook, "a", "b")
    write(tmp_path / "two", "pq4", codebook, "c")
    before = open_cache(tmp_path / "one")["a"].kept.tokens
    compact_cache(tmp_path / "one")
    merge_caches([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    for path in (tmp_path / "one", tmp_path / "both"):
        assert verify_cache(path) == []
        assert torch.equal(open_cache(path)["a"].kept.tokens, before)
    assert sorted(open_cache(tmp_path / "both").ids()) == ["a", "b", "c"]


def test_without_its_codebook_a_cache_gives_no_tokens(tmp_path: Path) -> None:
    codebook = some_codebook(4)
    write(tmp_path / "cache", "pq4", codebook, "a")
    shutil.copytree(tmp_path / "cache", tmp_path / "other")
    (tmp_path / "cache" / FILE).unlink()
    with pytest.raises(CacheError, match=rf"{FILE} is missing, without which the tokens .* can't be read; restore"):
        open_cache(tmp_path / "cache")
    assert [problem.file for problem in verify_cache(tmp_path / "cache")] == [FILE]
    some_codebook(4, seed=1).save(tmp_path / "other")
    with pytest.raises(IntegrityError, match="is not the codebook that the cache was written with"):
        open_cache(tmp_path / "other")
    assert [problem.file for problem in verify_cache(tmp_path / "other")] == [FILE]


def test_a_flipped_byte_of_the_codebook_is_noticed(tmp_path: Path) -> None:
    codebook = some_codebook(8)
    codebook.save(tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    for place in (0, 20, 90, 1000, len(content) - 1):
        flipped = content.copy()
        flipped[place] ^= 1
        (tmp_path / FILE).write_bytes(flipped)
        with pytest.raises(IntegrityError):
            load_codebook(tmp_path, codebook.digest)


def test_a_row_alone_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "pq4", some_codebook(4), "a")
    (row,) = pq.read_table(next((tmp_path / "data").glob("*.parquet"))).to_pylist()
    with pytest.raises(CacheError, match="tokens stored as pq4 are read with the codebook of their cache"):
        decode_row(row)


def test_tokens_of_another_width_are_refused(tmp_path: Path) -> None:
    codebook = some_codebook(4, 2 * HIDDEN)
    with (
        CacheWriter(tmp_path, manifest_of(codebook, "pq4"), codebook=codebook) as writer,
        pytest.raises(UsageError, match=f"tokens have {HIDDEN} numbers, the codebook is for {2 * HIDDEN}"),
    ):
        writer.write(make_item("a", 4))
