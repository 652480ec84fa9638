"""How much is computed at once: what free memory holds, and what to do where that was too much."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from tokcli.errors import ModelError

MOST_TOKENS = {"cpu": 8192, "cuda": 65536}
"""Prompt tokens, padding included, beyond which a larger batch is no faster."""
SHARE = 0.8
"""Of the free memory; the rest is for what is not counted and for what others take meanwhile."""


def batch_tokens(model: Any) -> int:
    """How many tokens, padding and those to come included, the free memory of the model's device holds; at least 1."""
    device = model.device
    most = MOST_TOKENS.get(device.type, MOST_TOKENS["cpu"])
    return max(1, min(most, int(SHARE * _free_bytes(device)) // token_bytes(model)))


def token_bytes(model: Any) -> int:
    """Bytes that a token takes while a batch is prefilled: its keys and values, and what one layer makes of it."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    cached = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * width
    computed = 4 * heads * width + 4 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 0)
    return (cached + computed) * int(model.get_input_embeddings().weight.element_size())


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has reserved and doesn't use is free for us too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether that is what the error says; only CUDA has a class for it."""
    text = str(error)
    signs = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in signs)


def free_cached(device: torch.device) -> None:
    """Give back what torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def too_long(length: int, device: torch.device) -> ModelError:
    """For a prompt that alone is too much."""
    return ModelError(f"a prompt of {length} tokens doesn't fit into the memory of {device}; keep fewer tokens")
