"""Decoder processes: what two do against one, what being supervised costs, and frames' way over against memcpy.

``alone`` decodes, resizes and hashes all clips in one process with nothing around it. ``supervised`` is the same work
in one decoder process of a pool, whose frames are taken and given back at once; ``two`` is a pool of two. ``hand_over``
is copying frames into a slot, telling so, and getting the slot back, against one copy of the same bytes.

    python -m bench.decoders [--clips 20] [--fps 1] [--repeats 3] [--json]
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import torch

from bench.checkpoint import make_checkpoint
from bench.clips import clips_parser, recipe_of, videos
from tokcli.media import hash_file, open_media
from tokcli.models import VisionTower, load_tower
from tokcli.models.preprocess import resize_frames
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.messages import Chunk, DecodeSettings, Failed, Finished
from tokcli.pipeline.preflight import check_request, load_job, supervision
from tokcli.pipeline.shared import FrameMemory
from tokcli.recipe import CompressRecipe
from tokcli.types import MediaItem

FRAMES, SIDE = 12, 448


def alone(items: Sequence[MediaItem], settings: DecodeSettings) -> float:
    """Wall seconds in this process, on one thread."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    for item in items:
        with open_media(item.path, sampling=settings.sampling, limits=settings.limits) as reader:
            size = settings.frame_size(reader.info)
            for frames in reader.chunks(4):
                resize_frames(frames.pixels, size, settings.resample)
        hash_file(item.path)
    return time.perf_counter() - started


def pooled(items: Sequence[MediaItem], pool: DecoderPool) -> float:
    """Wall seconds of a pool whose frames are given back as soon as they come."""
    waiting, finished = deque(sorted(items, key=lambda item: -item.size_bytes)), 0
    started = time.perf_counter()
    while finished < len(items):
        for decoder in pool.idle():
            if waiting:
                decoder.assign(waiting.popleft(), attempt=1)
        for event in pool.poll(0.5):
            if isinstance(event.message, Chunk):
                event.release()
            elif isinstance(event.message, Finished):
                finished += 1
            elif isinstance(event.message, Failed):
                raise SystemExit(f"a clip failed: the measurement is void ({event.message})")
    return time.perf_counter() - started


def warmed(workers: int, recipe: CompressRecipe, settings: DecodeSettings) -> DecoderPool:
    """A pool whose processes have imported what they need."""
    pool = DecoderPool(workers, supervision(recipe))
    pool.configure(settings)
    while len(pool.idle()) < workers:
        for _ in pool.poll(0.1):
            pass
    return pool


def hand_over(rounds: int = 40) -> tuple[float, float]:
    """Seconds to hand chunks of 12 frames of 448x448 over, and to copy the same bytes once."""
    frames = np.random.default_rng(0).integers(0, 256, FRAMES * SIDE * SIDE * 3, np.uint8)
    memory, (here, there) = FrameMemory(), Pipe()
    slots = memory.slots

    def supervisor() -> None:
        for _ in range(rounds):
            there.send(there.recv().slot)

    def copy() -> float:
        started = time.perf_counter()
        for number in range(rounds):
            slots[number % len(slots)][: len(frames)] = frames
        return time.perf_counter() - started

    copy()  # pages come into being when they are first written
    copies = [copy()]
    other = threading.Thread(target=supervisor)
    other.start()
    started = time.perf_counter()
    times = np.arange(FRAMES, dtype=np.float64)
    for number in range(rounds):
        slot = number % len(slots)
        slots[slot][: len(frames)] = frames
        here.send(Chunk(slot, (FRAMES, SIDE, SIDE, 3), times, times.astype(np.int64)))
        here.recv()
    seconds = time.perf_counter() - started
    other.join()
    copies.append(copy())
    return seconds, statistics.mean(copies)


def measure(clips: int, fps: float, repeats: int) -> dict[str, object]:
    """Medians over alternating runs, and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        tower: VisionTower = load_tower(str(model), dtype="float32", device="cpu")
        recipe = recipe_of(videos(folder / "clips", clips), model, folder / "cache", fps, method="none")
        request = check_request(recipe)
        settings, items = load_job(request, tower).decode, request.scan.items
        seconds: dict[str, list[float]] = {"alone": [], "supervised": [], "two": []}
        with warmed(1, recipe, settings) as one, warmed(2, recipe, settings) as two:
            for _ in range(repeats):
                seconds["alone"].append(alone(items, settings))
                seconds["supervised"].append(pooled(items, one))
                seconds["two"].append(pooled(items, two))
        handed, copied = zip(*(hand_over() for _ in range(repeats)))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "clips": len(items),
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "two_against_one": round(median["supervised"] / median["two"], 3),
        "supervision": round(median["supervised"] / median["alone"] - 1, 4),
        "hand_over_to_memcpy": round(statistics.median(handed) / statistics.median(copied), 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = clips_parser("decoders", __doc__)
    chosen = parser.parse_args(arguments)
    result = measure(chosen.clips, chosen.fps, chosen.repeats)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print(f"decoder processes, {result['clips']} clips, seconds {result['seconds']}")
    print(f"  two against one              {result['two_against_one']}   (target 1.85)")
    print(f"  cost of being supervised     {result['supervision']:+.1%}   (target below 3%)")
    print(f"  hand-over against memcpy     {result['hand_over_to_memcpy']}   (target 2)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
