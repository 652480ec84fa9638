"""What tokens are stored as where nobody names a codec, and where `exact` is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_sameness import assert_same_caches

from tokcli.cache import Cache, CacheWriter, open_cache
from tokcli.errors import CacheConflictError
from tokcli.methods import resolve
from tokcli.pipeline.compress import compress
from tokcli.pipeline.default_codec import resolved_codec
from tokcli.pipeline.derive import derive
from tokcli.recipe import CompressRecipe, DeriveRecipe

DROPPING = ("dtd", "evs@0.3", "pool2d@0.3")
"""A streaming method, one that sees the whole item, and one whose tokens are means of several."""


@pytest.fixture(scope="module")
def media(copied: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips."""
    return copied(tmp_path_factory.mktemp("media"), 2)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def caches(media: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``auto`` and ``exact``, each with a cache by ``none`` and one by every dropping method."""
    folder = tmp_path_factory.mktemp("caches")
    for codec in ("auto", "exact"):
        also = [f"{entry}={folder / codec / name_of(entry)}" for entry in DROPPING]
        values = {"method": "none", "also": also, "dtype": request.param, "tokens_dtype": codec, "workers": 1}
        compress(CompressRecipe(inputs=[str(media)], output=str(folder / codec / "none"), **values))
    return folder


def name_of(entry: str) -> str:
    return entry.partition("@")[0]


def stored_as(cache: Cache) -> str:
    return str(cache.manifest.configuration["tokens_dtype"])


def test_the_default_is_int8_where_tokens_go(caches: Path) -> None:
    """And a number is at most half a step of its token's scale from what was computed, beside two float16 roundings."""
    for entry in DROPPING:
        default, exact = (open_cache(caches / codec / name_of(entry)) for codec in ("auto", "exact"))
        assert stored_as(default) == "int8"
        for item in default:
            computed = exact[item.id].kept
            assert torch.equal(item.kept.source, computed.source)
            assert torch.equal(item.kept.mass, computed.mass)
            numbers = computed.tokens.float()
            most = numbers.abs().amax(dim=1, keepdim=True)
            bound = most * (0.5 / 127 * (1 + 2**-11) + 2 * 2**-11)
            assert bool(((item.kept.tokens.float() - numbers).abs() <= bound).all())
            assert not torch.equal(item.kept.tokens.float(), numbers), "nothing was rounded: this test tests nothing"


def test_all_tokens_are_stored_as_computed(caches: Path) -> None:
    default, exact = (open_cache(caches / codec / "none") for codec in ("auto", "exact"))
    assert stored_as(default) == stored_as(exact) == exact.manifest.configuration["model"]["dtype"]
    assert_same_caches(caches / "auto" / "none", caches / "exact" / "none")


def test_exact_is_as_computed_for_every_method(caches: Path) -> None:
    """What is kept of ``dtd`` and ``evs`` are rows of the cache with all tokens, bit for bit."""
    full = open_cache(caches / "auto" / "none")
    for name in ("dtd", "evs"):
        cache = open_cache(caches / "exact" / name)
        assert stored_as(cache) == full.manifest.configuration["model"]["dtype"]
        for item in cache:
            assert torch.equal(item.kept.tokens, full[item.id].kept.tokens[item.kept.source])


@pytest.mark.parametrize("codec", ["auto", "exact"])
@pytest.mark.parametrize("entry", DROPPING)
def test_derived_is_compressed_with_either(caches: Path, tmp_path: Path, entry: str, codec: str) -> None:
    method, at, budget = entry.partition("@")
    values: dict[str, Any] = {"method": method, "keep": float(budget) if at else None, "tokens_dtype": codec}
    derive(DeriveRecipe(cache=str(caches / "auto" / "none"), output=str(tmp_path / "derived"), **values))
    assert_same_caches(tmp_path / "derived", caches / codec / method)


def test_float32_that_holds_bfloat16_gives_bfloat16(media: Path, caches: Path, tmp_path: Path) -> None:
    """``exact`` is what the tower computed, also where the source stores it in more bytes."""
    dtype = open_cache(caches / "auto" / "none").manifest.configuration["model"]["dtype"]
    values = {"method": "none", "dtype": dtype, "tokens_dtype": "float32", "workers": 1}
    compress(CompressRecipe(inputs=[str(media)], output=str(tmp_path / "wide"), **values))
    derive(DeriveRecipe(cache=str(tmp_path / "wide"), output=str(tmp_path / "dtd"), method="dtd", tokens_dtype="exact"))
    assert_same_caches(tmp_path / "dtd", caches / "exact" / "dtd")


def test_what_is_stored_as_codes_stays_so(caches: Path, tmp_path: Path) -> None:
    source = caches / "auto" / "dtd"
    for method, codec, expected in (
        ("uniform", "auto", "int8"),
        ("none", "auto", "int8"),
        ("uniform", "exact", "float16"),
        ("uniform", "int4", "int4"),
    ):
        output = tmp_path / f"{method}-{codec}"
        values: dict[str, Any] = {"method": method, "keep": 0.05 if method == "uniform" else None}
        derive(DeriveRecipe(cache=str(source), output=str(output), tokens_dtype=codec, **values))  # type: ignore[arg-type]
        assert stored_as(open_cache(output)) == expected
    read = open_cache(source)
    for item in open_cache(tmp_path / "none-auto"):
        assert torch.equal(item.kept.tokens, read[item.id].kept.tokens), "what int8 gave, it gives again"
    for item in open_cache(tmp_path / "uniform-exact"):
        rows = {int(row): token for row, token in zip(read[item.id].kept.source, read[item.id].kept.tokens)}
        assert all(torch.equal(token, rows[int(row)]) for row, token in zip(item.kept.source, item.kept.tokens))


@pytest.mark.parametrize(
    ("asked", "method", "held", "expected"),
    [
        ("auto", "dtd", None, "int8"),
        ("auto", "none", None, "bfloat16"),
        ("auto", "none,dtd", None, "int8"),
        ("exact", "dtd", None, "bfloat16"),
        ("int4", "none", None, "int4"),
        ("auto", "dtd", "float32", "int8"),
        ("auto", "none", "float32", "float32"),
        ("auto", "dtd", "pq4", "pq4"),
        ("auto", "dtd", "int8c", "int8c"),
        ("auto", "none", "pq8", "pq8"),
        ("exact", "none", "float32", "bfloat16"),
        ("float16", "dtd", "int4", "float16"),
    ],
)
def test_what_a_name_means(asked: str, method: str, held: str | None, expected: str) -> None:
    assert resolved_codec(asked, resolve(method), exact="bfloat16", held=held) == expected


def test_a_cache_with_another_codec_is_refused_with_the_codec_to_ask_for(media: Path, caches: Path) -> None:
    """Such as one that was made before int8 was the default."""
    exact = open_cache(caches / "exact" / "dtd")
    dtype = stored_as(exact)
    recipe = CompressRecipe(inputs=[str(media)], output=str(exact.path), method="dtd", dtype=dtype, workers=1)
    with pytest.raises(CacheConflictError, match=rf'"{dtype}" in the cache, "int8" asked for') as refused:
        compress(recipe)
    assert f"ask for the same (--codec {dtype})" in str(refused.value)
    for same in (dtype, "exact"):
        assert compress(recipe.model_copy(update={"tokens_dtype": same})).skipped == 2


def test_numbers_beyond_float16_fail_by_name_and_are_stored_exactly(caches: Path, tmp_path: Path) -> None:
    """Converted before they are looked at, they would be infinities that nobody could tell."""
    full = open_cache(caches / "auto" / "none")
    large, item = tmp_path / "large", full[0]
    with CacheWriter(large, full.manifest) as writer:
        writer.write(replace(item, kept=replace(item.kept, tokens=item.kept.tokens * 1e5)))
    for codec in ("auto", "float16"):
        failed = derive(
            DeriveRecipe(cache=str(large), output=str(tmp_path / codec), method="evs", keep=0.5, tokens_dtype=codec)
        )
        assert (failed.done, failed.failed) == (0, 1)
        (row,) = open_cache(tmp_path / codec).errors().to_pylist()
        assert f"tokens of {item.id} reach " in row["message"] and "with --codec exact" in row["message"]
    derive(DeriveRecipe(cache=str(large), output=str(tmp_path / "exact"), method="evs", keep=0.5, tokens_dtype="exact"))
    kept = open_cache(tmp_path / "exact")[0].kept
    assert torch.equal(kept.tokens, open_cache(large)[0].kept.tokens[kept.source])
