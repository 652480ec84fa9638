"""Codes of a byte or half a byte, with scales beside them; what each codec is, ``codecs.py`` says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokcli.cache.codec import Codec, Count, not_finite, rows_at_a_time, runs
from tokcli.cache.tensors import Bytes, tensor_view

if TYPE_CHECKING:
    import torch

SCALE_BYTES = 4


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

    def num_bytes(self, rows: Count, width: int) -> Count:
        scales = rows + (rows > 0) * (width if self.by_channel else 0)
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
        scratch, other = (torch.empty(rows_at_a_time(width), width) for _ in range(2))
        for start, some in runs(tokens):
            part = slice(start, start + len(some))
            numbers = scratch[: len(some)].copy_(some)
            if channels is not None:
                numbers.div_(channels)
            # torch.aminmax along rows takes ten times as long.
            most = torch.abs(numbers, out=other[: len(some)]).amax(dim=1)
            if not bool(torch.isfinite(most).all()):
                raise not_finite(self.name)
            scales[part] = most / self.largest
            numbers.mul_(torch.where(most > 0, self.largest / most, torch.zeros(())).unsqueeze(1))
            self._put(numbers, codes[part])
        return encoded.numpy()

    def decode(self, content: Bytes, width: int) -> torch.Tensor:
        import torch

        encoded = tensor_view(content, "uint8")
        by_channel = SCALE_BYTES * width if self.by_channel else 0
        rows = max(0, len(encoded) - by_channel) // (SCALE_BYTES + self._code_bytes(width))
        scales, channels, codes = self._parts(encoded, rows, width)
        decoded = torch.empty((rows, width), dtype=torch.float16)
        scratch = torch.empty(rows_at_a_time(width), width)
        for start, some in runs(decoded):
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


def _channel_scales(tokens: torch.Tensor) -> torch.Tensor:
    """float32 (D,): the root of the largest magnitude of each channel; 1 where that is 0."""
    import torch

    most = torch.stack([some.float().abs().amax(dim=0) for _, some in runs(tokens)]).amax(dim=0)
    return torch.where(most > 0, most.sqrt(), torch.ones(()))
