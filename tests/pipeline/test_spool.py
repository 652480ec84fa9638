"""The token spool: the same rows in memory and in a file, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokcli.pipeline.spool import TokenSpool


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_bytes", [0, 700, 1 << 20])
def test_rows_come_back_in_order(tmp_path: Path, dtype: torch.dtype, memory_bytes: int) -> None:
    parts = [torch.randn(rows, 8).to(dtype) for rows in (3, 1, 20, 7)]
    spool = TokenSpool(tmp_path, memory_bytes)
    for part in parts:
        spool.append(part)
    assert torch.equal(spool.tensor(), torch.cat(parts))
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    spool.close()


def test_tensor_outlives_close(tmp_path: Path) -> None:
    spool = TokenSpool(tmp_path, memory_bytes=0)
    spool.append(torch.ones(4, 2))
    tensor = spool.tensor()
    spool.close()
    assert tensor.sum() == 8
