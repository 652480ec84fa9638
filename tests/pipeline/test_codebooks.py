"""Where a cache's codebook comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokcli.cache import open_cache
from tokcli.cache.codebook import FILE, Codebook
from tokcli.errors import UsageError
from tokcli.pipeline import codebooks
from tokcli.pipeline.codebooks import codebook_for
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.recipe import CompressRecipe, DeriveRecipe


@pytest.fixture
def few_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on what a handful of clips has: the least that is asked for is about quality."""
    monkeypatch.setattr("tokcli.cache.codebook.LEAST_VECTORS", 256)


@pytest.mark.usefixtures("few_vectors")
def test_deriving_trains_one_and_compressing_reuses_it(clip_cache: Path, clips: Path, tmp_path: Path) -> None:
    small, again, direct = tmp_path / "small", tmp_path / "again", tmp_path / "direct"
    derive(DeriveRecipe(cache=str(clip_cache), output=str(small), method="none", tokens_dtype="pq4"))
    codebook = open_cache(small).codec
    assert codebook is not None
    derive(DeriveRecipe(cache=str(small), output=str(again), method="none"))
    assert (again / FILE).read_bytes() == (small / FILE).read_bytes()
    recipe = CompressRecipe(
        inputs=[str(clips)], output=str(direct), method="none", tokens_dtype="pq4", codebook=str(small), dtype="float32"
    )
    compress(recipe)
    assert compress(recipe.model_copy(update={"codebook": None})).skipped > 0  # goes on with its own
    derived, compressed = open_cache(small), open_cache(direct)
    assert sorted(derived.ids()) == sorted(compressed.ids())
    for item_id in derived.ids():
        assert torch.equal(derived[item_id].kept.tokens, compressed[item_id].kept.tokens)


def test_compressing_without_one_is_refused(clips: Path, tmp_path: Path) -> None:
    recipe = CompressRecipe(inputs=[str(clips)], output=str(tmp_path / "cache"), tokens_dtype="pq8")
    with pytest.raises(UsageError, match="codec pq8 needs a codebook: take that of another cache with --codebook"):
        compress(recipe)
    assert not (tmp_path / "cache").exists()


def test_one_of_another_model_is_refused(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Codebook(np.zeros((2, 256, 4), "<f4"))
    monkeypatch.setattr("tokcli.pipeline.preflight.codebook_for", lambda *_, **__: other)
    recipe = CompressRecipe(inputs=[str(clips)], output=str(tmp_path / "cache"), tokens_dtype="pq4")
    with pytest.raises(UsageError, match="the codebook is for tokens of 8 numbers, those of nano have 192"):
        compress(recipe)


def test_a_codebook_for_nothing_is_refused(clip_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="codec int8 has no codebook"):
        codebook_for("int8", tmp_path, reuse=str(clip_cache), overwrite=False)
    with pytest.raises(UsageError, match="has no codebook; name a cache that was made with --codec pq4 or pq8"):
        codebook_for("pq4", tmp_path, reuse=str(clip_cache), overwrite=False)


def test_the_sample_is_spread_over_all_items(clip_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(clip_cache)
    monkeypatch.setattr(codebooks, "TRAINING_VECTORS", 2 * len(cache))
    found = codebooks._sample(cache)
    firsts = np.stack([item.kept.tokens[0].float().numpy() for item in cache])
    assert len(found) == 2 * len(cache)
    assert all((found == first).all(axis=1).any() for first in firsts)
