"""How many answers a checkpoint gets right on scenes it has never seen, with all tokens and with a part of them.

``python -m tokcli.models.nano.evaluate [CHECKPOINT] [--scenes N]`` prints the table of ``docs/nano.md``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedTokenizerFast
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from tokcli.models.nano.architecture import REFUSAL
from tokcli.models.nano.bank import SeenClip, sample, see
from tokcli.models.nano.clips import frames_of
from tokcli.models.nano.language import answer_scores, build_prompt
from tokcli.models.nano.prompts import OTHER_PROMPTS
from tokcli.synthetic import Question, make_scene, questions

CHECKPOINT = Path(__file__).parent / "checkpoint"
FIRST_SEED = 3_000_000_000

Keep = Callable[[SeenClip], np.ndarray]


def keep_all(clip: SeenClip) -> np.ndarray:
    return np.arange(len(clip.tokens))


def keep_random(share: float) -> Keep:
    """Return what keeps that share of the tokens, drawn at random."""

    def keep(clip: SeenClip) -> np.ndarray:
        count = len(clip.tokens)
        rng = np.random.default_rng(clip.scene.seed)
        return np.sort(rng.permutation(count)[: max(1, round(share * count))])

    return keep


def keep_changed(clip: SeenClip) -> np.ndarray:
    """Keep the first step, and of the others the tokens whose pixels changed by 4 grey levels in the mean."""
    return np.flatnonzero(clip.change > 4)


CASES: tuple[tuple[str, float | None, str, Keep], ...] = (
    ("stills", None, "original", keep_all),
    ("all tokens, 1 fps", 1.0, "original", keep_all),
    ("all tokens, 2 fps", 2.0, "original", keep_all),
    ("all tokens, 0.5 fps", 0.5, "original", keep_all),
    ("all tokens, 1 fps, positions `hf`", 1.0, "hf", keep_all),
    ("random half", 1.0, "original", keep_random(0.5)),
    ("random quarter", 1.0, "original", keep_random(0.25)),
    ("first step and changed tokens", 1.0, "original", keep_changed),
)


def measure(model: Model, tokenizer: PreTrainedTokenizerFast, scenes: int) -> list[str]:
    """Return the table, one line of Markdown a case: share of right answers by kind, and of the tokens kept."""
    kinds = ("color", "shape", "motion", "count", "other")
    table = [f"| case | {' | '.join(kinds)} | tokens kept |", "|---|" + "---|" * (len(kinds) + 1)]
    for name, fps, scheme, keep in CASES:
        right, kept = accuracy(model, tokenizer, unseen(model, fps, scenes), scheme, keep)
        shares = (f"{right[kind]:.3f}" if kind in right else "" for kind in kinds)
        table.append(f"| {name} | {' | '.join(shares)} | {kept:.2f} |")
    return table


def accuracy(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    clips: Iterable[SeenClip],
    scheme: str = "original",
    keep: Keep = keep_all,
) -> tuple[dict[str, float], float]:
    """Return the share of right answers by kind of question, and the share of the tokens that were kept.

    An answer is right if each of its tokens is the likeliest, the one that ends it too.
    """
    asked, right, tokens, kept = Counter[str](), Counter[str](), 0, 0
    for clip in clips:
        rng = np.random.default_rng(clip.scene.seed)
        all_questions = [*questions(clip.scene, 1), Question("other", str(rng.choice(OTHER_PROMPTS)), REFUSAL)]
        rows = keep(clip)
        tokens, kept = tokens + len(clip.tokens), kept + len(rows)
        with torch.no_grad():
            prompt = build_prompt(clip, rows, all_questions, tokenizer, scheme)
            scores, wanted = answer_scores(model, [prompt])
        hits = _whole_answers((scores.argmax(1) == wanted).tolist(), [kind for *_, kind in prompt.targets])
        for question, hit in zip(all_questions, hits, strict=True):
            asked[question.kind] += 1
            right[question.kind] += hit
    return {kind: right[kind] / asked[kind] for kind in asked}, kept / tokens


def _whole_answers(hits: Sequence[bool], kinds: Sequence[str]) -> list[bool]:
    """Join the tokens of each answer, whose first one carries its kind."""
    answers: list[bool] = []
    for hit, kind in zip(hits, kinds):
        if kind:
            answers.append(hit)
        else:
            answers[-1] = answers[-1] and hit
    return answers


def unseen(model: Model, fps: float | None, count: int) -> Iterator[SeenClip]:
    """Yield clips that no training saw, sampled at ``fps``, or stills if that is None, through the tower."""
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        scene = make_scene("static" if fps else "still", seed)
        times, rate = sample(scene, fps) if fps else ([0.0], None)
        yield see(model, scene, frames_of(scene, times, np.random.default_rng(seed)), rate)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=CHECKPOINT)
    parser.add_argument("--scenes", type=int, default=500, help="how many unseen clips, and stills (default 500)")
    parser.add_argument("--threads", type=int, help="default: all cores")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = AutoModelForImageTextToText.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    print("\n".join(measure(model, AutoTokenizer.from_pretrained(options.checkpoint), options.scenes)))


if __name__ == "__main__":
    main()
