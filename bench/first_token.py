"""Time to the first token: from the cache at several budgets, against from the video file, same random model.

One clip of 60 seconds at 2 frames a second, 60 steps of 60 tokens: 3,600 visual tokens. From the file: decode, resize,
run the tower, prefill. From the cache: open it, read the item, compute positions, prefill.

    python -m bench.first_token [--repeats 5] [--large] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.checkpoint import make_checkpoint
from tokcli.cache import open_cache
from tokcli.media import Limits, Sampling, open_media, write_video
from tokcli.models import Request, load_language_model, load_tower
from tokcli.models.preprocess import resize_frames
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe
from tokcli.types import EncodedItem, MediaInfo, TokenSet, VisualTokens

SECONDS, FPS, TOKENS_PER_STEP = 60, 2.0, 60
HEIGHT, WIDTH = 360, 640
BUDGETS = {1.0: 0.35, 0.25: 0.05, 0.1: 0.02}
"""Share kept, and the share of the native time that it may take."""
PROMPT = "What color is the circle?"


def noisy_clip(seed: int = 0) -> Iterator[np.ndarray]:
    """A minute of a textured scene under a moving light, 25 frames a second."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 200, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
    columns = np.arange(WIDTH)[None, :, None]
    for number in range(SECONDS * 25):
        light = 40 * np.sin(columns / 60 + number / 25)
        yield np.clip(texture + light, 0, 255).astype(np.uint8)


def whole_item(
    parts: Sequence[VisualTokens], info: MediaInfo, size: tuple[int, int], seconds_per_step: float | None
) -> EncodedItem:
    """All tokens of a clip, as they come from the tower."""
    tokens = torch.cat([part.tokens for part in parts])
    rows = len(tokens)
    kept = TokenSet(tokens, torch.cat([part.coords for part in parts]), torch.ones(rows), torch.arange(rows))
    return EncodedItem(
        id="clip",
        path="clip",
        kind=info.kind,
        kept=kept,
        views=parts[0].views,
        source_tokens=rows,
        times=np.zeros(0),
        indices=np.zeros(0, dtype=np.int64),
        frame_size=size,
        source_size=(info.height, info.width),
        duration_seconds=info.duration_seconds,
        source_fps=info.source_fps,
        sample_fps=info.sample_fps,
        seconds_per_step=seconds_per_step,
        codec=info.codec,
        decoder=info.decoder,
        source_bytes=0,
        source_modified_ns=0,
        source_hash="0" * 64,
    )


def measure(repeats: int, large: bool) -> dict[str, object]:
    """Medians of alternating runs and their ratios to the native time."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model", TOKENS_PER_STEP, large_language_model=large)
        clip = folder / "clip.mp4"
        write_video(clip, noisy_clip(), 25)
        for keep in BUDGETS:
            recipe = CompressRecipe(
                inputs=[str(clip)],
                output=str(folder / f"cache{keep}"),
                model=str(model),
                method="uniform",
                keep=keep,
                sampling={"fps": FPS},
                dtype="float32",
            )
            compress(recipe)
        tower = load_tower(str(model), dtype="float32", device="cpu")
        language = load_language_model(str(model), dtype="float32", device="cpu")
        torch.set_num_threads(1)

        def native() -> int:
            with open_media(str(clip), sampling=Sampling(fps=FPS), limits=Limits()) as reader:
                info, size = reader.info, tower.sizer(reader.info)
                encoding = tower.start(info, size, frozenset())
                parts = [encoding.push(resize_frames(frames.pixels, size, "bicubic")) for frames in reader.chunks(16)]
            item = whole_item(parts, info, size, encoding.seconds_per_step)
            return language.generate([Request([item], PROMPT)], max_new_tokens=1)[0].visual_tokens

        def cached(keep: float) -> int:
            cache = open_cache(folder / f"cache{keep}")
            item = cache[cache.ids()[0]]
            return language.generate([Request([item], PROMPT)], max_new_tokens=1)[0].visual_tokens

        ways: dict[str, Callable[[], int]] = {"native": native}
        ways.update({f"cached {keep:g}": (lambda keep=keep: cached(keep)) for keep in BUDGETS})
        tokens, seconds = {}, {way: [] for way in ways}  # type: ignore[var-annotated]
        for way, run in ways.items():
            tokens[way] = run()  # warm up
        for _ in range(repeats):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - started)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "visual_tokens": tokens,
        "seconds": {way: round(value, 4) for way, value in median.items()},
        "ratios": {f"{keep:g}": round(median[f"cached {keep:g}"] / median["native"], 4) for keep in BUDGETS},
        "targets": {f"{keep:g}": target for keep, target in BUDGETS.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_token", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="137M-weight language model instead of 24M")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    result = measure(chosen.repeats, chosen.large)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print("time to first token, cached against native from the file (60 s clip at 2 fps)")
    for keep, ratio in result["ratios"].items():  # type: ignore[attr-defined]
        print(f"  {float(keep):4.0%} kept: {ratio:.4f} of native   (target {result['targets'][keep]})")  # type: ignore[index]
    print(f"  seconds {result['seconds']}, visual tokens {result['visual_tokens']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
