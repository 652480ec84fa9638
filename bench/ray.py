"""`compress --executor ray` against the local executor, on the same items and the same cores, in one run.

The cores of this machine are given to one node, then to two with half of them each; in the last row the second of two
nodes is removed when half of the items are done, so half of the cores do the rest and what was lost. Starting up
(cluster, actors, imports, weights) is left out and given apart.

    python -m bench ray [--clips 20] [--fps 1] [--repeats 3] [--json]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.checkpoint import make_checkpoint
from bench.clips import clips_parser, recipe_of, videos
from bench.local import run_locally
from tokcli.pipeline.preflight import available_cores, check_request
from tokcli.pipeline.progress import Progress, Silent
from tokcli.pipeline.ray.cluster import Cluster
from tokcli.pipeline.ray.driver import Driver, fleet_for
from tokcli.recipe import CompressRecipe

# As the local executor's processes are, and where everything is slow.
SETTINGS = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "240"}


@contextmanager
def cluster(nodes: int, cores: int) -> Iterator[Any]:
    """A cluster on this machine whose nodes share ``cores``."""
    from ray.cluster_utils import Cluster as Nodes

    os.environ.update(SETTINGS)
    each = {"num_cpus": max(1, cores // nodes), "object_store_memory": 80 << 20}
    made = Nodes(initialize_head=True, head_node_args={**each, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(**each)
        yield made
    finally:
        made.shutdown()


class RemovingNode(Silent):
    """Removes the second node when half of the items are done."""

    def __init__(self, nodes: Any) -> None:
        self.nodes = nodes

    def update(self, progress: Progress) -> None:
        if 2 * progress.done >= progress.items:
            for node in list(self.nodes.worker_nodes):
                self.nodes.remove_node(node, allow_graceful=False)


def on_ray(recipe: CompressRecipe, nodes: Any, observer: Silent) -> tuple[float, float]:
    """Wall seconds from the first item handed out to the last commit, and of starting up."""
    begin = time.monotonic()
    with Cluster(nodes.address) as reached:
        request = check_request(recipe)
        driver = Driver(request, fleet_for(request, reached), observer)
        summary = driver.run()
    if summary.failed or driver.work_began is None or driver.work_ended is None:
        raise SystemExit("an item failed: the measurement is void")
    return driver.work_ended - driver.work_began, driver.work_began - begin


def local(recipe: CompressRecipe) -> tuple[float, float]:
    """The same of the local executor."""
    run = run_locally(recipe)
    return run.committed - run.work_began, run.work_began - run.began


def measure(clips: int, fps: float, repeats: int) -> dict[str, Any]:
    """Medians over alternating runs, and their ratios to the local executor's."""
    cores = available_cores()
    seconds: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        paths = videos(folder / "clips", clips)

        def add(row: str, run: Callable[[CompressRecipe], tuple[float, float]], **values: Any) -> None:
            work, start = run(recipe_of(paths, model, folder / "cache", fps, **values))
            seconds.setdefault(row, []).append(work)
            starts.setdefault(row, []).append(start)
            shutil.rmtree(folder / "cache")

        for _ in range(repeats):
            add("local", local, workers=cores)
            with cluster(1, cores) as nodes:
                add("ray, 1 node", lambda recipe: on_ray(recipe, nodes, Silent()), executor="ray")
            with cluster(2, cores) as nodes:
                add("ray, 2 nodes", lambda recipe: on_ray(recipe, nodes, Silent()), executor="ray")
                add(
                    "ray, 1 of 2 nodes removed",
                    lambda recipe: on_ray(recipe, nodes, RemovingNode(nodes)),
                    executor="ray",
                )
    rows = {}
    for row, values in seconds.items():
        median = statistics.median(values)
        rows[row] = {
            "seconds": round(median, 2),
            "items_per_second": round(len(paths) / median, 2),
            "times_local": round(statistics.median(a / b for a, b in zip(values, seconds["local"])), 3),
            "start_seconds": round(statistics.median(starts[row]), 2),
        }
    return {"clips": len(paths), "fps": fps, "cores": cores, "repeats": repeats, "rows": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    chosen = clips_parser("ray", __doc__).parse_args(arguments)
    try:
        import ray  # noqa: F401
    except ImportError:
        print("ray: not installed, nothing to measure", file=sys.stderr)
        return 0
    result = measure(chosen.clips, chosen.fps, chosen.repeats)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print(f"ray: {result['clips']} clips at {result['fps']:g} fps, {result['cores']} cores, 18M-weight tower")
    print(f"  {'':28}{'seconds':>9}{'items/s':>9}{'x local':>9}{'start':>8}   (target 1.15 without losses)")
    for name, row in result["rows"].items():
        cells = (row["seconds"], row["items_per_second"], row["times_local"], row["start_seconds"])
        print(f"  {name:28}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (9, 9, 9, 8))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
