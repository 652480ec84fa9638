"""Torch tensors to bytes and back, bit for bit, without a copy where the memory allows it.

Arrow and NumPy have no bfloat16, so the bytes of a tensor travel as plain integers and the dtype stands beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokcli.errors import UsageError

if TYPE_CHECKING:
    import torch

Bytes: TypeAlias = pa.Buffer | npt.NDArray[np.uint8]
"""A blob: a buffer of Arrow's, or an array (n,)."""

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}

_FLOAT16_MAX = 65504.0


def check_range(tokens: torch.Tensor, dtype: str, item_id: str) -> None:
    """Raise ``UsageError`` where storing as float16 would turn finite values into infinities."""
    import torch

    if dtype != "float16" or tokens.dtype == torch.float16 or tokens.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(tokens))
    # Values up to 65520 round to 65504. What is infinite or NaN already stays as it is.
    largest = max(abs(low), abs(high))
    if largest >= 65520.0 and np.isfinite(largest):
        raise UsageError(
            f"tokens of {item_id} reach {largest:g}, float16 ends at {_FLOAT16_MAX:g}; "
            "store them as bfloat16 or float32, or with --codec exact (in a new cache)"
        )


def token_bytes(tokens: torch.Tensor, dtype: str) -> npt.NDArray[np.uint8]:
    """Rows of ``tokens`` as little-endian bytes of ``dtype``; shares memory where dtype and layout allow it."""
    import torch

    rows = tokens.detach().to("cpu", getattr(torch, dtype)).contiguous()
    return rows.view(torch.uint8).numpy().reshape(-1) if rows.numel() else np.empty(0, np.uint8)


def array_bytes(values: torch.Tensor | npt.NDArray[Any], dtype: str) -> npt.NDArray[np.uint8]:
    """A tensor or array as little-endian bytes of a NumPy ``dtype``."""
    array = np.ascontiguousarray(np.asarray(values), dtype=np.dtype(dtype).newbyteorder("<"))
    return array.reshape(-1).view(np.uint8)


def tensor_view(content: Bytes, dtype: str, width: int | None = None) -> torch.Tensor:
    """A tensor over these bytes, which it keeps alive: (n,), or (n, width).

    The memory belongs to whoever read it: clone before it is shared. Arrow's goes through DLPack, because
    ``torch.frombuffer`` warns about every read-only buffer.
    """
    import torch
    from torch.utils.dlpack import from_dlpack

    kind = getattr(torch, dtype)
    count = content.size // kind.itemsize
    if count == 0:
        flat = torch.empty(0, dtype=kind)
    elif isinstance(content, np.ndarray):
        flat = torch.from_numpy(content).view(kind)
    else:
        carrier = {1: pa.uint8(), 2: pa.int16(), 4: pa.int32()}[kind.itemsize]
        flat = from_dlpack(pa.Array.from_buffers(carrier, count, [None, content])).view(kind)
    return flat if width is None else flat.view(count // max(1, width), width)
