"""What choosing frames before the vision tower saves, against encoding every frame and choosing then.

The same clips, the same share of the steps, one run beside the other; "full" keeps everything. "seconds" are those of
the whole of `compress` without its start, "CPU" those of all threads and decoders with it, "tower" what of that the
vision tower took, previews included; "kept" is the share of the tokens.

    python -m bench.keyframes [--clips 12] [--fps 2] [--keep 0.25] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.checkpoint import make_checkpoint
from bench.clips import recipe_of, videos
from bench.local import cpu_seconds, run_locally
from tokcli.pipeline.preflight import Job, available_cores

FEATURES = ("full", "tokens", "preview", "pixels")


def timed(encode: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """``encode``, with the CPU seconds of each call added to ``spent``; a lane computes in its own thread alone."""

    def run(*arguments: Any) -> Any:
        started = time.thread_time()
        try:
            return encode(*arguments)
        finally:
            spent.append(time.thread_time() - started)

    return run


def one(paths: Sequence[Path], model: Path, fps: float, keep: float, features: str, folder: Path) -> dict[str, float]:
    """Seconds of one compression, once everything is loaded."""
    full = features == "full"
    recipe = recipe_of(
        paths,
        model,
        folder / f"cache-{time.monotonic_ns()}",
        fps,
        method="none" if full else "keyframes",
        options={} if full else {"features": features, "keep": str(keep)},
    )
    spent: list[float] = []

    def watch(job: Job) -> None:
        job.tower.family.encode = timed(job.tower.family.encode, spent)

    before = cpu_seconds()
    run = run_locally(recipe, watch)
    return {
        "seconds": run.committed - run.work_began,
        "cpu_seconds": cpu_seconds() - before,
        "tower_seconds": sum(spent),
        "kept": run.progress.kept_tokens / run.progress.source_tokens,
    }


def measure(clips: int, fps: float, keep: float, repeats: int) -> dict[str, dict[str, float]]:
    """Medians by feature, the runs of all taken in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        paths = videos(folder / "clips", clips)
        found: dict[str, list[dict[str, float]]] = {features: [] for features in FEATURES}
        for _ in range(repeats):
            for features in FEATURES:
                found[features].append(one(paths, model, fps, keep, features, folder))
    return {
        features: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for features, runs in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.keyframes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    rows = measure(chosen.clips, chosen.fps, chosen.keep, chosen.repeats)
    if chosen.json:
        print(json.dumps({"cores": available_cores(), "keep": chosen.keep, "keyframes": rows}))
        return 0
    print(f"keyframes: {chosen.clips} clips at {chosen.fps:g} fps, {chosen.keep:g} of the steps, 18M-weight tower")
    print(f"  {'features':10}{'kept':>8}{'seconds':>10}{'CPU':>9}{'tower':>9}{'of full tower':>15}")
    for features, row in rows.items():
        share = row["tower_seconds"] / rows["full"]["tower_seconds"]
        seconds = f"{row['seconds']:10.2f}{row['cpu_seconds']:9.2f}{row['tower_seconds']:9.2f}"
        print(f"  {features:10}{row['kept']:8.1%}{seconds}{share:15.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
