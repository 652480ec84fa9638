"""Arguments for one's own run of the language model: of ``model.generate``, or of a training step's forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tokcli.errors import ModelError, UsageError
from tokcli.models.checkpoints import canonical_name, resolve_checkpoint
from tokcli.models.families import family_of
from tokcli.models.fitting import check_context
from tokcli.models.language_model import LanguageModel
from tokcli.models.loading import load_tokenizer
from tokcli.models.prompt import Padding, Prompt, Request

IGNORED = -100
"""The label of tokens that the loss leaves out, as transformers has it."""


@dataclass(frozen=True)
class Row:
    """One example: a request, with its answer where there is one."""

    request: Request
    prompt: Prompt
    """The answer's tokens included."""
    answer_tokens: int | None
    """How many of the last tokens the loss looks at; None without an answer."""


class Inputs(dict[str, Any]):
    """``input_ids``, ``attention_mask`` and, with an answer, ``labels`` int64 (B, S); ``position_ids`` int64 (3, B, S)
    or (B, S); ``mm_encoder_outputs`` with the visual tokens. On the device of the model and in its dtype.

    A dictionary that remembers what it was made of, so that ``collate`` can put several into one batch.
    """

    def __init__(self, language: LanguageModel, rows: Sequence[Row], padding: Padding) -> None:
        prompts = [row.prompt for row in rows]
        super().__init__(language.collate([row.request for row in rows], prompts, padding))
        self.language, self.rows = language, tuple(rows)
        if rows[0].answer_tokens is not None:
            self["labels"] = self._labels(padding)

    def _labels(self, padding: Padding) -> torch.Tensor:
        ids = self["input_ids"]
        labels = torch.full_like(ids, IGNORED)
        for number, row in enumerate(self.rows):
            stop = ids.shape[1] if padding == "left" else len(row.prompt.ids)
            answer = slice(stop - (row.answer_tokens or 0), stop)
            labels[number, answer] = ids[number, answer]
        return labels


def make_inputs(
    language: LanguageModel, request: Request, answer: str | None = None, scheme: str = "original"
) -> Inputs:
    """Arguments for one request; with ``answer`` those of a training step.

    The answer's tokens follow those of the prompt, with nothing between, and then an end token: what ``generate``
    would have to say. Labels are those tokens.

    Raises:
        ModelError: As :meth:`LanguageModel.prompt`, or what is asked doesn't fit the model's context.
        UsageError: The prompt or the answer holds a placeholder token.
    """
    prompt, count = language.prompt(request, scheme), None
    if answer is not None:
        ids = _answer_ids(language, answer)
        count = len(ids)
        after = prompt.positions[..., -1:] + torch.arange(1, count + 1)
        prompt = Prompt(
            torch.cat([prompt.ids, torch.tensor(ids, dtype=torch.long)]),
            torch.cat([prompt.positions, after], dim=-1),
            prompt.visual_tokens,
        )
    check_context(language, request.items, len(prompt.ids), 0)
    return Inputs(language, [Row(request, prompt, count)], "left")


def collate(inputs: Sequence[Inputs], padding: Padding | None = None) -> Inputs:
    """Several arguments as one batch.

    ``padding`` is "left" for generating or "right" for training; None takes the one that fits: right with labels.

    Raises:
        UsageError: There is nothing to put together, or what doesn't go together: another model, or labels here only.
    """
    if not inputs or not all(isinstance(one, Inputs) for one in inputs):
        raise UsageError("collate takes one or more of what to_inputs gives, not copied into other dictionaries")
    if padding not in (None, "left", "right"):
        raise UsageError(f"padding must be left, right or None, got {padding!r}")
    if any(one.language.model is not inputs[0].language.model for one in inputs):
        raise UsageError("inputs for different models don't go into one batch; make all of them with the same model")
    rows = [row for one in inputs for row in one.rows]
    labelled = {row.answer_tokens is not None for row in rows}
    if len(labelled) > 1:
        raise UsageError("some of the inputs have an answer and some have none; give all of them one, or none")
    return Inputs(inputs[0].language, rows, padding or ("right" if labelled == {True} else "left"))


def language_of(model: Any, checkpoint: str | None = None) -> LanguageModel:
    """What :func:`tokcli.models.load_language_model` gives, around a model of transformers that is loaded already.

    Args:
        model: A ``LanguageModel``; a whole model or its language half; or one that peft has wrapped.
        checkpoint: Whose tokenizer and chat template to use; None for the one that the model was loaded from.

    Raises:
        ModelError: The model wasn't loaded from a checkpoint, or that is of another family, or has no adapter.
    """
    if isinstance(model, LanguageModel):
        return model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = checkpoint or getattr(base, "name_or_path", "")
    if not name:
        raise ModelError("the model wasn't loaded from a checkpoint; say with checkpoint=FOLDER whose tokenizer to use")
    folder = resolve_checkpoint(name)
    family = family_of(folder)
    kind = type(base).__name__
    if kind != family.model_class:
        raise ModelError(f"{folder} is for {family.model_class}, the model is a {kind}; load it with that class")
    return LanguageModel(base, _tokenizer(folder), family, folder, canonical_name(name))


@lru_cache(maxsize=8)
def _tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


def _answer_ids(language: LanguageModel, answer: str) -> list[int]:
    ids: list[int] = language.tokenizer(answer, add_special_tokens=False).input_ids
    for kind in ("image", "video"):
        token = language.family.placeholder(language.model.config, kind)
        if token in ids:
            raise UsageError(
                f"the answer holds {language.tokenizer.convert_ids_to_tokens(token)}, which stands for visual tokens; "
                "remove it"
            )
    ends = language.end_ids()
    own = language.tokenizer.eos_token_id
    return ids + ([own] if own in ends else sorted(ends)[:1])
