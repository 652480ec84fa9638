"""A tiny random LLaVA in several dresses, and what transformers' whole model says to the same pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from native_reference import QUESTION
from tiny_checkpoints import MEAN, STD, TEXT, Halves, make_tokenizer, native_model

from tokcli import models
from tokcli.types import EncodedItem

SIDE, PATCH = 42, 14
TOKENS = (SIDE // PATCH) ** 2
EXACT = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True}


def make_llava(folder: Path, processor: dict[str, Any], *, vision: dict[str, Any] | None = None, **config: Any) -> Path:
    """Save a random float32 model with tokenizer and preprocessor file; ``config`` goes into config.json's top."""
    from transformers import AutoModelForImageTextToText, LlavaConfig

    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        **TEXT,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    tower = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
        **(vision or {}),
    }
    token = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(7)
    model = AutoModelForImageTextToText.from_config(
        LlavaConfig(text_config=text, vision_config=tower, image_token_index=token, **config), dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)  # sharpened, so that the logits depend on every token
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shared = {"image_mean": MEAN, "image_std": STD, "resample": 3, "image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps({**shared, **processor}))
    return folder


def tiny_llava(folder: Path) -> Halves:
    """A checkpoint in ``folder``, whole and in halves."""
    make_llava(folder, EXACT)
    return Halves(
        "llava",
        folder,
        native_model(folder),
        models.load_tower(str(folder), device="cpu"),
        models.load_language_model(str(folder), device="cpu"),
    )


def planes(frames: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w), channel by channel."""
    mean, std = np.float32(MEAN) * np.float32(255), np.float32(STD) * np.float32(255)
    channels = [(frames[..., c].astype(np.float32) - mean[c]) / std[c] for c in range(3)]
    return torch.from_numpy(np.stack(channels, axis=1))


def native_inputs(tokenizer: Any, media: Sequence[np.ndarray], question: str = QUESTION) -> dict[str, Any]:
    """Arguments for the whole model: every frame is one image, a clip's images stand in one run."""
    text = "USER: " + "".join("<image>" * (len(frames) * TOKENS) + "\n" for frames in media)
    ids = torch.tensor([tokenizer(f"{text}{question} ASSISTANT:").input_ids])
    pixels = torch.cat([planes(frames) for frames in media])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


@torch.no_grad()
def logits_after_deletion(
    native: Any, inputs: dict[str, Any], positions: torch.Tensor, features: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """Embed the full sequence with ALL visual tokens, delete the dropped rows, run the language model alone.

    Args:
        positions: int64 (S,) of the full sequence.
        features: (N, D) all visual tokens in prompt order.
        keep: bool (N,).

    Returns:
        Logits (K, vocabulary) of what is left; no cache, no placeholders, explicit causal mask.
    """
    visual = inputs["input_ids"][0] == native.config.image_token_id
    embedded = native.get_input_embeddings()(inputs["input_ids"])[0].clone()
    embedded[visual] = features
    left = torch.ones_like(visual)
    left[visual] = keep
    count = int(left.sum())
    mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None]
    hidden = native.model.language_model(
        inputs_embeds=embedded[left][None], position_ids=positions[None, left], attention_mask=mask, use_cache=False
    ).last_hidden_state
    return native.lm_head(hidden)[0]


def subset(items: Sequence[EncodedItem], share: float = 0.4) -> tuple[list[EncodedItem], torch.Tensor]:
    """About that share of every item's tokens, and the mask over all of them."""
    from native_reference import keep_rows

    masks = [np.random.default_rng(seed).random(len(item.kept)) < share for seed, item in enumerate(items)]
    kept = [keep_rows(item, np.flatnonzero(mask).tolist()) for item, mask in zip(items, masks)]
    return kept, torch.from_numpy(np.concatenate(masks))
