"""Peak memory of `compress` on a ten-minute clip against a ten-second one: it must not grow with the length.

The peak is that of the whole process tree, sampled from outside, each page that processes share counted once.

    python -m bench.memory [--methods dtd,evs,none] [--json]
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
HEIGHT, WIDTH, RATE = 240, 320, 10


def clip(seconds: int) -> Iterator[np.ndarray]:
    """Bars that drift over noise: no two frames are alike, so little is dropped."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (HEIGHT, WIDTH, 3))
    columns = np.arange(WIDTH)[None, :, None]
    for number in range(seconds * RATE):
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


def measure(methods: Sequence[str]) -> dict[str, dict[str, float]]:
    """MiB by method and length, and their ratio."""
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in LENGTHS.values():
            write_video(folder / f"{seconds}.mp4", clip(seconds), RATE)
        for method in methods:
            row = {}
            for label, seconds in LENGTHS.items():
                cache = folder / f"{method}-{seconds}"
                budget = ["--keep", "0.5"] if method not in ("none", "dtd") else []
                arguments = ["compress", str(folder / f"{seconds}.mp4"), "-o", str(cache), "--method", method, *budget]
                code = "from tokcli.cli.app import main; main()"
                row[label] = peak_bytes([sys.executable, "-c", code, *arguments, "--fps", "4", "-q"]) / 2**20
            row["ratio"] = row["10 min"] / row["10 s"]
            result[method] = {key: round(value, 3) for key, value in row.items()}
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default="dtd,evs,none")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    result = measure(chosen.methods.split(","))
    if chosen.json:
        print(json.dumps(result))
        return 0
    print("peak memory of compress, process tree (target: ratio at most 1.3)")
    for method, row in result.items():
        print(f"  {method:10} 10 s {row['10 s']:7.0f} MiB   10 min {row['10 min']:7.0f} MiB   ratio {row['ratio']:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
