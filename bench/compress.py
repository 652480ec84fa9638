"""`compress` on a CPU against its work bound and against a naive script, in one run.

The work bound is the CPU time of decoding alone plus that of encoding alone, spread over all cores: what a perfect
overlap would take. The naive script turns every frame to RGB, resizes, and calls the tower once a clip with torch's
default threads. Starting up (imports, loading weights) is left out of all three and given apart.

    python -m bench.compress [--clips 20] [--fps 1] [--repeats 3] [--json]
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch

from bench.checkpoint import make_checkpoint
from bench.clips import clips_parser, recipe_of, videos
from bench.local import run_locally
from tokcli.media import Limits, Sampling, open_media
from tokcli.models import VisionTower, load_tower
from tokcli.models.preprocess import resize_frames
from tokcli.pipeline.preflight import available_cores

STEPS_PER_CALL = 8


def decode_alone(paths: Sequence[Path], tower: VisionTower, fps: float) -> float:
    """CPU seconds of decoding the wanted frames and resizing them to the tower's input, on one thread."""
    torch.set_num_threads(1)
    started = time.process_time()
    for path in paths:
        with open_media(str(path), sampling=Sampling(fps=fps), limits=Limits()) as reader:
            size = tower.sizer(reader.info)
            for frames in reader.chunks(4):
                resize_frames(frames.pixels, size, "bicubic")
    return time.process_time() - started


def encode_alone(paths: Sequence[Path], tower: VisionTower, fps: float) -> float:
    """CPU seconds of the tower on frames that are decoded already, on one thread."""
    torch.set_num_threads(1)
    seconds = 0.0
    for path in paths:
        with open_media(str(path), sampling=Sampling(fps=fps), limits=Limits()) as reader:
            info, size = reader.info, tower.sizer(reader.info)
            pixels = [resize_frames(frames.pixels, size, "bicubic") for frames in reader.chunks(2 * STEPS_PER_CALL)]
        started = time.process_time()
        encoding = tower.start(info, size, frozenset())
        for part in pixels:
            encoding.push(part)
        seconds += time.process_time() - started
    return seconds


def naive(paths: Sequence[Path], tower: VisionTower, fps: float, threads: int) -> float:
    """Wall seconds of the script that one writes first."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            try:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            except av.error.FFmpegError:
                continue
            rate = float(stream.average_rate or 25)
        wanted = [
            frames[min(len(frames) - 1, round(tick * rate / fps))]
            for tick in range(max(1, int(len(frames) / rate * fps)))
        ]
        with open_media(str(path), sampling=Sampling(fps=fps), limits=Limits()) as reader:
            info, size = reader.info, tower.sizer(reader.info)
        pixels = resize_frames(np.stack(wanted), size, "bicubic")
        tower.start(info, size, frozenset()).push(pixels)
    return time.perf_counter() - started


def tokcli_wall(paths: Sequence[Path], model: Path, fps: float, folder: Path) -> tuple[float, float]:
    """Wall seconds of the encoder loop (without and with start-up)."""
    run = run_locally(recipe_of(paths, model, folder / f"cache-{time.monotonic_ns()}", fps, method="dtd"))
    return run.ended - run.work_began, run.ended - run.began


def measure(clips: int, fps: float, repeats: int) -> dict[str, object]:
    """Medians over alternating runs, and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        paths = videos(folder / "clips", clips)
        tower = load_tower(str(model), dtype="float32", device="cpu")
        cores = available_cores()
        rows: dict[str, list[float]] = {
            key: [] for key in ("decode_cpu", "encode_cpu", "tokcli", "tokcli_start", "naive")
        }
        for _ in range(repeats):
            rows["decode_cpu"].append(decode_alone(paths, tower, fps))
            rows["encode_cpu"].append(encode_alone(paths, tower, fps))
            work, whole = tokcli_wall(paths, model, fps, folder)
            rows["tokcli"].append(work)
            rows["tokcli_start"].append(whole - work)
            rows["naive"].append(naive(paths, tower, fps, os.cpu_count() or 1))
    median = {key: statistics.median(values) for key, values in rows.items()}
    bound = (median["decode_cpu"] + median["encode_cpu"]) / cores
    return {
        "clips": len(paths),
        "fps": fps,
        "cores": cores,
        "seconds": {key: round(value, 3) for key, value in median.items()},
        "work_bound_seconds": round(bound, 3),
        "share_of_work_bound": round(bound / median["tokcli"], 3),
        "naive_share_of_work_bound": round(bound / median["naive"], 3),
        "times_naive": round(median["naive"] / median["tokcli"], 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = clips_parser("compress", __doc__)
    chosen = parser.parse_args(arguments)
    result = measure(chosen.clips, chosen.fps, chosen.repeats)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print(f"compress: {result['clips']} clips at {result['fps']:g} fps, {result['cores']} cores, 18M-weight tower")
    print(f"  share of the work bound   {result['share_of_work_bound']}   (target 0.92)")
    print(f"  the naive script's share  {result['naive_share_of_work_bound']}")
    print(f"  against the naive script  {result['times_naive']} times faster")
    print(f"  seconds {result['seconds']}, bound {result['work_bound_seconds']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
