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
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.one_clip import one_clip
from tokcli.models import Request
from tokcli.types import EncodedItem

BUDGETS = {1.0: 0.35, 0.25: 0.05, 0.1: 0.02}
"""Share kept, and the share of the native time that it may take."""
PROMPT = "What color is the circle?"


def measure(repeats: int, large: bool) -> dict[str, object]:
    """Medians of alternating runs and their ratios to the native time."""
    with tempfile.TemporaryDirectory() as name:
        clip = one_clip(Path(name), BUDGETS, large=large)

        def asked(item: EncodedItem) -> int:
            return clip.language.generate([Request([item], PROMPT)], max_new_tokens=1)[0].visual_tokens

        ways: dict[str, Callable[[], int]] = {"native": lambda: asked(clip.from_file())}
        for keep in BUDGETS:
            ways[f"cached {keep:g}"] = lambda keep=keep: asked(clip.from_cache(keep))  # type: ignore[misc]
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
