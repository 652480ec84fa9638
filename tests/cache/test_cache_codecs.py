"""Tokens stored smaller: what comes back is what the definition says, by arithmetic that is not the codec's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import make_item, make_manifest, write_cache
from hypothesis import given, settings
from hypothesis import strategies as st

from tokcli.cache import CacheWriter, decode_row, open_cache, verify_cache
from tokcli.cache.codec import NUMBERS_AT_A_TIME
from tokcli.cache.codec_scaled import ScaledCodec
from tokcli.cache.codecs import CODECS, codec_of
from tokcli.errors import UsageError

LOSSY = [name for name, codec in CODECS.items() if isinstance(codec, ScaledCodec)]
STEPS = {"int8": 127.0, "int8c": 127.0, "int4": 7.0}


def there_and_back(name: str, tokens: torch.Tensor) -> torch.Tensor:
    codec = codec_of(name)
    encoded = codec.encode(tokens)
    assert encoded.nbytes == codec.num_bytes(*tokens.shape)
    return codec.decode(pa.py_buffer(encoded.tobytes()), tokens.shape[1])


def random_tokens(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) * torch.rand(width, generator=generator).exp()


def test_bytes_of_int8_by_hand() -> None:
    encoded = codec_of("int8").encode(torch.tensor([[127.0, -1.0, 0.4], [0.0, 0.0, 0.0], [-2.54, 1.27, 0.02]]))
    scales, codes = np.frombuffer(encoded[:12], "<f4"), np.frombuffer(encoded[12:], np.int8).reshape(3, 3)
    np.testing.assert_array_equal(scales, np.array([1.0, 0.0, 2.54 / 127], np.float32))
    # 63.5 is half-way and goes to the even 64; 0.02 is one step of 0.02.
    assert codes.tolist() == [[127, -1, 0], [0, 0, 0], [-127, 64, 1]]


def test_bytes_of_int4_by_hand() -> None:
    encoded = codec_of("int4").encode(torch.tensor([[7.0, -7.0, 3.0, -1.0, 2.0]]))
    assert encoded[:4].view("<f4").tolist() == [1.0]
    # Low half first: 7 and -7 (9), 3 and -1 (15), 2 and nothing.
    assert encoded[4:].tolist() == [0x97, 0xF3, 0x02]


def test_bytes_of_int8c_by_hand() -> None:
    encoded = codec_of("int8c").encode(torch.tensor([[4.0, 0.0, 1.0], [-16.0, 0.0, 0.25]]))
    numbers = encoded[: 5 * 4].view("<f4")
    # Channels: roots of 16, 0 (so 1) and 1. Tokens are then (1, 0, 1) and (-4, 0, 0.25).
    assert numbers[2:].tolist() == [4.0, 1.0, 1.0]
    np.testing.assert_array_equal(numbers[:2], np.array([1 / 127, 4 / 127], np.float32))
    assert encoded[20:].view(np.int8).tolist() == [127, 0, 127, -127, 0, 8]


def test_fp8_gives_the_numbers_of_e4m3() -> None:
    # Sign, 4 bits of exponent with a bias of 7, 3 bits of fraction; 448 is the largest.
    numbers = [
        sign * (math.ldexp(8 + fraction, exponent - 10) if exponent else math.ldexp(fraction, -9))
        for sign in (1, -1)
        for exponent in range(16)
        for fraction in range(8)
        if (exponent, fraction) != (15, 7)
    ]
    tokens = torch.tensor([numbers])
    assert float(tokens.abs().max()) == 448.0
    assert torch.equal(there_and_back("fp8", tokens).float(), tokens)


@pytest.mark.parametrize("name", STEPS)
def test_an_error_is_at_most_half_a_step(name: str) -> None:
    tokens = random_tokens(300, 65)
    back = there_and_back(name, tokens).double()
    channels = tokens.double().abs().amax(0).sqrt() if name == "int8c" else torch.ones(65, dtype=torch.float64)
    scaled = tokens.double() / channels
    step = scaled.abs().amax(1, keepdim=True) / STEPS[name] * channels
    # Half a step, and what float16 rounds away of the result.
    assert bool(((back - tokens.double()).abs() <= 0.5001 * step + back.abs() * 2**-11).all())


@pytest.mark.parametrize("name", [name for name in LOSSY if name != "int8c"])
def test_a_token_is_stored_as_if_alone(name: str) -> None:
    """However many there are, converted some at a time; not so where channels have scales."""
    rows = 3 * NUMBERS_AT_A_TIME // 1024 + 5
    tokens = random_tokens(rows, 1024)
    back = there_and_back(name, tokens)
    for row in (0, NUMBERS_AT_A_TIME // 1024, rows - 1):
        assert torch.equal(there_and_back(name, tokens[row : row + 1]), back[row : row + 1])


@pytest.mark.parametrize("name", LOSSY)
@given(rows=st.integers(0, 5), width=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_shapes_zeros_and_signs(name: str, rows: int, width: int, seed: int) -> None:
    tokens = random_tokens(rows, width, seed) * (torch.rand(rows, 1) > 0.3)
    back = there_and_back(name, tokens)
    assert back.shape == tokens.shape and back.dtype == torch.float16
    assert bool((back[tokens == 0] == 0).all())
    assert bool((back * tokens >= 0).all())
    assert torch.equal(there_and_back(name, -tokens), -back)


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_refused(name: str, value: float) -> None:
    tokens = random_tokens(4, 8)
    tokens[2, 3] = value
    with pytest.raises(UsageError, match=f"can't be stored as {name}"):
        codec_of(name).encode(tokens)


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 100], ids=["one-row", "many-rows"])
def test_through_a_cache(tmp_path: Path, name: str, chunk_bytes: int) -> None:
    item = make_item(kept=40)
    write_cache(tmp_path, item, manifest=make_manifest(tokens_dtype=name), chunk_bytes=chunk_bytes)
    back = open_cache(tmp_path)["a.mp4"].kept
    assert verify_cache(tmp_path) == []
    assert torch.equal(back.coords, item.kept.coords) and torch.equal(back.source, item.kept.source)
    if chunk_bytes == 1 << 20:
        assert torch.equal(back.tokens, there_and_back(name, item.kept.tokens))
        (row,) = pq.read_table(next((tmp_path / "data").glob("*.parquet"))).to_pylist()
        assert torch.equal(decode_row(row)["tokens"], back.tokens)
    step = item.kept.tokens.float().abs().amax() / {"int4": 7, "fp8": 14}.get(name, 127)
    assert float((back.tokens.float() - item.kept.tokens.float()).abs().max()) <= float(step)


def test_levels_have_scales_of_their_own(tmp_path: Path) -> None:
    from test_cache_deepstack import stacked_item, stacked_manifest

    item = stacked_item(kept=6, dtype=torch.float16)
    assert item.kept.deepstack is not None
    object.__setattr__(item.kept, "deepstack", item.kept.deepstack * 100)
    write_cache(tmp_path, item, manifest=stacked_manifest(tokens_dtype="int8"))
    back = open_cache(tmp_path)["a.mp4"].kept
    assert back.deepstack is not None
    assert torch.equal(back.tokens, there_and_back("int8", item.kept.tokens))
    width = item.kept.tokens.shape[1]
    expected = there_and_back("int8", item.kept.deepstack.reshape(-1, width)).view_as(item.kept.deepstack)
    assert torch.equal(back.deepstack, expected)


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown codec 'int3'; a cache stores tokens as float16, .*int4"):
        CacheWriter(tmp_path / "cache", make_manifest(tokens_dtype="int3"))
    assert not (tmp_path / "cache").exists()
