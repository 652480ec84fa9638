"""How many answers a checkpoint gets right on scenes it has never seen, in eight frames of each clip.

``python -m tokcli.models.nano_clip.evaluate [CHECKPOINT] [--scenes N]`` prints the tables of ``docs/nano-clip.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from tokcli.models.nano.bank import SeenClip
from tokcli.models.nano.evaluate import Case, keep_all, keep_changed, keep_random, measure, unseen_scenes
from tokcli.models.nano.scripts import run_evaluation
from tokcli.models.nano_clip.bank import MAX_FRAMES, frames_for_tower, sample, see
from tokcli.models.nano_clip.language import build_prompt

CHECKPOINT = Path(__file__).parent / "checkpoint"

CASES: tuple[Case, ...] = (
    ("all tokens, 8 frames", MAX_FRAMES, "original", keep_all),
    ("all tokens, 4 frames", 4, "original", keep_all),
    ("random half", MAX_FRAMES, "original", keep_random(0.5)),
    ("random half, positions `compact`", MAX_FRAMES, "compact", keep_random(0.5)),
    ("random quarter", MAX_FRAMES, "original", keep_random(0.25)),
    ("first frame and changed tokens", MAX_FRAMES, "original", keep_changed),
)


def unseen(model: LlavaForConditionalGeneration, num_frames: float, count: int) -> Iterator[SeenClip]:
    """Yield unseen scenes in ``num_frames`` frames each, through the tower."""
    for scene in unseen_scenes(count):
        rng = np.random.default_rng(scene.seed)
        yield see(model, scene, frames_for_tower(scene, sample(scene, int(num_frames)), rng))


def tables(model: LlavaForConditionalGeneration, folder: Path, scenes: int) -> Iterator[str]:
    """Yield the tables, a line of Markdown at a time."""
    yield from measure(model, AutoTokenizer.from_pretrained(folder), scenes, CASES, unseen, build_prompt)


def main() -> None:
    """Print the tables."""
    run_evaluation(__doc__, CHECKPOINT, tables)


if __name__ == "__main__":
    main()
