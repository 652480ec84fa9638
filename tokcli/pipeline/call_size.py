"""How much is given to the vision tower at once: half as much whenever memory ran out, for the rest of the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tokcli.models import VisionTower
from tokcli.models.memory import free_cached, out_of_memory
from tokcli.models.tiles import Tiling
from tokcli.types import MediaInfo

Result = TypeVar("Result")


class CallSize:
    """Makes calls of the tower again with fewer temporal steps (or tiles) in each, down to one.

    Tokens do not depend on it, but for the last bit in half precision.
    """

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower
        self._lock = threading.Lock()
        self._news: list[str] = []

    def fitting(
        self, call: Callable[[], Result], info: MediaInfo, size: tuple[int, int], steps: int
    ) -> Callable[[], Result]:
        """What gives the same as ``call``, which encodes ``steps`` temporal steps of an item at most; for any thread.

        It raises what ``call`` raises, and its error for want of memory only where one step alone is too much.
        """
        patches = self._tower.sizer.patches_per_step(info, size)
        bounds = self._tower.preprocessing.of(info.kind).bounds
        smallest = patches
        if isinstance(bounds, Tiling):
            smallest = (bounds.side // self._tower.sizer.patch_size) ** 2
        most = -(-patches * steps // smallest)

        def run() -> Result:
            while True:
                limit = self._tower.max_patches
                try:
                    return call()
                except (RuntimeError, MemoryError) as error:
                    short = isinstance(error, MemoryError) or out_of_memory(error)
                    if not short or not self._halve(limit, smallest, most):
                        raise
                # Only here are the tensors gone that the error held.
                free_cached(self._tower.device)

        return run

    def _halve(self, limit: int, smallest: int, most: int) -> bool:
        """Whether trying again makes sense after a call under ``limit`` patches."""
        with self._lock:
            if self._tower.max_patches < limit:  # another thread has halved it meanwhile
                return True
            at_once = min(most, max(1, limit // smallest))
            if at_once == 1:
                return False
            self._tower.max_patches = at_once // 2 * smallest
            self._news.append(
                f"the encoder ran out of memory with {at_once} steps or tiles of {smallest:,} patches at once; from "
                f"here on it gets {self._tower.max_patches:,} patches at most"
            )
            return True

    def news(self) -> list[str]:
        """What happened since this was asked last."""
        with self._lock:
            told, self._news = self._news, []
        return told
