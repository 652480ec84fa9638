"""`compress` where encoding costs no CPU: does the accelerator, or do the decoders, ever wait for the other?

The encoder is replaced by one that sleeps for a fixed time a temporal step, as a GPU that works on its own would. The
bound is what a perfect overlap takes: the longer of all decoding, spread over its processes, and all encoding. With
``--balance 1`` both take the same time, which is hardest; above 1 the encoder takes that many times as long.

    python -m bench.accelerator [--clips 200] [--fps 1] [--repeats 3] [--balance 1] [--json]
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bench.checkpoint import make_checkpoint
from bench.clips import clips_parser, recipe_of, videos
from tokcli.cache import CacheWriter
from tokcli.models.tower import Encoding, VisionTower
from tokcli.pipeline.compress import Run
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.preflight import Request, check_request, load_job, supervision
from tokcli.pipeline.progress import Silent
from tokcli.pipeline.targets import Output
from tokcli.types import VisualTokens

TARGET = 0.95


class SleepingTower(VisionTower):
    """Gives tokens of zeros after a sleep, call after call as an accelerator computes what is queued on it."""

    seconds_per_step = 0.0
    steps = 0
    """Encoded so far."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__(tower.model, tower.family, tower.preprocessing, tower.identity)
        self._queueing, self._free_at = threading.Lock(), 0.0

    def compute(self, steps: int) -> None:
        """Queue a call behind those before it, and wait for its end."""
        with self._queueing:
            self._free_at = max(self._free_at, time.monotonic()) + steps * self.seconds_per_step
            self.steps += steps
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))

    @property
    def device(self) -> torch.device:
        return torch.device("meta")

    def start(self, info, size, *arguments, **named):  # type: ignore[no-untyped-def]
        return SleepingEncoding(self, info, size, frozenset())


class SleepingEncoding(Encoding):
    """What :class:`SleepingTower` starts."""

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], VisualTokens]:
        tower = self._tower
        assert isinstance(tower, SleepingTower)
        steps = -(-len(pixels) // tower.frames_per_step)
        coords = self._coords(steps)
        self._steps += steps
        tokens = VisualTokens(
            torch.zeros(len(coords), int(tower.identity["hidden_size"])),
            coords,
            self.views,
            torch.zeros(len(coords), dtype=torch.bool),
            seconds_per_step=self.seconds_per_step,
        )

        def run() -> VisualTokens:
            tower.compute(steps)
            return tokens

        return run


def wall(request: Request, pool: DecoderPool, tower: SleepingTower, seconds_per_step: float, folder: Path) -> float:
    """Seconds from the first file to the last committed shard, with decoders that wait already."""
    job = load_job(request, tower)
    (target,) = job.targets
    target = replace(target, folder=folder / f"cache-{time.monotonic_ns()}")
    tower.seconds_per_step, tower.steps = seconds_per_step, 0
    job = replace(job, targets=(target,))
    pool.configure(job.decode)
    while len(pool.idle()) < len(pool.decoders):
        for _ in pool.poll(0.1):
            pass
    with CacheWriter(target.folder, target.manifest) as writer:
        run = Run(job, [Output(target, writer)], pool, Silent())
        run.run()
        writer.commit()
    end = time.monotonic()
    if run.progress.failed or run.work_began is None:
        raise SystemExit("a clip failed: the measurement is void")
    return end - run.work_began


def measure(clips: int, fps: float, repeats: int, balance: float) -> dict[str, object]:
    """Medians over alternating runs, and the share of the bound."""
    from tokcli.models import load_tower

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        paths = videos(folder / "clips", clips)
        recipe = recipe_of(paths, model, folder / "cache", fps, method="uniform", keep=0.2)
        request = check_request(recipe)
        tower = SleepingTower(load_tower(str(model), dtype="float32", device="cpu"))
        decode, both = [], []
        with DecoderPool(request.workers, supervision(recipe)) as pool:
            wall(request, pool, tower, 0.0, folder)  # decoders import what they need
            for _ in range(repeats):
                # Decoding alone, over its processes: an encoder that takes no time never makes them wait.
                decode.append(wall(request, pool, tower, 0.0, folder))
                per_step = balance * statistics.median(decode) / tower.steps
                seconds = wall(request, pool, tower, per_step, folder)
                both.append((max(decode[-1], per_step * tower.steps), seconds))
    return {
        "clips": len(paths),
        "fps": fps,
        "decoders": request.workers,
        "balance": balance,
        "steps": tower.steps,
        "decode_seconds": round(statistics.median(decode), 3),
        "seconds": round(statistics.median(seconds for _, seconds in both), 3),
        "share_of_bound": round(statistics.median(bound / seconds for bound, seconds in both), 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = clips_parser("accelerator", __doc__)
    # Rendered ones: with 20 real clips, what the first takes to come and the last to be written is a fifth of the time.
    parser.set_defaults(clips=200)
    parser.add_argument("--balance", type=float, default=1.0, help="encoding over decoding time")
    chosen = parser.parse_args(arguments)
    result = measure(chosen.clips, chosen.fps, chosen.repeats, chosen.balance)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print(f"compress with an encoder that sleeps: {result['clips']} clips, {result['decoders']} decoder processes")
    print(f"  share of max(decoding, encoding)   {result['share_of_bound']}   (target {TARGET})")
    print(f"  decoding alone {result['decode_seconds']} s, both {result['seconds']} s, {result['steps']} steps")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
