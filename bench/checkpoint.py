"""A random Qwen2.5-VL checkpoint of a chosen size: speed does not depend on what the weights say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from tokcli.models import resolve_checkpoint

SIDE = 28


def make_checkpoint(folder: Path, max_video_tokens_per_step: int = 64, large_language_model: bool = False) -> Path:
    """Save a float32 model with an 18M-weight tower and a 24M- or 137M-weight language model in ``folder``.

    Tokenizer, template and processor files are the bundled model's; frames hold at most ``max_video_tokens_per_step``
    tokens.
    """
    from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    source = resolve_checkpoint("nano")
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja") and path.name not in ("config.json", "generation_config.json"):
            shutil.copy(path, folder)
    _set_frame_size(folder, max_video_tokens_per_step)
    tokenizer = AutoTokenizer.from_pretrained(source)
    token_id = tokenizer.convert_tokens_to_ids
    width, layers = (768, 16) if large_language_model else (384, 11)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 1024,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 192,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
            "tie_word_embeddings": True,
            "pad_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
        },
        vision_config={
            "depth": 8,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_heads": 6,
            "out_hidden_size": width,
            "fullatt_block_indexes": [3, 7],
            "tokens_per_second": 2,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    model.save_pretrained(folder)
    return folder


def _set_frame_size(folder: Path, tokens: int) -> None:
    size = {"shortest_edge": SIDE * SIDE * 16, "longest_edge": SIDE * SIDE * tokens}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        path = folder / name
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text()), "size": size}))
