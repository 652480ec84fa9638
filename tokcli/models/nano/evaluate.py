"""How many answers a checkpoint gets right on scenes it has never seen, with all tokens and with a part of them.

``python -m tokcli.models.nano.evaluate [CHECKPOINT] [--scenes N]`` prints the tables of ``docs/nano.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from tokcli.models.nano.architecture import REFUSAL
from tokcli.models.nano.bank import SeenClip, sample, see
from tokcli.models.nano.clips import frames_of
from tokcli.models.nano.language import Prompt, answer_scores, build_prompt
from tokcli.models.nano.prompts import OTHER_PROMPTS
from tokcli.models.nano.scripts import run_evaluation
from tokcli.synthetic import QUESTION_KINDS, Question, Scene, make_scene, questions, scene_kinds

CHECKPOINT = Path(__file__).parent / "checkpoint"
FIRST_SEED = 3_000_000_000
KINDS = (*QUESTION_KINDS, "other")

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


Case = tuple[str, float, str, Keep]
"""What stands in the table, the sampling, the scheme of positions, and what is kept."""

CASES: tuple[Case, ...] = (
    ("all tokens, 1 fps", 1.0, "original", keep_all),
    ("all tokens, 2 fps", 2.0, "original", keep_all),
    ("all tokens, 1 fps, positions `hf`", 1.0, "hf", keep_all),
    ("random half", 1.0, "original", keep_random(0.5)),
    ("random quarter", 1.0, "original", keep_random(0.25)),
    ("first step and changed tokens", 1.0, "original", keep_changed),
)


@dataclass
class Tally:
    """Answers counted by kind of question."""

    asked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    kept: int = 0

    def row(self, name: str) -> str:
        """Return a line of Markdown: shares of right answers by kind, of all about scenes, and of the tokens kept."""
        shares = [f"{self.right[kind] / self.asked[kind]:.3f}" if self.asked[kind] else "" for kind in KINDS]
        overall = sum(self.right[kind] for kind in QUESTION_KINDS) / sum(self.asked[kind] for kind in QUESTION_KINDS)
        return f"| {name} | {overall:.3f} | {' | '.join(shares)} | {self.kept / max(1, self.tokens):.2f} |"


def measure(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    scenes: int,
    cases: Sequence[Case] = CASES,
    see_scenes: Callable[[Model, float, int], Iterable[SeenClip]] | None = None,
    build: Callable[..., Prompt] = build_prompt,
) -> Iterator[str]:
    """Yield two tables, a line of Markdown at a time: by what was kept, and by kind of scene with all tokens.

    ``see_scenes`` gives that many unseen scenes at a sampling; ``build`` makes prompts, both nano's by default.
    """
    see_scenes = see_scenes or unseen
    head = [f"| case | all | {' | '.join(KINDS)} | tokens kept |", "|---|---|" + "---|" * (len(KINDS) + 1)]
    clips: dict[float, list[SeenClip]] = {}
    yield from head
    by_scene: dict[str, Tally] = {}
    for name, sampling, scheme, keep in cases:
        if sampling not in clips:
            clips[sampling] = list(see_scenes(model, sampling, scenes))
        tallies = count(model, tokenizer, clips[sampling], scheme, keep, build)
        by_scene = by_scene or tallies
        yield _sum(tallies.values()).row(name)
    yield from ("", *head)
    for kind, tally in by_scene.items():
        yield tally.row(kind)


def _sum(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.asked += tally.asked
        whole.right += tally.right
        whole.tokens, whole.kept = whole.tokens + tally.tokens, whole.kept + tally.kept
    return whole


def count(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    clips: Iterable[SeenClip],
    scheme: str = "original",
    keep: Keep = keep_all,
    build: Callable[..., Prompt] = build_prompt,
) -> dict[str, Tally]:
    """Return the answers by kind of scene.

    An answer is right if each of its tokens is the likeliest, the one that ends it too.
    """
    tallies: dict[str, Tally] = {}
    for clip in clips:
        tally = tallies.setdefault(clip.scene.kind, Tally())
        rng = np.random.default_rng(clip.scene.seed)
        asked = [*questions(clip.scene, 1), Question("other", str(rng.choice(OTHER_PROMPTS)), REFUSAL)]
        rows = keep(clip)
        tally.tokens, tally.kept = tally.tokens + len(clip.tokens), tally.kept + len(rows)
        with torch.no_grad():
            prompt = build(clip, rows, asked, tokenizer, scheme)
            scores, wanted = answer_scores(model, [prompt])
        hits = _whole_answers((scores.argmax(1) == wanted).tolist(), [kind for *_, kind in prompt.targets])
        for question, hit in zip(asked, hits, strict=True):
            tally.asked[question.kind] += 1
            tally.right[question.kind] += hit
    return tallies


def _whole_answers(hits: Sequence[bool], kinds: Sequence[str]) -> list[bool]:
    """Join the tokens of each answer, whose last one carries no kind."""
    answers, right = [], True
    for hit, kind in zip(hits, kinds):
        right = right and hit
        if not kind:
            answers.append(right)
            right = True
    return answers


def unseen_scenes(count: int) -> Iterator[Scene]:
    """Yield scenes that no training saw, of all kinds in turn."""
    kinds = scene_kinds()
    for number in range(count):
        yield make_scene(kinds[number % len(kinds)], FIRST_SEED + number)


def unseen(model: Model, fps: float, count: int) -> Iterator[SeenClip]:
    """Yield unseen scenes, sampled at ``fps``, through the tower."""
    for scene in unseen_scenes(count):
        times, rate = ([0.0], None) if scene.still else sample(scene, fps)
        yield see(model, scene, frames_of(scene, times, np.random.default_rng(scene.seed)), rate)


def tables(model: Model, folder: Path, scenes: int) -> Iterator[str]:
    """Yield the tables, a line of Markdown at a time."""
    yield from measure(model, AutoTokenizer.from_pretrained(folder), scenes)


def main() -> None:
    """Print the tables."""
    run_evaluation(__doc__, CHECKPOINT, tables)


if __name__ == "__main__":
    main()
