"""A help in training: where the language model must look for an answer.

To answer "Where is the red circle?" it has to find the circle's tokens and then to read their coordinates; only both
together earn anything, so neither is learned for thousands of steps. Here the first half is rewarded by itself: two
heads of one layer, at the words of an answer, are to look at the tokens of what the question is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from tokcli.models.nano.clips import LABELS
from tokcli.synthetic import SHAPES, Question, Scene

if TYPE_CHECKING:
    from tokcli.models.nano.bank import SeenClip
    from tokcli.models.nano.language import Prompt

HEADS = slice(0, 2)
END = 0.25
"""Share of a clip that is its beginning, or its end."""
BY_ANSWER = (
    "compare.larger",
    "compare.smaller",
    "size.shape",
    "order.shape_first",
    "order.shape_last",
    "order.after",
    "shape",
)
BY_NAME = (
    "motion",
    "time.shape",
    "compare.size",
    "change.color",
    "size.word",
    "order.before",
)


def referent(question: Question, scene: Scene, word: int = 0) -> str | None:
    """Return the shape or character that the question is about, as a word of ``LABELS``; None for no single thing.

    ``word`` is the number of the answer's word: a code has two, of which each shows elsewhere.
    """
    kind, _, what = question.form.partition(".")
    if question.form in BY_ANSWER:
        return question.answer
    if question.form == "read.code":
        return question.answer[word]
    if what in ("digit", "letter"):
        of_class = [glyph.character for glyph in scene.glyphs if glyph.character.isdigit() == (what == "digit")]
        return of_class[0] if len(of_class) == 1 else None
    if question.form in ("read.start", "read.end"):
        return question.answer
    if question.form in BY_NAME or kind in ("color", "place"):
        return _named(question.question, scene)
    if question.form in ("order.color_first", "order.color_last"):
        return next((item.shape for item in scene.objects if item.color == question.answer), None)
    return None


def _named(text: str, scene: Scene) -> str | None:
    words = text.rstrip("?.").split()
    for word in words:
        if word in SHAPES:
            return word
    of_color = [item.shape for item in scene.objects if item.color in words]
    return of_color[0] if len(of_color) == 1 else None


def referents(question: Question, clip: SeenClip, word: int = 0) -> np.ndarray:
    """Return which of the clip's tokens show what the question is about: bool (N,)."""
    name = referent(question, clip.scene, word) if clip.shown else None
    if name is None:
        return np.zeros(len(clip.tokens), bool)
    kind = "shape" if name in SHAPES else "character"
    rows = clip.shown[kind] == 1 + LABELS[kind].index(name)
    step = np.arange(len(rows)) // (clip.grid[1] * clip.grid[2])
    if question.form.endswith(".start"):
        rows = rows & (step <= END * (clip.grid[0] - 1))
    elif question.form.endswith((".end", "compare.size")):
        rows = rows & (step >= (1 - END) * (clip.grid[0] - 1))
    return rows


def pointers(prompt: Prompt) -> list[tuple[int, np.ndarray]]:
    """Return, by the place of each word of an answer, the places of the visual tokens that it is to be found in."""
    found = []
    for place, words, question in prompt.asked:
        for word in range(words):
            shown = np.flatnonzero(referents(question, prompt.clip, word)[prompt.kept])
            if shown.size:
                found.append((place + word, prompt.visual.start + shown))
    return found


class Pointing:
    """Rewards ``HEADS`` of one decoder layer for looking at referents; call ``loss`` right after a forward pass."""

    weight = 0.2

    def __init__(self, layer: Any) -> None:
        self._attention = layer.self_attn
        self._seen: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] | None = None
        self._hook = self._attention.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module: nn.Module, inputs: Any, named: Any) -> None:
        self._seen = named["hidden_states"], named["position_embeddings"]

    def mass(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Return which share of its attention each head pays to the referents: (pointers of all prompts, heads)."""
        assert self._seen is not None
        hidden, (cosine, sine) = self._seen
        self._seen = None
        attention = self._attention
        shape = (*hidden.shape[:2], -1, attention.head_dim)
        query = attention.q_proj(hidden).view(shape).transpose(1, 2)
        key = attention.k_proj(hidden).view(shape).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, cosine, sine)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        masses = []
        for row, prompt in enumerate(prompts):
            pointed = pointers(prompt)
            if not pointed:
                continue
            places = [place for place, _ in pointed]
            length = len(prompt.ids)
            branch = torch.from_numpy(prompt.branch)
            order = torch.arange(length)
            sees = (order <= torch.tensor(places)[:, None]) & ((branch == 0) | (branch == branch[places][:, None]))
            wanted = torch.zeros(len(places), length)
            for index, (_, rows) in enumerate(pointed):
                wanted[index, torch.from_numpy(rows)] = 1
            scores = query[row][:, places] @ key[row, :, :length].transpose(1, 2) * attention.scaling
            scores = scores.float().masked_fill(~sees.to(scores.device), -torch.inf)
            masses.append((scores.softmax(-1) * wanted.to(scores.device)).sum(-1).T)
        return torch.cat(masses) if masses else hidden.new_zeros(0, query.shape[1])

    def loss(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Return the mean negative logarithm of the attention that ``HEADS`` pay to the referents."""
        mass = self.mass(prompts)[:, HEADS]
        return -(mass + 1e-4).log().mean() if len(mass) else mass.sum()

    def close(self) -> None:
        """Leave the layer as it was."""
        self._hook.remove()
