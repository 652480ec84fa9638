"""How tokens become bytes: as they are, or quantized to a byte or half a byte a number, with scales beside them.

A codec's bytes for one row of the table stand by themselves: reading an item decodes that item only. All codecs but the
plain ones are lossy; they give back float16. Scales are float32, little-endian, and come before the codes.

- ``int8``: codes -127 to 127 times a scale for each token, ``max |x| / 127``.
- ``int4``: codes -7 to 7, two in a byte, the even channel in the low half; a scale for each token, ``max |x| / 7``.
- ``int8c``: as ``int8`` after every channel was divided by the root of its largest magnitude in the row of the table,
  which evens out channels that are much larger than others (ZipCache, arXiv:2405.14256, section 4.1, for its keys).
- ``fp8``: float8 of the kind e4m3 times a scale for each token, ``max |x| / 448``.
- ``pq4``, ``pq8``: a byte for every 4 or 8 numbers, by the cache's codebook (:mod:`tokcli.cache.codebook`).

With DeepStack levels a token has a scale of its own at each level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokcli.cache.codebook import Codebook, codebook_of
from tokcli.cache.manifest import Manifest
from tokcli.cache.tensors import ITEM_BYTES, tensor_view, token_bytes
from tokcli.errors import CacheError, UsageError

if TYPE_CHECKING:
    import torch

NUMBERS_AT_A_TIME = 1 << 19
"""Converted at once: enough that calls cost little, and 2 MiB of float32 in memory that is used again and again."""
CODED_AT_A_TIME = 1 << 15
"""The same for codebooks, which compare every part of a vector with 256 centroids."""
SCALE_BYTES = 4


class Codec(ABC):
    """Turns (N, D) tokens to bytes and back."""

    name: str
    dtype: str
    """What decoding gives."""
    lossy: bool

    @abstractmethod
    def num_bytes(self, rows: int, width: int) -> int:
        """Of (rows, width) tokens."""

    @abstractmethod
    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        """uint8 (n,) of float (N, D). Raises ``UsageError`` for values that it can't hold."""

    @abstractmethod
    def decode(self, buffer: pa.Buffer, width: int) -> torch.Tensor:
        """(N, width) of the codec's dtype. May share the buffer's memory: clone before it is given away."""


@dataclass(frozen=True)
class PlainCodec(Codec):
    """Numbers as they are, in one of three types."""

    name: str
    lossy = False

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.name

    def num_bytes(self, rows: int, width: int) -> int:
        return rows * width * ITEM_BYTES[self.name]

    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        return token_bytes(tokens, self.name)

    def decode(self, buffer: pa.Buffer, width: int) -> torch.Tensor:
        return tensor_view(buffer, self.name, width)


@dataclass(frozen=True)
class ScaledCodec(Codec):
    """Codes with a scale for each token, and for each channel with ``by_channel``."""

    name: str
    bits: int
    largest: float
    """The code of a token's largest magnitude."""
    by_channel: bool = False
    dtype = "float16"
    lossy = True

    def num_bytes(self, rows: int, width: int) -> int:
        scales = rows + (width if self.by_channel and rows else 0)
        return SCALE_BYTES * scales + rows * self._code_bytes(width)

    def _code_bytes(self, width: int) -> int:
        return -(-width * self.bits // 8)

    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        import torch

        rows, width = tokens.shape
        encoded = torch.empty(self.num_bytes(rows, width), dtype=torch.uint8)
        scales, channels, codes = self._parts(encoded, rows, width)
        if channels is not None:
            channels.copy_(_channel_scales(tokens))
        scratch, other = (torch.empty(_rows_at_a_time(width), width) for _ in range(2))
        for start, some in _runs(tokens):
            part = slice(start, start + len(some))
            numbers = scratch[: len(some)].copy_(some)
            if channels is not None:
                numbers.div_(channels)
            # torch.aminmax along rows takes ten times as long.
            most = torch.abs(numbers, out=other[: len(some)]).amax(dim=1)
            if not bool(torch.isfinite(most).all()):
                raise _not_finite(self.name)
            scales[part] = most / self.largest
            numbers.mul_(torch.where(most > 0, self.largest / most, torch.zeros(())).unsqueeze(1))
            self._put(numbers, codes[part])
        return encoded.numpy()

    def decode(self, buffer: pa.Buffer, width: int) -> torch.Tensor:
        import torch

        encoded = tensor_view(buffer, "uint8")
        by_channel = SCALE_BYTES * width if self.by_channel else 0
        rows = max(0, len(encoded) - by_channel) // (SCALE_BYTES + self._code_bytes(width))
        scales, channels, codes = self._parts(encoded, rows, width)
        decoded = torch.empty((rows, width), dtype=torch.float16)
        scratch = torch.empty(_rows_at_a_time(width), width)
        for start, some in _runs(decoded):
            part = slice(start, start + len(some))
            numbers = self._get(codes[part], scratch[: len(some)]).mul_(scales[part].unsqueeze(1))
            some.copy_(numbers if channels is None else numbers.mul_(channels))
        return decoded

    def _parts(
        self, encoded: torch.Tensor, rows: int, width: int
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Views of the scales of tokens, those of channels, and the codes, uint8 (rows, bytes)."""
        import torch

        by_channel = SCALE_BYTES * width if self.by_channel and rows else 0
        sizes = [SCALE_BYTES * rows, by_channel, rows * self._code_bytes(width)]
        scales, channels, codes = encoded.split(sizes)
        return (
            scales.view(torch.float32),
            channels.view(torch.float32) if by_channel else None,
            codes.view(rows, self._code_bytes(width)),
        )

    def _put(self, numbers: torch.Tensor, codes: torch.Tensor) -> None:
        """Write float32 (n, D) numbers between plus and minus ``largest`` as uint8 (n, bytes); changes the numbers."""
        import torch
        import torch.nn.functional as F

        if self.name == "fp8":
            codes.view(torch.float8_e4m3fn).copy_(numbers)
        elif self.bits == 8:
            codes.view(torch.int8).copy_(numbers.round_())
        else:
            halves = F.pad(numbers.round_().to(torch.int8), (0, numbers.shape[1] % 2)).view(torch.uint8) & 0xF
            torch.bitwise_or(halves[:, ::2], halves[:, 1::2] << 4, out=codes)

    def _get(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Fill float32 (n, D) ``numbers`` from uint8 (n, bytes)."""
        import torch

        if self.name == "fp8":
            # Looked up: torch converts one of these numbers at a time.
            np.take(_float8_numbers(), codes.numpy(), out=numbers.numpy(), mode="clip")
            return numbers
        signed = codes.view(torch.int8)
        if self.bits == 8:
            return numbers.copy_(signed)
        # Shifted up and down again as a signed number, a half byte gets its sign.
        numbers[:, ::2] = (signed << 4) >> 4
        numbers[:, 1::2] = signed[:, : numbers.shape[1] // 2] >> 4
        return numbers


@cache
def _float8_numbers() -> npt.NDArray[np.float32]:
    """float32 (256,): what each code of e4m3 means."""
    import torch

    numbers: npt.NDArray[np.float32] = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    return numbers


def _not_finite(name: str) -> UsageError:
    return UsageError(
        f"tokens that are infinite or not a number can't be stored as {name}; store them as float32, or find out why "
        "the tower gave them"
    )


def _rows_at_a_time(width: int, numbers: int = NUMBERS_AT_A_TIME) -> int:
    return max(1, numbers // max(1, width))


def _runs(tokens: torch.Tensor, numbers: int = NUMBERS_AT_A_TIME) -> Iterator[tuple[int, torch.Tensor]]:
    """Some rows after others, with the number of the first."""
    start = 0
    for some in tokens.split(_rows_at_a_time(tokens.shape[1], numbers)):
        yield start, some
        start += len(some)


def _channel_scales(tokens: torch.Tensor) -> torch.Tensor:
    """float32 (D,): the root of the largest magnitude of each channel; 1 where that is 0."""
    import torch

    most = torch.stack([some.float().abs().amax(dim=0) for _, some in _runs(tokens)]).amax(dim=0)
    return torch.where(most > 0, most.sqrt(), torch.ones(()))


@dataclass(frozen=True)
class QuantizerCodec(Codec):
    """A byte for every few numbers, by a codebook."""

    name: str
    numbers_per_code: int
    codebook: Codebook | None = None
    """Without one it knows sizes only."""
    dtype = "float16"
    lossy = True

    def num_bytes(self, rows: int, width: int) -> int:
        return rows * -(-width // self.numbers_per_code)

    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        import torch

        codebook = self._known()
        if tokens.shape[1] != codebook.width:
            raise UsageError(
                f"tokens have {tokens.shape[1]} numbers, the codebook is for {codebook.width}: it is another model's"
            )
        if not bool(torch.isfinite(tokens).all()):
            raise _not_finite(self.name)
        parts = [codebook.encode(some.float().numpy()) for _, some in _runs(tokens, CODED_AT_A_TIME)]
        return np.concatenate(parts).reshape(-1) if parts else np.empty(0, np.uint8)

    def decode(self, buffer: pa.Buffer, width: int) -> torch.Tensor:
        import torch

        codes = np.frombuffer(buffer, np.uint8).reshape(-1, -(-width // self.numbers_per_code))
        decoded = torch.empty((len(codes), width), dtype=torch.float16)
        for start, some in _runs(decoded):
            some.copy_(torch.from_numpy(self._known().decode(codes[start : start + len(some)])))
        return decoded

    def _known(self) -> Codebook:
        if self.codebook is None:
            raise CacheError(
                f"tokens stored as {self.name} are read with the codebook of their cache; open it as a whole"
            )
        return self.codebook


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        *(PlainCodec(name) for name in ITEM_BYTES),
        ScaledCodec("int8", 8, 127.0),
        ScaledCodec("int8c", 8, 127.0, by_channel=True),
        ScaledCodec("int4", 4, 7.0),
        ScaledCodec("fp8", 8, 448.0),
        QuantizerCodec("pq4", 4),
        QuantizerCodec("pq8", 8),
    )
}


def codec_of(name: str, codebook: Codebook | None = None) -> Codec:
    """The codec of that name. Raises ``UsageError`` for an unknown one."""
    if name not in CODECS:
        raise UsageError(f"unknown codec {name!r}; a cache stores tokens as {', '.join(CODECS)}")
    codec = CODECS[name]
    return replace(codec, codebook=codebook) if isinstance(codec, QuantizerCodec) else codec


def needs_codebook(name: str) -> bool:
    """Whether tokens stored so are read with a codebook."""
    return isinstance(CODECS.get(name), QuantizerCodec)


def numbers_per_code(name: str) -> int:
    """Numbers that one code of a codec with a codebook stands for."""
    codec = CODECS[name]
    assert isinstance(codec, QuantizerCodec)
    return codec.numbers_per_code


def cache_codec(cache: Path, manifest: Manifest) -> Codec | None:
    """How the tokens of a cache are read; None where their rows tell enough.

    Raises ``CacheError`` where the codebook is missing or another.
    """
    codebook = codebook_of(cache, manifest)
    return None if codebook is None else codec_of(str(manifest.configuration["tokens_dtype"]), codebook)
