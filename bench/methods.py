"""CPU time of the methods on one video of 64 frames of 196 tokens of 1024 numbers, float32, one thread.

Beside each stands the bare arithmetic timed in the same run (normalise all tokens, multiply neighbours, sum: plain
array operations) and the time of the authors' code. That was measured once, where the bare arithmetic took 0.10 s, so
it is scaled by the bare arithmetic of this run: a slower or busier machine changes both.

    python -m bench.methods [--json] [--repeats N]
    python -m bench.methods --image [--json] [--repeats N]    those for stills, on one still of five tiles
    python -m bench.methods --growth [--json] [NAME ...]      time and memory for 64, 256 and 1024 frames
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from bench import growth, methods_image
from tokcli.methods import resolve
from tokcli.models.preprocess import pixel_change
from tokcli.types import View, VisualTokens

GRID = (64, 14, 14)
DIM = 1024
PIXELS_PER_TOKEN = 28
OFFICIAL_BARE_SECONDS = 0.10
TARGET = 1 / 2
"""Share of the official time that a method may take."""


@dataclass(frozen=True)
class Result:
    name: str
    seconds: float
    bare_seconds: float
    official_seconds: float | None
    """As measured beside a bare arithmetic of 0.10 s, or scaled to that."""
    target: float = TARGET
    """Share of the official time that it may take."""

    @property
    def of_bare(self) -> float:
        return self.seconds / self.bare_seconds

    @property
    def of_official(self) -> float | None:
        if self.official_seconds is None:
            return None
        return self.of_bare / (self.official_seconds / OFFICIAL_BARE_SECONDS)


def make_video(grid: tuple[int, int, int] = GRID) -> VisualTokens:
    """Frames that drift, so that every method keeps some and drops some."""
    generator = torch.Generator().manual_seed(0)
    places = grid[1] * grid[2]
    pace = torch.rand(places, 1, generator=generator) * 1.5
    frames = torch.randn((grid[0], places, DIM), generator=generator)
    for step in range(1, grid[0]):
        frames[step] = frames[step - 1] + pace * frames[step]
    coords = torch.cartesian_prod(torch.tensor([0]), *(torch.arange(size) for size in grid)).to(torch.int32)
    rows = frames.reshape(-1, DIM)
    structural = torch.zeros(len(rows), dtype=torch.bool)
    signals = {name: rows[:, 0].abs() for name in ("pixel_change", "received_attention", "meanq")}
    return VisualTokens(rows, coords, (View("frames", grid),), structural, signals, 1.0)


def best_of(repeats: int, run: Callable[[], object]) -> float:
    """CPU seconds of the fastest of several runs, which is the one least disturbed."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def bare_arithmetic(frames: torch.Tensor) -> Callable[[], object]:
    """What everything is compared with, on (T, P, D) frames."""

    def bare() -> None:
        unit = torch.nn.functional.normalize(frames, dim=-1)
        (unit[1:] * unit[:-1]).sum(-1)

    return bare


def measure_stills(repeats: int) -> list[Result]:
    bare = bare_arithmetic(make_video().tokens.view(GRID[0], -1, DIM))
    stills = {grid: methods_image.make_still(grid) for grid in {row.grid for row in methods_image.ROWS}}
    results = []
    for row in methods_image.ROWS:
        compressor = resolve(row.name.split()[0], **row.arguments)
        run = partial(compressor.compress, stills[row.grid], "bench")
        run()  # what a first call costs is no method's
        bare_seconds = best_of(repeats, bare)
        seconds, official = best_of(repeats, run), row.official_seconds
        if row.plain is not None:
            official = best_of(repeats, row.plain()) / bare_seconds * OFFICIAL_BARE_SECONDS
        results.append(Result(row.name, seconds, bare_seconds, official, row.target))
    return results


def measure(repeats: int) -> list[Result]:
    visual = make_video()
    frames = visual.tokens.view(GRID[0], -1, DIM)
    size = (GRID[1] * PIXELS_PER_TOKEN, GRID[2] * PIXELS_PER_TOKEN, 3)
    images = np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)

    bare = bare_arithmetic(frames)

    def pixel_signal() -> None:
        for _ in range(GRID[0]):
            pixel_change(images[0], images, 2, PIXELS_PER_TOKEN)

    signal_seconds = best_of(repeats, pixel_signal)

    def result(
        name: str, official: float | None = None, extra: float = 0.0, item: VisualTokens = visual, **arguments: Any
    ) -> Result:
        compressor = resolve(name.split()[0], **arguments)
        # The bare arithmetic again beside each method: other work on the machine comes and goes.
        bare_seconds = best_of(repeats, bare)
        seconds = best_of(repeats, lambda: compressor.compress(item, "bench")) + extra
        return Result(name, seconds, bare_seconds, official)

    return [
        result("dtd feature", 0.57),
        result("dtd feature keep 0.2", 0.57, keep=0.2),
        result("dtd feature anchor", options={"reference": "kept"}),
        result("dtd pixel and its signal", 0.47, signal_seconds, options={"criterion": "pixel"}),
        result("evs", 0.105, keep=0.3),
        result("vidcom2", 0.20, keep=0.3),
        result("dycoke", 0.037),
        result("aim", 0.19),
        result("tempme"),
        result("aot", 0.49 * 4, item=make_video((4, 27, 27))),
        result("holitom", 0.31),
        result("fastvid", 0.57),
        result("prunevid", 0.37),
        result("temporal_merge", keep=0.05),
        result("temporal_merge keep 0.2", keep=0.2),
        result("temporal_merge threshold", threshold=0.8),
        result("keyframes", keep=0.25),
        result("vqtoken 32 codes", 2.96 + 10 * 0.06, max_tokens=32, options={"max_iterations": 10}),
        result("rlt"),
        result("ts_llava"),
        result("ktv keyframes", 16.3, item=make_video((5400, 1, 1)), options={"keyframes": 12}),
        result("centerclip", 0.44 * GRID[0] / 2),
        result("none"),
        result("uniform", keep=0.2),
        result("random", keep=0.2),
        result("pool2d", keep=0.25),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--image", action="store_true", help="measure the methods for stills")
    parser.add_argument("--growth", action="store_true", help="measure 64, 256 and 1024 frames instead")
    parser.add_argument("names", nargs="*", metavar="NAME", help="with --growth: which settings, by default all")
    arguments = parser.parse_args(argv)
    if arguments.growth:
        return growth.main(arguments.names, arguments.json)
    torch.set_num_threads(1)
    results = (measure_stills if arguments.image else measure)(arguments.repeats)
    late = [result.name for result in results if result.of_official is not None and result.of_official > result.target]
    if arguments.json:
        rows = [{**asdict(result), "of_bare": result.of_bare, "of_official": result.of_official} for result in results]
        print(json.dumps({"methods": rows, "over_target": late}))
    else:
        print(f"{'method':26}{'seconds':>9}{'bare':>9}{'of bare':>9}{'official':>10}{'of official':>13}")
        for result in results:
            official = (
                "" if result.official_seconds is None else f"{result.official_seconds:10.3f}{result.of_official:13.3f}"
            )
            numbers = f"{result.seconds:9.4f}{result.bare_seconds:9.4f}{result.of_bare:9.2f}"
            print(f"{result.name:26}{numbers}{official}")
        print(f"over the share of the official time that is allowed: {', '.join(late) or 'none'}")
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
