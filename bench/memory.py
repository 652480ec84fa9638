"""Peak memory of `compress`: it must grow neither with the length of a clip nor with the number of clips.

A ten-minute clip against a ten-second one, for each method; with ``--long`` also three hours against a minute and
10,000 clips against 100. The peak is that of the whole process tree, sampled from outside, each page that processes
share counted once.

    python -m bench.memory [--methods dtd,evs,none] [--long] [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from tokcli.media import write_video

LENGTHS = {"10 s": 10, "10 min": 600}
LONG = {"1 min": 60, "3 h": 3 * 3600}
COUNTS = (100, 10_000)
DIFFERENT = 20
"""Clips that are rendered; the others are further names of these."""
HEIGHT, WIDTH, RATE = 240, 320, 10


def clip(seconds: int, rate: int = RATE, seed: int = 0) -> Iterator[np.ndarray]:
    """Bars that drift over noise: no two frames are alike, so little is dropped."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 60, (HEIGHT, WIDTH, 3))
    columns = np.arange(WIDTH)[None, :, None]
    for number in range(seconds * rate):
        yield np.clip(noise + 90 + 90 * np.sin(columns / 9 + number / 3), 0, 255).astype(np.uint8)


def peak_bytes(command: list[str]) -> int:
    """Highest sum of the tree's proportional memory while the command runs."""
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        total = 0
        for member in [process, *process.children(recursive=True)]:
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {process.stderr.read()}")
    return peak


def compressed(inputs: Path, cache: Path, method: str, *options: str) -> float:
    """Peak MiB of one command."""
    budget = ["--keep", "0.5"] if method not in ("none", "dtd") else []
    arguments = ["compress", str(inputs), "-o", str(cache), "--method", method, *budget, *options, "-q"]
    return peak_bytes([sys.executable, "-c", "from tokcli.cli.app import main; main()", *arguments]) / 2**20


def measure(methods: Sequence[str]) -> dict[str, dict[str, float]]:
    """MiB by method and length, and their ratio."""
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in LENGTHS.values():
            write_video(folder / f"{seconds}.mp4", clip(seconds), RATE)
        for method in methods:
            row = {
                label: compressed(folder / f"{seconds}.mp4", folder / f"{method}-{seconds}", method, "--fps", "4")
                for label, seconds in LENGTHS.items()
            }
            result[method] = _with_ratio(row)
    return result


def measure_long() -> dict[str, dict[str, float]]:
    """MiB of a short and a very long clip, and of few and very many clips, and their ratios; all with dtd."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = {}
        for label, seconds in LONG.items():
            write_video(folder / f"{seconds}.mp4", clip(seconds, rate=1), 1)
            lengths[label] = compressed(folder / f"{seconds}.mp4", folder / f"cache-{seconds}", "dtd")
        counts = {}
        for number in range(DIFFERENT):
            write_video(folder / f"short-{number}.mp4", clip(2, seed=number), RATE)
        for count in COUNTS:
            inputs = folder / f"{count}-clips"
            inputs.mkdir()
            for number in range(count):
                (inputs / f"{number:05}.mp4").hardlink_to(folder / f"short-{number % DIFFERENT}.mp4")
            counts[f"{count:,} clips"] = compressed(inputs, folder / f"cache-{count}-clips", "dtd")
        return {"length": _with_ratio(lengths), "number": _with_ratio(counts)}


def _with_ratio(row: dict[str, float]) -> dict[str, float]:
    least, most = row.values()
    return {key: round(value, 3) for key, value in {**row, "ratio": most / least}.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default="dtd,evs,none")
    parser.add_argument("--long", action="store_true", help="also hours of video and 10,000 clips: some ten minutes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    result = measure(chosen.methods.split(",")) | (measure_long() if chosen.long else {})
    if chosen.json:
        print(json.dumps(result))
        return 0
    print("peak memory of compress, process tree (target: ratio at most 1.2)")
    for name, row in result.items():
        (few, least), (many, most), (_, ratio) = row.items()
        print(f"  {name:10} {few:>10} {least:7.0f} MiB   {many:>13} {most:7.0f} MiB   ratio {ratio:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
