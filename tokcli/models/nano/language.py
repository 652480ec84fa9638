"""Second stage: the language model learns to answer from the finished tower's tokens, of which some may be missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from tokcli.models.nano.architecture import REFUSAL
from tokcli.models.nano.bank import SeenClip
from tokcli.models.nano.curriculum import Course
from tokcli.models.nano.helps import Help
from tokcli.models.nano.prompts import draw_other, draw_question, hard_questions, stepping_stones
from tokcli.models.nano.tower import learning_rate
from tokcli.models.positions import Block, Text, mrope_positions
from tokcli.synthetic import Question

STEPS_PER_SNAPSHOT = 500
STEPS_PER_DRAW = 8
"""Batches that are drawn together and sorted by length, so that little of each is padding."""
MAX_SCORES = 3_000_000
"""Attention scores that are computed at once, a head: more than fit the caches are slower, and take gigabytes."""
LONG_CLIP = 450
"""Tokens."""
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@dataclass(frozen=True)
class Prompt:
    """One clip and questions that each see the clip and themselves, as if asked alone."""

    ids: np.ndarray
    """int64 (S,); 0 where a visual token stands."""
    positions: np.ndarray
    """int64 (..., S), as the language model takes them."""
    branch: np.ndarray
    """int64 (S,): 0 for the clip and what stands before it, 1 and up for the questions."""
    visual: slice
    tokens: torch.Tensor
    """The kept visual tokens, in the places of ``visual``."""
    targets: list[tuple[int, int, float, str]]
    """(place, id that must follow, weight, kind); no kind at the token that ends an answer."""
    clip: SeenClip
    kept: np.ndarray
    """int64 (K,): which of the clip's tokens ``tokens`` are."""
    asked: list[tuple[int, int, Question]]
    """(place from which an answer is told, its words, the question)."""


DrawPrompt = Callable[[SeenClip, Sequence[Question], PreTrainedTokenizerFast, np.random.Generator], Prompt]
"""How a clip is put before questions in training: which of its tokens are left, in which scheme."""


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    bank: Sequence[SeenClip],
    steps: int,
    log: Callable[[str], None],
    autocast: Callable[[], Any],
    snapshot: Callable[[], None],
    course: Course,
    draw_prompt: DrawPrompt | None = None,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    helps: Sequence[Help] = (),
) -> None:
    """Train ``model.model.language_model`` in place on the course's questions about the clips of ``bank``.

    ``optimizers`` are AdamW by default; a group of parameters may have a ``peak`` of its own. They step everything that
    is trained, the weights of ``helps`` too.
    """
    language = model.model.language_model
    optimizers = optimizers or [torch.optim.AdamW(language.parameters(), weight_decay=0.05, betas=(0.9, 0.95))]
    rng = np.random.default_rng(course.seed)
    right: dict[str, list[float]] = defaultdict(list)
    batches: list[list[Prompt]] = []
    often = np.array([course.often.get(clip.scene.kind, 1.0) for clip in bank])
    chances = often / often.sum() if course.often else None
    for step in range(steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(step, steps, group.get("peak", course.peak), warmup=100)
        if not batches:
            batches = _draw(bank, chances, tokenizer, rng, course, draw_prompt or _draw_prompt)
        batch = batches.pop()
        for optimizer in optimizers:
            optimizer.zero_grad()
        total = sum(weight for prompt in batch for _, _, weight, _ in prompt.targets)
        loss = 0.0
        for part in _parts(batch):
            targets = [target for prompt in part for target in prompt.targets]
            with autocast():
                scores, wanted = answer_scores(model, part)
            weight = torch.tensor([weight for _, _, weight, _ in targets], device=scores.device)
            share = (F.cross_entropy(scores, wanted, reduction="none") * weight).sum() / total
            loss += share.item()
            for help_ in helps:
                share = share + help_.weight * help_.loss(part) * len(part) / len(batch)
            share.backward()
            for hit, (_, _, _, kind) in zip((scores.argmax(1) == wanted).tolist(), targets):
                if kind:
                    right[kind].append(hit)
        nn.utils.clip_grad_norm_(language.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            shares = ", ".join(f"{kind} {np.mean(right[kind]):.3f}" for kind in sorted(right))
            log(f"language step {step + 1}/{steps}: loss {loss:.3f}, answers right: {shares}")
            right.clear()
        if (step + 1) % STEPS_PER_SNAPSHOT == 0:
            snapshot()


def _parts(batch: list[Prompt]) -> Iterator[list[Prompt]]:
    """Cut a batch, which is sorted by length, in parts of at most ``MAX_SCORES`` pairs of places."""
    part: list[Prompt] = []
    for prompt in reversed(batch):
        if part and (len(part) + 1) * len(part[0].ids) ** 2 > MAX_SCORES:
            yield part
            part = []
        part.append(prompt)
    yield part


def answer_scores(model: Qwen2_5_VLForConditionalGeneration, batch: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 scores (answer tokens of all prompts, vocabulary) and the ids that are wanted there."""
    device, table = model.device, model.get_input_embeddings().weight
    length = max(len(prompt.ids) for prompt in batch)
    ids, branch = np.zeros((len(batch), length), np.int64), np.full((len(batch), length), -1)
    positions = np.zeros((*batch[0].positions.shape[:-1], len(batch), length), np.int64)
    for row, prompt in enumerate(batch):
        ids[row, : len(prompt.ids)], branch[row, : len(prompt.ids)] = prompt.ids, prompt.branch
        positions[..., row, : len(prompt.ids)] = prompt.positions
    embeddings = F.embedding(torch.from_numpy(ids).to(device), table)
    places = torch.zeros(ids.shape, dtype=torch.bool)
    for row, prompt in enumerate(batch):
        places[row, prompt.visual] = True
    tokens = torch.cat([prompt.tokens.to(embeddings.dtype) for prompt in batch]).to(device)
    embeddings = embeddings.masked_scatter(places.to(device)[..., None], tokens)
    of = torch.from_numpy(branch).to(device)
    order = torch.arange(length, device=device)
    sees = (order[None, :] <= order[:, None]) & ((of[:, None, :] == 0) | (of[:, None, :] == of[:, :, None]))
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=torch.from_numpy(positions).to(device),
        attention_mask=sees[:, None],
        use_cache=False,
    ).last_hidden_state
    rows = [row for row, prompt in enumerate(batch) for _ in prompt.targets]
    columns = [place for prompt in batch for place, _, _, _ in prompt.targets]
    wanted = torch.tensor([token for prompt in batch for _, token, _, _ in prompt.targets], device=device)
    return (hidden[rows, columns] @ table.T).float(), wanted


def build_prompt(
    clip: SeenClip,
    kept: np.ndarray,
    asked: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    scheme: str = "original",
    system: str = "",
    stretch: float = 1.0,
) -> Prompt:
    """Return the clip's ``kept`` tokens (rows, ascending) followed by the questions, each numbered as if it were alone.

    Positions are Qwen2.5-VL's: kept tokens have those that they had in the full grid, and text goes on after the
    largest of them (``original``) or after the longer side of the grid (``hf``, as transformers 5 does).
    """
    before = encode(tokenizer, system + "<|im_start|>user\n<|vision_start|>")
    parts: list[Text | Block] = [Text(len(before)), Block(clip.grid, clip.positions_per_step * stretch), Text(1)]
    full = mrope_positions(parts, scheme).numpy()
    return add_questions(clip, kept, asked, tokenizer, before, encode(tokenizer, "<|vision_end|>"), full)


def add_questions(
    clip: SeenClip,
    kept: np.ndarray,
    asked: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    before: Sequence[int],
    behind: Sequence[int],
    full: np.ndarray,
) -> Prompt:
    """Return the clip's ``kept`` tokens between the text around them, then the questions.

    ``full`` holds the positions of the ids before, ALL tokens of the clip, and the ids behind: int64 (..., S).
    """
    start, rest = len(before), full.shape[-1] - len(behind)
    ids = [*before, *[0] * len(kept), *behind]
    positions, branch = [full[..., :start], full[..., start + kept], full[..., rest:]], [0] * len(ids)
    after = full[..., -1:] + 1
    targets: list[tuple[int, int, float, str]] = []
    told: list[tuple[int, int, Question]] = []
    for number, question in enumerate(asked, 1):
        prompt = encode(tokenizer, f"{question.question}<|im_end|>\n<|im_start|>assistant\n")
        answer = encode(tokenizer, f"{question.answer}<|im_end|>")
        place = len(ids) + len(prompt) - 1
        for index, token in enumerate(answer):
            ends = index == len(answer) - 1
            # The refusal is long and soon learned; so is the token that ends an answer. A second word is learned last.
            weight = 0.15 if question.answer == REFUSAL or ends else 1.0 + index
            targets.append((place + index, token, weight, "" if ends else question.kind))
        told.append((place, len(answer) - 1, question))
        length = len(prompt) + len(answer) - 1
        ids += [*prompt, *answer[:-1]]
        positions.append(after + np.arange(length))
        branch += [number] * length
    visual = slice(start, start + len(kept))
    joined = np.concatenate(positions, -1)
    tokens = clip.tokens[torch.from_numpy(kept)]
    return Prompt(np.array(ids), joined, np.array(branch), visual, tokens, targets, clip, kept, told)


def draw_kept(clip: SeenClip, rng: np.random.Generator) -> np.ndarray:
    """Return the rows that a compression might keep: all, those whose pixels changed, a random or a regular part."""
    count = len(clip.tokens)
    # Long clips are seldom left whole: they cost the most, and hold little more.
    chance = rng.random() * (0.65 if count > LONG_CLIP else 1.0)
    keep = np.ones(count, bool)
    if chance < 0.25:
        keep = clip.change > np.exp(rng.uniform(0, 3))
    elif chance < 0.5:
        keep = rng.random(count) < rng.uniform(0.2, 1)
        if rng.random() < 0.4:
            keep |= np.isinf(clip.change)
    elif chance < 0.55:
        keep = np.arange(count) % rng.integers(2, 4) == 0
    keep[rng.integers(count)] = True
    return np.flatnonzero(keep)


_ENCODED: dict[str, list[int]] = {}


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    if text not in _ENCODED:
        if len(_ENCODED) > 20_000:
            _ENCODED.clear()
        _ENCODED[text] = tokenizer.encode(text)
    return _ENCODED[text]


def _draw(
    bank: Sequence[SeenClip],
    chances: np.ndarray | None,
    tokenizer: PreTrainedTokenizerFast,
    rng: np.random.Generator,
    course: Course,
    draw_prompt: DrawPrompt,
) -> list[list[Prompt]]:
    prompts = []
    for index in rng.choice(len(bank), STEPS_PER_DRAW * course.clips_per_step, p=chances):
        clip = bank[index]
        asked = draw_question(clip.scene, course.questions_per_clip, rng, course.mix.weight)
        if course.hard_questions:
            asked += hard_questions(clip.scene)
        if course.stepping_stones:
            asked += stepping_stones(clip.scene)
        if rng.random() < 0.4:
            asked.append(draw_other(rng))
        prompts.append(draw_prompt(clip, asked, tokenizer, rng))
    prompts.sort(key=lambda prompt: len(prompt.ids))
    size = course.clips_per_step
    batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    return [batches[index] for index in rng.permutation(len(batches))]


def _draw_prompt(
    clip: SeenClip, asked: Sequence[Question], tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator
) -> Prompt:
    scheme = "hf" if rng.random() < 0.25 else "original"
    system = SYSTEM if rng.random() < 0.15 else ""
    stretch = float(rng.uniform(1, 4)) if rng.random() < 0.15 else 1.0
    return build_prompt(clip, draw_kept(clip, rng), asked, tokenizer, scheme, system, stretch)
