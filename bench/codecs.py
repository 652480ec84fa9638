"""What codecs save and what they cost: bytes, right answers, and how far the model's expectations move.

Scenes of every kind are rendered, compressed once with all tokens as float32, and from that cache derived with each
method and codec, so that all differ in nothing but how tokens were stored. Answers are judged against their labels, and
counted by kind of question and by kind of scene; divergence is KL(float16 || codec) of the next-token distributions
along float16's own answers, in nats a token. The last line names the smallest codec that keeps ``TARGET`` on every kind
of question.

    python -m bench.codecs [--model nano] [--scenes 140] [--methods none,dtd] [--work FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tokcli.cache import Cache, open_cache
from tokcli.cache.codebook import Codebook
from tokcli.cache.codec_quantizer import QuantizerCodec
from tokcli.cache.codecs import CODECS
from tokcli.evaluate.judging import AgainstFull, AgainstLabels, AskOptions
from tokcli.evaluate.matching import by_item
from tokcli.evaluate.questions import read_questions
from tokcli.models import load_language_model
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.pipeline.render import render
from tokcli.recipe import CompressRecipe, DeriveRecipe, RenderRecipe
from tokcli.types import EncodedItem

LOSSY = tuple(name for name, codec in CODECS.items() if codec.lossy)
REFERENCE = "float16"
TARGET = 0.995
"""Share of float16's right answers that a codec has to keep, on every kind of question, to be a default."""


def answers(model: str, scenes: int, methods: Sequence[str], work: Path) -> list[dict[str, Any]]:
    """A row for each method and codec."""
    clips, full = work / "clips", work / "full"
    if not (clips / "qa.jsonl").exists():
        render(RenderRecipe(output=str(clips), kind="all", count=scenes, seed=7))
    compress(CompressRecipe(inputs=[str(clips)], output=str(full), model=model, method="none", tokens_dtype="float32"))
    language = load_language_model(model)
    options = AskOptions()
    labels, expected = AgainstLabels(lambda: language, options), AgainstFull(lambda: language, options)
    ids = open_cache(full).ids()
    questions, _ = by_item(read_questions(clips / "qa.jsonl", labelled=True), ids)
    rows = []
    for method in methods:
        caches = {codec: _derived(full, work / f"{method}-{codec}", method, codec) for codec in (REFERENCE, *LOSSY)}
        right: dict[str, list[float]] = {codec: [] for codec in caches}
        kinds: list[tuple[str, str]] = []
        apart: dict[str, list[float]] = {codec: [] for codec in caches}
        for item_id, asked in questions.items():
            reference = caches[REFERENCE][item_id]
            kinds += [(f"asked: {question.kind}", f"shown: {_scene(item_id)}") for question in asked]
            for codec, cache in caches.items():
                item = cache[item_id]
                right[codec] += [judged.score for judged in labels.judge(item, asked, _giving(item))]
                apart[codec] += [judged.divergence or 0.0 for judged in expected.judge(item, asked, _giving(reference))]
        rows += [_row(method, codec, caches, right, apart) | by_kind(kinds, right, codec) for codec in caches]
    return rows


def _scene(item_id: str) -> str:
    """The kind of scene, from the name of its file: ``static-1-00006.mp4``."""
    return Path(item_id).name.rsplit("-", 2)[0]


def by_kind(
    kinds: Sequence[tuple[str, ...]], right: dict[str, list[float]], codec: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Under ``kinds`` by name: float16's right answers, those lost and gained; ``kinds`` names those of an answer."""
    found: dict[str, dict[str, float]] = {}
    for names, one, other in zip(kinds, right[REFERENCE], right[codec], strict=True):
        for name in names:
            counts = found.setdefault(name, {"right": 0.0, "lost": 0.0, "gained": 0.0})
            counts["right"] += one
            counts["lost"] += max(0.0, one - other)
            counts["gained"] += max(0.0, other - one)
    return {"kinds": dict(sorted(found.items()))}


def kept(counts: dict[str, float]) -> float:
    """Share of float16's right answers that a codec has, with those that it alone has; 1 where there are none."""
    return (counts["right"] - counts["lost"] + counts["gained"]) / counts["right"] if counts["right"] else 1.0


def smallest(rows: Sequence[dict[str, Any]]) -> str:
    """Of the codecs that keep ``TARGET`` on every kind of question by every method, the one with the fewest bytes."""
    sizes: dict[str, float] = {}
    for row in rows:
        asked = [counts for name, counts in row["kinds"].items() if name.startswith("asked")]
        good = all(kept(counts) >= TARGET for counts in asked)
        before = sizes.get(row["codec"], 0.0)
        sizes[row["codec"]] = before + row["bytes_to_float16"] if good else float("inf")
    return min(sizes, key=lambda codec: sizes[codec])


def _giving(item: EncodedItem) -> Callable[[], EncodedItem]:
    return lambda: item


def _derived(full: Path, folder: Path, method: str, codec: str) -> Cache:
    derive(DeriveRecipe(cache=str(full), output=str(folder), method=method, tokens_dtype=codec))  # type: ignore[arg-type]
    return open_cache(folder)


def _row(
    method: str,
    codec: str,
    caches: dict[str, Cache],
    right: dict[str, list[float]],
    apart: dict[str, list[float]],
) -> dict[str, Any]:
    stats, before = caches[codec].stats(), caches[REFERENCE].stats()
    flips = [(one, other) for one, other in zip(right[REFERENCE], right[codec])]
    return {
        "method": method,
        "codec": codec,
        "bytes_to_float16": stats["cache_bytes"] / before["cache_bytes"],
        "bytes_to_source": stats["cache_bytes"] / stats["source_bytes"],
        "accuracy": statistics.mean(right[codec]),
        "retained": sum(right[codec]) / sum(right[REFERENCE]),
        "lost": sum(one > other for one, other in flips),
        "gained": sum(one < other for one, other in flips),
        "questions": len(flips),
        "divergence": statistics.mean(apart[codec]),
    }


def rates(repeats: int = 20) -> dict[str, dict[str, float]]:
    """GiB of float16 input a second on one thread, by codec: encoding, decoding, and copying the same bytes."""
    torch.set_num_threads(1)
    tokens = torch.randn(585, 3584, generator=torch.Generator().manual_seed(0)).half()
    gib, copy = tokens.numel() * 2 / 2**30, torch.empty_like(tokens)
    found = {"memcpy": {"encode": gib / _fastest(lambda: copy.copy_(tokens), repeats)}}
    for name in LOSSY:
        codec = CODECS[name]
        if isinstance(codec, QuantizerCodec):  # speed does not depend on what the centroids are
            size = codec.numbers_per_code
            centroids = np.random.default_rng(0).normal(size=(3584 // size, 256, size))
            codec = replace(codec, codebook=Codebook(centroids.astype("<f4")))
        encoded = pa.py_buffer(codec.encode(tokens))
        found[name] = {
            "encode": gib / _fastest(lambda codec=codec: codec.encode(tokens), repeats),  # type: ignore[misc]
            "decode": gib / _fastest(lambda codec=codec, encoded=encoded: codec.decode(encoded, 3584), repeats),  # type: ignore[misc]
        }
    return found


def _fastest(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def print_kinds(rows: Sequence[dict[str, Any]]) -> None:
    """Of one method: a line a kind, and for every codec what it loses and gains of float16's right answers."""
    print(
        f"\n{rows[0]['method']:24}{'right':>8}"
        + "".join(f"{row['codec']:>15}" for row in rows if row["codec"] in LOSSY)
    )
    for kind, counts in rows[0]["kinds"].items():
        cells = [row["kinds"][kind] for row in rows if row["codec"] in LOSSY]
        shown = (f"{kept(cell):.1%} -{cell['lost']:.0f}+{cell['gained']:.0f}" for cell in cells)
        print(f"{kind:24}{counts['right']:8.0f}" + "".join(f"{text:>15}" for text in shown))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.codecs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--scenes", type=int, default=140)
    parser.add_argument("--methods", default="none,dtd")
    parser.add_argument("--work", type=Path, help="keep clips and caches here, and go on from them")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    speed = rates()
    with TemporaryDirectory() as name:
        rows = answers(chosen.model, chosen.scenes, chosen.methods.split(","), chosen.work or Path(name))
    if chosen.json:
        print(json.dumps({"rates": speed, "answers": rows}))
        return 0
    for codec, found in speed.items():
        print(f"{codec:10}" + "".join(f"  {way} {value:.2f} GiB/s" for way, value in found.items()))
    titles = ("of float16", "of source", "right", "retained", "lost", "gained", "nats")
    print(f"{'method':12}{'codec':10}" + "".join(f"{title:>11}" for title in titles))
    for row in rows:
        numbers = f"{row['bytes_to_float16']:11.3f}{row['bytes_to_source']:11.3f}{row['accuracy']:11.4f}"
        changes = f"{row['retained']:11.4f}{row['lost']:11}{row['gained']:11}{row['divergence']:11.2e}"
        print(f"{row['method']:12}{row['codec']:10}{numbers}{changes}")
    for method in dict.fromkeys(row["method"] for row in rows):
        print_kinds([row for row in rows if row["method"] == method])
    print(f"smallest that keeps {TARGET:.1%} of {REFERENCE}'s answers on every kind of question: {smallest(rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
