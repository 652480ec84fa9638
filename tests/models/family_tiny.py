"""Tiny random checkpoints of further families, and what transformers' whole model is given for the same media.

Pixels, prompts and layouts are laid out here from scratch: nothing of the adapters is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from native_reference import QUESTION
from tiny_checkpoints import MEAN, STD, TEXT, Halves, make_tokenizer, native_model

from tokcli import models
from tokcli.types import EncodedItem

Media = Sequence[tuple[str, np.ndarray, Any]]
"""(kind, source pixels uint8 (n, h, w, 3), the item) in prompt order."""


@dataclass(frozen=True)
class Tiny:
    """How a family's tiny checkpoint is made and driven natively."""

    family: str
    special: tuple[str, ...]
    """Tokens of its own."""
    config: Callable[[Callable[[str], int], dict[str, Any]], dict[str, Any]]
    """From token ids and the text settings to the arguments of its configuration."""
    processor: dict[str, Any]
    """preprocessor_config.json."""
    inputs: Callable[[Any, Any, Media], dict[str, Any]]
    """Arguments of the whole model's forward: (native, tokenizer, media)."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further JSON files."""
    text: dict[str, Any] = field(default_factory=dict)
    """Text settings of its own."""
    in_prompt: Callable[[np.ndarray, EncodedItem], np.ndarray] = lambda keep, item: keep
    """A mask over the tokens of an item as they are cached, in the order in which they stand in a prompt."""
    hidden: Callable[[Any, torch.Tensor, torch.Tensor], Any] | None = None
    """Mask for the whole model that shows what is left only: (native, ids (S,), left bool (S,)); None for causal."""
    recurrent: bool = False
    """Whether the language model has layers without attention."""


def make_family(folder: Path, tiny: Tiny, shard: str = "1GB") -> Path:
    """Save a random float32 model of the family with tokenizer and preprocessor files."""
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    tokenizer = make_tokenizer()
    tokenizer.add_tokens(list(tiny.special), special_tokens=True)
    text = {
        **TEXT,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **tiny.text,
    }
    config = CONFIG_MAPPING[tiny.family](**tiny.config(tokenizer.convert_tokens_to_ids, text))
    torch.manual_seed(7)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=0.1)  # Gemma's projector begins as zeros, which makes all pictures equal
            elif parameter.dim() > 1:
                parameter.mul_(3.0)  # sharpened, so that the logits depend on every token
            elif "newline" in name:
                parameter.normal_()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(tiny.processor))
    for name, content in tiny.files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def open_family(folder: Path, tiny: Tiny) -> Halves:
    """A checkpoint in ``folder``, whole and in halves."""
    make_family(folder, tiny)
    return Halves(
        tiny.family,
        folder,
        native_model(folder),
        models.load_tower(str(folder), device="cpu"),
        models.load_language_model(str(folder), device="cpu"),
    )


def normalised(frames: np.ndarray, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> np.ndarray:
    """uint8 (n, h, w, 3) to float32 (n, h, w, 3), as processors fuse it."""
    middle, spread = (np.array(values, dtype=np.float32) * np.float32(255) for values in (mean, std))
    values: np.ndarray = (frames.astype(np.float32) - middle) / spread
    return values


def planes(frames: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(normalised(frames).transpose(0, 3, 1, 2)))


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (n, h, w, 3) by torchvision's kernel."""
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if tuple(tensor.shape[2:]) != (height, width):
        tensor = torch.nn.functional.interpolate(tensor, size=[height, width], mode="bicubic", antialias=True)
    return tensor.permute(0, 2, 3, 1).numpy()


def finish(tokenizer: Any, text: str, **inputs: Any) -> dict[str, Any]:
    """The prompt's ids beside the other inputs; None is left out."""
    ids = torch.tensor([tokenizer(text).input_ids])
    given = {name: value for name, value in inputs.items() if value is not None}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **given}


def chatml(middle: str) -> str:
    """Qwen's layout without a system message, around items and the question."""
    return f"<|im_start|>user\n{middle}{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
