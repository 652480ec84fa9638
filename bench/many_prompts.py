"""Ten prompts on one clip: with its tokens computed once, with each prompt alone, and from the file each time.

One clip of 60 seconds at 2 frames a second, 3,600 visual tokens, same random model. From the file each prompt decodes,
resizes, runs the tower and prefills all tokens. From the cache the item is read once, and prompts share its keys and
values or, for comparison, prefill it each. The answers of both ways must be the same.

    python -m bench.many_prompts [--prompts 10] [--repeats 3] [--large] [--json]
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

KEEPS = (1.0, 0.1)
NEW_TOKENS = 8
LEAST = {"shared 1": ("alone 1", 6.0), "shared 0.1": ("native", 150.0)}
"""Way, the way that it is compared with, and how many times faster it is to be."""
Texts = list[str]


def measure(count: int, repeats: int, large: bool) -> dict[str, object]:
    """Medians of alternating runs, their ratios, and whether the answers agree."""
    prompts = [f"What is the {number}. thing that happens, and what color is it?" for number in range(count)]
    with tempfile.TemporaryDirectory() as name:
        clip = one_clip(Path(name), KEEPS, large=large)
        language = clip.language
        # Answers of the same length in all ways: random weights may end one at once.
        language.model.generation_config.eos_token_id = None

        def native() -> Texts:
            """One prompt; all of them take ``count`` times as long."""
            return [language.generate([Request([clip.from_file()], prompts[0])], max_new_tokens=NEW_TOKENS)[0].text]

        def shared(keep: float) -> Texts:
            answers = language.ask(clip.from_cache(keep), prompts, max_new_tokens=NEW_TOKENS)
            return [answer.text for answer in answers]

        def alone(keep: float) -> Texts:
            item = clip.from_cache(keep)
            return [
                language.generate([Request([item], prompt)], max_new_tokens=NEW_TOKENS)[0].text for prompt in prompts
            ]

        ways: dict[str, Callable[[], Texts]] = {"native": native}
        for keep in KEEPS:
            ways[f"shared {keep:g}"] = lambda keep=keep: shared(keep)  # type: ignore[misc]
            ways[f"alone {keep:g}"] = lambda keep=keep: alone(keep)  # type: ignore[misc]
        texts: dict[str, Texts] = {}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        language.ask(None, prompts, max_new_tokens=2)  # warm up
        for _ in range(repeats):
            for way, run in ways.items():
                started = time.perf_counter()
                texts[way] = run()
                seconds[way].append(time.perf_counter() - started)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    median["native"] *= count
    return {
        "prompts": count,
        "seconds": {way: round(value, 3) for way, value in median.items()},
        "same_answers": {f"{keep:g}": texts[f"shared {keep:g}"] == texts[f"alone {keep:g}"] for keep in KEEPS},
        "times_faster": {way: round(median[other] / median[way], 1) for way, (other, _) in LEAST.items()},
        "targets": {way: target for way, (_, target) in LEAST.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if sharing changed an answer."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_prompts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="137M-weight language model instead of 24M")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    result = measure(chosen.prompts, chosen.repeats, chosen.large)
    if chosen.json:
        print(json.dumps(result))
    else:
        print(f"{chosen.prompts} prompts on one 60 s clip of 3,600 tokens, {NEW_TOKENS} new tokens each")
        for way, (other, target) in LEAST.items():
            print(f"  {way} against {other}: {result['times_faster'][way]}x   (target {target:g}x)")  # type: ignore[index]
        print(f"  seconds {result['seconds']}, same answers {result['same_answers']}")
    return 0 if all(result["same_answers"].values()) else 1  # type: ignore[attr-defined]


if __name__ == "__main__":
    raise SystemExit(main())
