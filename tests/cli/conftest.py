"""The command, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def tokcli(command: Callable[..., Any]) -> Callable[..., Any]:
    return command
