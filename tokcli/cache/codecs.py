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

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokcli.cache.codebook import Codebook, codebook_of
from tokcli.cache.codec import Codec, Count
from tokcli.cache.codec_quantizer import QuantizerCodec
from tokcli.cache.codec_scaled import ScaledCodec
from tokcli.cache.manifest import Manifest
from tokcli.cache.tensors import ITEM_BYTES, Bytes, tensor_view, token_bytes
from tokcli.errors import UsageError
from tokcli.storage import Location

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PlainCodec(Codec):
    """Numbers as they are, in one of three types."""

    name: str
    lossy = False

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.name

    def num_bytes(self, rows: Count, width: int) -> Count:
        return rows * width * ITEM_BYTES[self.name]

    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        return token_bytes(tokens, self.name)

    def decode(self, content: Bytes, width: int) -> torch.Tensor:
        return tensor_view(content, self.name, width)


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


def cache_codec(cache: Location, manifest: Manifest) -> Codec | None:
    """How the tokens of a cache are read; None where their rows tell enough.

    Raises ``CacheError`` where the codebook is missing or another.
    """
    codebook = codebook_of(cache, manifest)
    return None if codebook is None else codec_of(str(manifest.configuration["tokens_dtype"]), codebook)
