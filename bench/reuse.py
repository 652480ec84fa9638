"""What `compress --reuse-unchanged` saves of the encoder's time, and what it costs in answers, in one run.

Time is CPU time of the tower on one thread, on frames that are decoded and resized already, threshold by threshold on
the same frames; a larger model saves the same share of tokens at the same frame size, and a larger share of the time,
for more of it is the blocks'. Answers are those of the bundled model about rendered clips from a still camera.

    python -m bench.reuse [--clips 12] [--fps 2] [--frames 32] [--model nano] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bench.clips import videos
from tokcli.evaluate.evaluate import evaluate
from tokcli.media import Limits, Sampling, open_media
from tokcli.models import VisionTower, load_tower
from tokcli.models.preprocess import resize_frames
from tokcli.models.reuse import ReusingEncoding
from tokcli.pipeline.compress import compress
from tokcli.pipeline.render import render
from tokcli.recipe import CompressRecipe, EvalRecipe, RenderRecipe, SamplingRecipe
from tokcli.types import MediaInfo

THRESHOLDS: dict[str, float | None] = {"off": None, "0": 0.0, "1/255": 1 / 255, "2/255": 2 / 255}
FRAMES_AT_ONCE = 16
STATIC_SHARE = 0.5
"""A real clip counts as static if that much of it is unchanged within 2/255."""


@dataclass
class Saved:
    """What a threshold saved over some clips."""

    clips: int = 0
    tokens: int = 0
    reused: int = 0
    seconds: float = 0.0
    by_clip: dict[str, float] = field(default_factory=dict)
    """Share of the tokens that were taken from before."""


def load(path: Path, tower: VisionTower, fps: float, frames: int) -> tuple[MediaInfo, npt.NDArray[np.uint8]]:
    """A clip's frames as the tower takes them: its info, and uint8 (n, h, w, 3)."""
    with open_media(str(path), sampling=Sampling(fps=fps, max_frames=frames), limits=Limits()) as reader:
        size = tower.sizer(reader.info)
        parts = [resize_frames(part.pixels, size, tower.sizer.resample) for part in reader.chunks(FRAMES_AT_ONCE)]
        return reader.info, np.concatenate(parts)


def encode(tower: VisionTower, info: MediaInfo, pixels: npt.NDArray[np.uint8], threshold: float | None) -> Saved:
    """CPU seconds of one thread, and how many tokens were not encoded."""
    encoding = tower.start(info, pixels.shape[1:3], frozenset(), threshold)
    started = time.process_time()
    for first in range(0, len(pixels), FRAMES_AT_ONCE):
        encoding.push(pixels[first : first + FRAMES_AT_ONCE])
    seconds = time.process_time() - started
    if isinstance(encoding, ReusingEncoding):
        return Saved(1, encoding.tokens, encoding.reused, seconds)
    return Saved(1, 0, 0, seconds)


def savings(paths: Sequence[Path], tower: VisionTower, fps: float, frames: int) -> dict[str, dict[str, Saved]]:
    """By set of clips and threshold: all of them, and those that hardly change."""
    table = {which: {name: Saved() for name in THRESHOLDS} for which in ("all", "static")}
    for path in paths:
        info, pixels = load(path, tower, fps, frames)
        encode(tower, info, pixels[:2], None)  # what the first call of a shape costs belongs to none of them
        found = {name: encode(tower, info, pixels, threshold) for name, threshold in THRESHOLDS.items()}
        loosest = found["2/255"]
        static = loosest.reused >= STATIC_SHARE * loosest.tokens
        for which in ("all", "static") if static else ("all",):
            for name, one in found.items():
                total = table[which][name]
                total.clips += 1
                total.tokens += one.tokens
                total.reused += one.reused
                total.seconds += one.seconds
                total.by_clip[path.name] = one.reused / one.tokens if one.tokens else 0.0
    return table


def answers(folder: Path, clips: Path, fps: float) -> dict[str, dict[str, float]]:
    """Accuracy on the clips' questions by threshold, and what it differs by from encoding all, in points."""
    caches = {name: folder / f"cache-{number}" for number, name in enumerate(THRESHOLDS)}
    for name, threshold in THRESHOLDS.items():
        compress(
            CompressRecipe(
                inputs=[str(clips)],
                output=str(caches[name]),
                method="none",
                sampling=SamplingRecipe(fps=fps),
                reuse_unchanged=threshold,
            )
        )
    recipe = EvalRecipe(
        inputs=[str(cache) for cache in caches.values()],
        qa=str(clips / "qa.jsonl"),
        output=str(folder / "eval"),
        plots=False,
    )
    rows = [row for row in evaluate(recipe).rows if row["kind"] is None]
    found = {}
    for name, cache in caches.items():
        row = next(row for row in rows if row["method"] in (f"none ({cache})", "full" if name == "off" else ""))
        low, high = row["diff_ci"] or (0.0, 0.0)
        found[name] = {"accuracy": row["accuracy"], "diff": row["diff"] or 0.0, "low": low, "high": high, "n": row["n"]}
    return found


def lines(table: dict[str, dict[str, Saved]], title: str) -> Iterator[str]:
    yield f"{title:34}{'threshold':>10}{'not encoded':>13}{'time':>8}"
    for which, by_threshold in table.items():
        base = by_threshold["off"].seconds
        for name, saved in by_threshold.items():
            if name == "off" or not saved.clips:
                continue
            share = saved.reused / saved.tokens
            label = f"{which} ({saved.clips} clips)"
            yield f"{label:34}{name:>10}{share:>12.1%} {saved.seconds / base:>7.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clips", type=int, default=12, help="rendered clips")
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--frames", type=int, default=32, help="of each clip at most, for the times")
    parser.add_argument("--model", default="nano", help="whose tower is timed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tower = load_tower(options.model, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = folder / "clips"
        render(RenderRecipe(output=str(clips), kind="static", count=options.clips, seed=7))
        rendered = sorted(path for path in clips.iterdir() if path.suffix != ".jsonl")
        found = {
            "real clips": savings(videos(folder / "more"), tower, options.fps, options.frames),
            "rendered, still camera": savings(rendered, tower, options.fps, options.frames),
        }
        asked = answers(folder, clips, options.fps)
    if options.json:
        times = {title: {w: {n: asdict(s) for n, s in by.items()} for w, by in t.items()} for title, t in found.items()}
        print(json.dumps({"bench": "reuse", "savings": times, "answers": asked}))
        return
    for title, table in found.items():
        print("\n".join(lines(table, title)))
    print(f"{'answers, rendered clips':34}{'threshold':>10}{'right':>13}{'change (95%)':>24}")
    for name, row in asked.items():
        change = f"{row['diff']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        print(f"{row['n']:<34}{name:>10}{row['accuracy']:>13.1%}{change:>24}")


if __name__ == "__main__":
    main()
