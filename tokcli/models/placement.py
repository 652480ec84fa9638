"""Where a half runs, and in which precision."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from tokcli.errors import ModelError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# As Linux names what makes bfloat16 products fast: x86 with AVX-512 or AMX, and Arm.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def pick_device(device: str) -> torch.device:
    """Device by name; "auto" is a CUDA device where there is one, else the CPU.

    Raises:
        ModelError: The device is unknown or not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        usable = ["auto", "cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            usable.append("mps")
        raise ModelError(
            f"device {device!r} can't be used here ({reason}); usable on this machine: {', '.join(usable)}"
        ) from error
    return picked


def pick_dtype(dtype: str, config: Any, device: torch.device) -> torch.dtype:
    """Precision by name; "auto" is bfloat16 for half-precision checkpoints if the device is fast in it, else float32.

    float16 is never chosen: Qwen2.5-VL's last blocks overflow in it.

    Raises:
        ModelError: The dtype is unknown, or float16 on a CPU.
    """
    if dtype == "auto":
        return torch.bfloat16 if _is_half(config) and fast_in_bfloat16(device) else torch.float32
    if dtype not in _DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; allowed: auto, {', '.join(_DTYPES)}")
    if dtype == "float16" and device.type == "cpu":
        raise ModelError("float16 is slow and inexact on a CPU; use bfloat16, float32 or auto")
    return _DTYPES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_half(config: Any) -> bool:
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return str(stored).removeprefix("torch.") in {"float16", "bfloat16"}


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are computed as such there; where they are emulated they take thirty times as long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bfloat16()


@cache
def _cpu_has_bfloat16() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _BFLOAT16_FLAGS.isdisjoint(flags.split())
