"""One clip of 60 seconds at 2 frames a second, 60 steps of 60 tokens: its file, its caches, and a random model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.checkpoint import make_checkpoint
from bench.clips import recipe_of
from tokcli.cache import open_cache
from tokcli.media import Limits, Sampling, open_media, write_video
from tokcli.models import LanguageModel, VisionTower, load_language_model, load_tower
from tokcli.models.preprocess import resize_frames
from tokcli.pipeline.compress import compress
from tokcli.types import EncodedItem, MediaInfo, TokenSet, VisualTokens

SECONDS, FPS, TOKENS_PER_STEP = 60, 2.0, 60
HEIGHT, WIDTH = 360, 640


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


@dataclass(frozen=True)
class OneClip:
    """Both halves of the model, and the clip as each way has it: nothing is kept between two calls."""

    folder: Path
    tower: VisionTower
    language: LanguageModel

    def from_file(self) -> EncodedItem:
        """Decode, resize, run the tower: all tokens."""
        tower = self.tower
        with open_media(str(self.folder / "clip.mp4"), sampling=Sampling(fps=FPS), limits=Limits()) as reader:
            info, size = reader.info, tower.sizer(reader.info)
            encoding = tower.start(info, size, frozenset())
            parts = [encoding.push(resize_frames(frames.pixels, size, "bicubic")) for frames in reader.chunks(16)]
        return whole_item(parts, info, size, encoding.seconds_per_step)

    def from_cache(self, keep: float) -> EncodedItem:
        """Open the cache of that share of the tokens, and read the item."""
        cache = open_cache(self.folder / f"cache{keep:g}")
        return cache[cache.ids()[0]]


def one_clip(folder: Path, keeps: Iterable[float], *, large: bool) -> OneClip:
    """Write clip, model and a cache for each share kept into ``folder``; ``large`` is the 137M-weight language model.

    What follows in this process is on one thread.
    """
    torch.set_num_threads(1)
    model = make_checkpoint(folder / "model", TOKENS_PER_STEP, large_language_model=large)
    clip = folder / "clip.mp4"
    write_video(clip, noisy_clip(), 25)
    for keep in keeps:
        compress(recipe_of([clip], model, folder / f"cache{keep:g}", FPS, method="uniform", keep=keep))
    tower = load_tower(str(model), dtype="float32", device="cpu")
    language = load_language_model(str(model), dtype="float32", device="cpu")
    torch.set_num_threads(1)
    return OneClip(folder, tower, language)
