"""A Ray cluster of two nodes on this machine, and what disturbs a run on it.

What an actor does wrong is done by a method of another package, which actors alone find on their path so armed: it
takes its time, commits small shards, and kills the process of whoever compresses a very wide picture.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import CompressSummary, Progress
from tokcli.recipe import CompressRecipe

pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

PLUGIN = """
import os, signal, time

import torch

from tokcli.cache import CacheWriter
from tokcli.methods.base import method
from tokcli.methods.options import Options
from tokcli.methods.output import select

ARMED = "TOKCLI_TEST_ARMED" in os.environ
if ARMED:
    CacheWriter.__init__.__kwdefaults__["max_shard_items"] = 3


class SlowOptions(Options):
    pass


@method("slow", options=SlowOptions, kind="select", count="by content")
def slow(visual, options):
    "Keep every second token."
    if ARMED:
        time.sleep(0.3)
        _, height, width = visual.views[0].grid
        if width >= 4 * height:
            os.kill(os.getpid(), signal.SIGKILL)
    return select(visual, torch.arange(len(visual)) % 2 == 0)
"""
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


class TwoNodes:
    """A cluster of two nodes with one CPU each."""

    def __init__(self, plugin: Path) -> None:
        self._environment = {
            "PYTHONPATH": str(plugin),
            "TOKCLI_TEST_ARMED": "1",
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "240",  # where many tests run at once
        }
        with self._armed():
            self.cluster = cluster_utils.Cluster(
                initialize_head=True, head_node_args={**NODE, "include_dashboard": False}
            )
        self.second: Any = None
        self.complete()

    def complete(self) -> None:
        """Start the second node where it is gone."""
        if self.second is None:
            with self._armed():
                self.second = self.cluster.add_node(**NODE)

    def lose_node(self, graceful: bool) -> None:
        """Without grace, Ray may take a quarter of a minute to learn that it is the node that is gone."""
        self.cluster.remove_node(self.second, allow_graceful=graceful)
        self.second = None

    @contextlib.contextmanager
    def _armed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment.items():
                patch.setenv(name, value)
            yield


def recipe(media: Path, cache: Path, **values: Any) -> CompressRecipe:
    settings = {"method": "slow", "dtype": "float32", "workers": 1}
    return CompressRecipe(inputs=[str(media)], output=str(cache), **{**settings, **values})


class Watching:
    """An observer that does something once, when so many items are done."""

    def __init__(self, then: Callable[[], None], after: int = 2) -> None:
        self.then, self.after = then, after
        self.done = False
        self.warnings: list[str] = []
        self.failures: list[tuple[str, str, str]] = []
        self.last: Progress | None = None

    def begin(self, progress: Progress, notes: list[str]) -> None:
        self.notes = notes

    def update(self, progress: Progress) -> None:
        self.last = progress
        if progress.done >= self.after and not self.done:
            self.done = True
            self.then()

    def failure(self, item_id: str, stage: str, message: str) -> None:
        self.failures.append((item_id, stage, message))

    def warning(self, item_id: str, message: str) -> None:
        self.warnings.append(message)


def own_processes(*titles: str) -> list[psutil.Process]:
    """Processes that descend from this one, by what stands in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and any(title in words for title in titles):
                found.append(process)
    return found


def workers_of(plugin: Path) -> list[str]:
    """Actors and their decoders, orphans too, that have the package on their path."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if process.environ().get("PYTHONPATH", "").startswith(str(plugin)) and (
                "ray::_Actor" in words or "multiprocessing" in words
            ):
                found.append(words)
    return found


def kill_an_actor() -> None:
    """One that has items in hand, where one can be told to be at work just now."""
    (chosen, *_) = own_processes("ray::_Actor.step") or own_processes("ray::_Actor")
    os.kill(chosen.pid, signal.SIGKILL)


def on_ray(nodes: TwoNodes, media: Path, cache: Path, watching: Watching, **values: Any) -> CompressSummary:
    nodes.complete()
    return compress(
        recipe(media, cache, executor="ray", ray_address=nodes.cluster.address, **values),
        watching,
    )


def done_again(warnings: Sequence[str]) -> list[int]:
    return [int(number[1]) for text in warnings if (number := re.search(r"; (\d+) items that it had not", text))]
