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

Bytes: TypeAlias = pa.Buffer | memoryview
"""Of a blob: Arrow's, or a part of a file that is mapped; this can be written to."""

_LITTLE = {name: np.dtype(name).newbyteorder("<") for name in ("float32", "int32")}

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
            "store them as bfloat16 or float32 (in a new cache)"
        )


def token_bytes(tokens: torch.Tensor, dtype: str) -> npt.NDArray[np.uint8]:
    """Rows of ``tokens`` as little-endian bytes of ``dtype``; shares memory where dtype and layout allow it."""
    import torch

    rows = tokens.detach().to("cpu", getattr(torch, dtype)).contiguous()
    return rows.view(torch.uint8).numpy().reshape(-1) if rows.numel() else np.empty(0, np.uint8)


def little_endian(values: torch.Tensor, dtype: str) -> npt.NDArray[Any]:
    """A tensor as a little-endian array of a NumPy ``dtype``; shares memory where dtype and layout allow it."""
    return np.ascontiguousarray(values.detach().cpu().numpy(), _LITTLE[dtype])


def tensor_view(buffer: Bytes, dtype: str, width: int | None = None) -> torch.Tensor:
    """A tensor over the bytes of a buffer, which it keeps alive: (n,), or (n, width).

    The memory belongs to whoever read the buffer: clone before it is shared. Bytes that do not lie as numbers of the
    dtype must are copied: compiled loops may fail on such. Arrow's buffers go through DLPack, because
    ``torch.frombuffer`` warns about those that may not be written to.
    """
    import torch

    kind = getattr(torch, dtype)
    size = len(buffer) // kind.itemsize * kind.itemsize
    if size == 0:
        flat = torch.empty(0, dtype=kind)
    else:
        if isinstance(buffer, memoryview):
            raw = torch.frombuffer(buffer, dtype=torch.uint8, count=size)
        else:
            from torch.utils.dlpack import from_dlpack

            raw = from_dlpack(pa.Array.from_buffers(pa.uint8(), size, [None, buffer]))
        flat = aligned(raw, kind.itemsize).view(kind)
    return flat if width is None else flat.view(flat.numel() // max(1, width), width)


def aligned(raw: torch.Tensor, multiple: int) -> torch.Tensor:
    """The same bytes at an address that is a multiple of this one: themselves where they are."""
    return raw.clone() if raw.data_ptr() % multiple else raw
