"""The command, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def tokcli(run_tokcli: Callable[..., Any]) -> Callable[..., Any]:
    return run_tokcli
