"""Models and items for asking many prompts at once, and what one plain forward says to each of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from llava_tiny import tiny_llava
from nano_native import CHECKPOINT, native
from native_reference import QUESTION, keep_rows
from tiny_checkpoints import Halves, encode_item, make_checkpoint, make_info, native_model

from tokcli import models
from tokcli.models import Answer, LanguageModel, Request
from tokcli.types import EncodedItem

STEPS = 8
FAMILIES = ["nano", "qwen2_5_vl", "qwen2_vl", "llava"]
# Of different lengths; the fourth begins the second, the last is the first again.
PROMPTS = ["hi", QUESTION, "a cat sits on the mat and looks at the other cat, 0 1 2", QUESTION[:12], "What ?", "hi"]
_FOLDER = TemporaryDirectory(prefix="asking")  # gone when the tests end


@cache
def speaker_of(family: str) -> Halves:
    """The bundled model or a tiny random one, in float32."""
    if family == "llava":
        return tiny_llava(Path(_FOLDER.name) / "llava")
    if family == "nano":
        name, folder, whole = "nano", CHECKPOINT, native()[0]
    else:
        folder = make_checkpoint(Path(_FOLDER.name) / family, family)
        name, whole = str(folder), native_model(folder)
    tower = models.load_tower(name, device="cpu", dtype="float32")
    return Halves(family, folder, whole, tower, models.load_language_model(name, device="cpu", dtype="float32"))


def make_item(speaker: Halves, what: str, seed: int = 3) -> EncodedItem:
    """ "video", "video, pruned", "image", "image, pruned" or "nothing kept"."""
    kind = "image" if what.startswith("image") else "video"
    whole = encode_item(speaker.tower, make_info(kind), seed=seed, name=what)
    if what == "nothing kept":
        return keep_rows(whole, [])
    share = 0.4 if "pruned" in what else 1.0
    return keep_rows(whole, np.flatnonzero(np.random.default_rng(seed).random(len(whole.kept)) < share).tolist())


def request_of(item: EncodedItem | None, prompt: str, system: str | None = None) -> Request:
    return Request([] if item is None else [item], prompt, system)


def one_by_one(language: LanguageModel, item: EncodedItem | None, scheme: str = "original") -> list[Answer]:
    return [language.generate([request_of(item, prompt)], max_new_tokens=STEPS, scheme=scheme)[0] for prompt in PROMPTS]


def without_time(answers: list[Answer]) -> list[Answer]:
    return [replace(answer, seconds=0.0) for answer in answers]


@torch.no_grad()
def one_forward(
    language: LanguageModel, item: EncodedItem | None, prompt: str, reply: list[int], scheme: str = "original"
) -> torch.Tensor:
    """Log-probabilities (n, V) for each token of the reply: the model itself, all ids at once, no KV cache."""
    inputs = language.prepare([request_of(item, prompt)], scheme)
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([reply], dtype=torch.long)], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    positions = inputs["position_ids"]
    after = positions[..., -1:] + torch.arange(1, len(reply) + 1)
    inputs["position_ids"] = torch.cat([positions, after], dim=-1)
    logits = language.model(**inputs, use_cache=False).logits[0]
    return torch.log_softmax(logits[length - 1 : length - 1 + len(reply)].double(), dim=-1)


def replies_for(language: LanguageModel) -> list[list[int]]:
    """Ids of different lengths, one reply empty, one a single token."""
    draw = np.random.default_rng(0)
    size = language.model.get_input_embeddings().num_embeddings
    return [draw.integers(20, min(size, 300), count).tolist() for count in (5, 0, 1, 9, 3, 2)]


def furthest(language: LanguageModel, item: EncodedItem | None, scheme: str = "original") -> float:
    """Largest difference of a log-probability from that of one forward, less a millionth of it.

    The millionth is for nano: it is so sure that others have log-probabilities of -35, where neighbouring float32
    numbers are 4e-6 apart. The tiny models' stay within 10.
    """
    replies = replies_for(language)
    given = language.distributions(item, PROMPTS, replies, scheme=scheme)
    differences = [0.0]
    for prompt, reply, found in zip(PROMPTS, replies, given):
        assert (found.dtype, found.device.type) == (torch.float32, "cpu")
        assert found.shape == (len(reply), language.model.get_input_embeddings().num_embeddings)
        if reply:
            wanted = one_forward(language, item, prompt, reply, scheme)
            differences.append(float(((found - wanted).abs() - 1e-6 * wanted.abs()).max()))
    return max(differences)
