"""Second stage: prompts for the language model, which ``tokcli.models.nano.language`` trains.

A prompt differs from nano's in its layout and in its positions, which count the tokens of the full prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from tokcli.models.nano.bank import SeenClip
from tokcli.models.nano.curriculum import ALL, Course
from tokcli.models.nano.language import SYSTEM, Prompt, add_questions, draw_kept, encode
from tokcli.synthetic import Question

COURSE = Course(ALL, seed=6, peak=2e-3, questions_per_clip=10, clips_per_step=16)
COMPACT_SHARE = 0.15
"""Of the prompts, whose positions are renumbered after dropping, as serving engines do it."""


def build_prompt(
    clip: SeenClip,
    kept: np.ndarray,
    asked: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    scheme: str = "original",
    system: str = "",
) -> Prompt:
    """Return the clip's ``kept`` tokens (rows, ascending) followed by the questions, each numbered as if it were alone.

    Kept tokens have the numbers that they had in the full prompt, and text goes on after the last of all tokens
    (``original``, and ``hf`` too), or everything is numbered as it is left (``compact``).
    """
    before, behind = encode(tokenizer, system + "<|im_start|>user\n"), encode(tokenizer, "\n")
    full = np.arange(len(before) + len(clip.tokens) + len(behind))
    if scheme == "compact":
        full[len(before) + kept] = len(before) + np.arange(len(kept))
        full[-len(behind) :] = len(before) + len(kept) + np.arange(len(behind))
    return add_questions(clip, kept, asked, tokenizer, before, behind, full)


def draw_prompt(
    clip: SeenClip, asked: Sequence[Question], tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator
) -> Prompt:
    """Return a prompt as training puts it: with all of the clip's tokens or a part of them."""
    scheme = "compact" if rng.random() < COMPACT_SHARE else "original"
    system = SYSTEM if rng.random() < 0.15 else ""
    return build_prompt(clip, draw_kept(clip, rng), asked, tokenizer, scheme, system)
