"""How time and memory of the methods grow with the length of a video: 64, 256 and 1024 frames of 196 tokens.

Every figure comes from a process of its own: CPU seconds on one thread, and how far the peak of resident memory rose
above what the process held with the tokens in it (822 MB of float32 for 1024 frames), less the tokens that the method
gives. The target holds for arrays: none of T x T x P or N x N may be larger than 200 MB.

    python -m bench.methods --growth [--json] [NAME ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.peak import peak_bytes
from tokcli.methods import resolve
from tokcli.types import VisualTokens

FRAMES = (64, 256, 1024)
TIMEOUT_SECONDS = 1800
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "dtd": ("dtd", {}),
    "dtd anchor": ("dtd", {"options": {"reference": "kept"}}),
    "evs": ("evs", {"keep": 0.3}),
    "vidcom2": ("vidcom2", {"keep": 0.3}),
    "dycoke": ("dycoke", {}),
    "rlt": ("rlt", {}),
    "aim": ("aim", {}),
    "tempme": ("tempme", {}),
    "aot": ("aot", {}),
    "aot official": ("aot", {"options": {"variant": "official"}}),
    "holitom": ("holitom", {}),
    "fastvid": ("fastvid", {}),
    "fastvid uncut": ("fastvid", {"options": {"segments": 1, "tau": -1}}),
    "prunevid": ("prunevid", {}),
    "temporal_merge keep 0.05": ("temporal_merge", {"keep": 0.05}),
    "temporal_merge keep 0.2": ("temporal_merge", {"keep": 0.2}),
    "temporal_merge threshold": ("temporal_merge", {"threshold": 0.8}),
    "keyframes": ("keyframes", {"keep": 0.25}),
    "ktv": ("ktv", {}),
    "vqtoken 32 codes": ("vqtoken", {"max_tokens": 32, "options": {"max_iterations": 10}}),
    "vqtoken": ("vqtoken", {}),
    "centerclip": ("centerclip", {}),
    "ts_llava": ("ts_llava", {}),
    "none": ("none", {}),
    "uniform": ("uniform", {"keep": 0.2}),
    "random": ("random", {"keep": 0.2}),
    "pool2d": ("pool2d", {"keep": 0.25}),
}
"""What is measured. ``downsample`` is not: it works on frames, before there are tokens."""


@dataclass(frozen=True)
class Point:
    frames: int
    kept: int
    seconds: float
    result_bytes: int
    extra_bytes: int
    """The peak above what was held before, less the result."""


def measure_here(name: str, visual: VisualTokens, warm_up: VisualTokens) -> Point:
    """Compress once; only the first call in a process tells of memory."""
    method, arguments = SETTINGS[name]
    compressor = resolve(method, **arguments)
    compressor.compress(warm_up, "bench")
    before = peak_bytes()
    start = time.thread_time()
    kept = compressor.compress(visual, "bench")
    seconds = time.thread_time() - start
    rise = peak_bytes() - before
    result = kept.tokens.numel() * kept.tokens.element_size()
    return Point(visual.views[0].grid[0], len(kept), seconds, result, max(0, rise - result))


def measure(name: str, frames: int) -> Point:
    """In a fresh process; raises ``RuntimeError`` with what it said last if it fails."""
    command = [sys.executable, "-m", "bench.growth", name, str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{name} with {frames} frames: {done.stderr.strip().splitlines()[-1]}")
    return Point(**json.loads(done.stdout))


def main(names: Sequence[str], as_json: bool) -> int:
    """Print a row for each method as soon as it is measured, or all as JSON in the end."""
    unknown = sorted(set(names) - set(SETTINGS))
    if unknown:
        print(f"unknown setting {unknown[0]!r}; known: {', '.join(SETTINGS)}", file=sys.stderr)
        return 2
    rows = []
    if not as_json:
        per_length = "".join(f"{f'{frames} frames':>12}{'per frame':>11}{'extra MB':>10}" for frames in FRAMES)
        print(f"{'method':26}{per_length}")
    for name in names or SETTINGS:
        points = [measure(name, frames) for frames in FRAMES]
        first = points[0].seconds / points[0].frames
        growth = [point.seconds / point.frames / first for point in points]
        rows.append({"name": name, "points": [asdict(point) for point in points], "time_per_frame": growth})
        if not as_json:
            cells = (
                f"{point.seconds:10.3f} s{more:11.2f}{point.extra_bytes / 1e6:10.0f}"
                for point, more in zip(points, growth)
            )
            print(f"{name:26}{''.join(cells)}", flush=True)
    if as_json:
        print(json.dumps({"growth": rows}))
    return 0


if __name__ == "__main__":
    from bench.methods import make_video

    torch.set_num_threads(1)
    point = measure_here(sys.argv[1], make_video((int(sys.argv[2]), 14, 14)), make_video((8, 14, 14)))
    print(json.dumps(asdict(point)))
