"""Weights of an earlier checkpoint in a model whose tokenizer knows other words."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration


def take_over(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, checkpoint: Path) -> None:
    """Give ``model`` the checkpoint's weights; a token that is new keeps the embedding that it has."""
    earlier = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    known = AutoTokenizer.from_pretrained(checkpoint).get_vocab()
    rows = [(row, known[token]) for token, row in tokenizer.get_vocab().items() if token in known]
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for row, row_before in rows:
            table[row] = earlier.get_input_embeddings().weight[row_before].to(table)
    weights = earlier.state_dict()
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = table.detach()
    model.load_state_dict(weights)
