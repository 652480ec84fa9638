"""Runs in float32 on every machine: with bfloat16 units, how a clip is cut decides how its products round."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def float32_by_default() -> Iterator[None]:
    """What ``dtype="auto"`` picks where bfloat16 is not fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokcli.models.placement.fast_in_bfloat16", lambda device: False)
        yield
