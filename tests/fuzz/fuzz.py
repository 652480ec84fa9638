"""Runs of broken files: whatever they do to a decoder, the run ends and every file is in the cache or in its errors.

    python tests/fuzz/fuzz.py --count 400 [--seed 1] [--keep FOLDER]

Prints what became of them, and those that had to be killed or that killed their decoder: these are worth a look with
`tokcli debug`. Uses rendered files, and real ones where TOKCLI_MEDIA names a folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from mutants import mutant

from tokcli.cache import open_cache, verify_cache
from tokcli.media import write_image, write_video
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe, LimitsRecipe

AT_ONCE = 200
"""Mutants in one run."""
TIMEOUT_SECONDS, HEARTBEAT_SECONDS = 20.0, 10.0
MEMORY_BYTES = 1 << 30
GROWTH_BYTES = 400 << 20
"""What the parent may grow by over a run: the encoder's own buffers, whatever the files are."""
KILLED = ("Timeout", "MemoryLimit", "DecoderCrash")
LARGEST_SOURCE = 400_000


@dataclass
class Outcome:
    """What became of the mutants of one run."""

    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """By class."""
    killed: list[tuple[str, str, str]] = field(default_factory=list)
    """(file, class, message) of those that cost a decoder process."""
    seconds: float = 0.0
    growth_bytes: int = 0
    broken: list[str] = field(default_factory=list)
    """What must never happen and did."""


def render_sources(folder: Path) -> list[tuple[str, bytes]]:
    """Small files of many kinds, (name, content)."""
    folder.mkdir(parents=True, exist_ok=True)

    def frames(count: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
        y, x = np.mgrid[:height, :width]
        return [
            np.stack([(x * 2 + 9 * number) % 256, (y * 2) % 256, (x + y + 5 * number) % 256], -1).astype(np.uint8)
            for number in range(count)
        ]

    front = {"container_options": {"movflags": "faststart"}}
    pieces = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
    plans: list[tuple[str, dict[str, object]]] = [
        ("front.mp4", front),
        ("back.mp4", {}),
        ("pieces.mp4", pieces),
        ("b.mov", {"options": {"bf": "2", "g": "12"}}),
        ("hevc.mkv", {"codec": "hevc"}),
        ("vp9.webm", {}),
        ("vp8.webm", {"codec": "vp8"}),
        ("ts.ts", {}),
        ("mpeg4.avi", {}),
        ("mjpeg.avi", {"codec": "mjpeg"}),
        ("moving.gif", {}),
    ]
    for name, how in plans:
        write_video(folder / name, frames(30), 10, **how)  # type: ignore[arg-type]
    for name in ("still.png", "still.jpg", "still.webp", "still.bmp", "still.tif", "still.avif"):
        write_image(folder / name, frames(1)[0])
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def real_sources(folder: Path) -> list[tuple[str, bytes]]:
    """The smaller files of a folder of real media, if it is there; names are told apart by their first letters."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in ("", ".md", ".tsv"))
    return [
        (path.name.replace("%", "_"), path.read_bytes()) for path in files if 0 < path.stat().st_size <= LARGEST_SOURCE
    ]


def fuzz(folder: Path, seed: int, numbers: Sequence[int], sources: Sequence[tuple[str, bytes]]) -> Outcome:
    """Make these mutants and compress them in one run of two decoders."""
    media, cache = folder / "mutants", folder / "cache"
    media.mkdir(parents=True)
    for number in numbers:
        name, content = mutant(seed, number, sources)
        (media / name).write_bytes(content)
    recipe = CompressRecipe(
        inputs=[str(media)],
        output=str(cache),
        method="dtd",
        on_error="salvage",
        min_decoded=0.2,
        workers=2,
        timeout=TIMEOUT_SECONDS,
        heartbeat=HEARTBEAT_SECONDS,
        decoder_memory=MEMORY_BYTES,
        limits=LimitsRecipe(max_seconds=3600.0),
        sampling={"fps": 2.0, "max_frames": 64},  # type: ignore[arg-type]
    )
    outcome = Outcome()
    this = psutil.Process()
    before, began = this.memory_info().rss, time.monotonic()
    compress(recipe)
    outcome.seconds = time.monotonic() - began
    outcome.growth_bytes = this.memory_info().rss - before
    opened = open_cache(cache)
    rows = opened.errors().to_pylist()
    outcome.done = len(opened)
    outcome.errors = Counter(row["error_class"] for row in rows)
    outcome.killed = [
        (Path(row["path"]).name, row["error_class"], row["message"]) for row in rows if row["error_class"] in KILLED
    ]
    outcome.broken = _broken(outcome, {str(path) for path in media.iterdir()}, set(opened.ids()), rows)
    outcome.broken += [f"damaged cache: {problem.file}: {problem.what}" for problem in verify_cache(cache)]
    # Decoders are children of the process that they are forked from, which stays.
    if left := [process.pid for child in this.children() for process in child.children()]:
        outcome.broken.append(f"decoder processes are left: {left}")
    return outcome


def _broken(outcome: Outcome, inputs: set[str], done: set[str], rows: list[dict[str, str]]) -> list[str]:
    failed = {row["id"] for row in rows}
    found = [f"in neither table: {name}" for name in sorted(inputs - done - failed)]
    found += [f"in both tables: {name}" for name in sorted(done & failed)]
    # Two decoders; each file may cost its deadline and one second for its media, a crash or a leak twice.
    most = 120 + len(inputs) * 2 + len(outcome.killed) * 2 * (TIMEOUT_SECONDS + 10)
    if outcome.seconds > most:
        found.append(f"the run took {outcome.seconds:.0f} s, {most:.0f} are allowed")
    if outcome.growth_bytes > GROWTH_BYTES:
        found.append(f"the run grew by {outcome.growth_bytes >> 20} MiB, {GROWTH_BYTES >> 20} are allowed")
    found += [f"more than one line: {row['id']}" for row in rows if not row["message"] or "\n" in row["message"]]
    found += [f"not the file's fault: {row['id']}: {row['message']}" for row in rows if row["stage"] == "encode"]
    return found


def main() -> int:
    """Print what became of so many mutants; 1 where something happened that must not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--keep", type=Path, help="folder for the mutants and caches, which are deleted otherwise")
    chosen = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.keep or Path(name)
        sources = render_sources(folder / "sources")
        if media := os.environ.get("TOKCLI_MEDIA"):
            sources += real_sources(Path(media))
        for first in range(chosen.first, chosen.first + chosen.count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, chosen.first + chosen.count))
            outcome = fuzz(folder / f"{chosen.seed}-{first}", chosen.seed, numbers, sources)
            bad += len(outcome.broken)
            print(
                f"mutants {first} to {numbers[-1]} of seed {chosen.seed}: {outcome.done} compressed, "
                f"{dict(outcome.errors)}, {outcome.seconds:.0f} s, grew by {outcome.growth_bytes >> 20} MiB"
            )
            for file, kind, message in outcome.killed:
                print(f"  {kind}: {file}: {message}")
            for what in outcome.broken:
                print(f"  BROKEN: {what}")
            sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
