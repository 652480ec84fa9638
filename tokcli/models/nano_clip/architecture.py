"""What the checkpoint folder holds besides weights: configuration, chat template, preprocessing."""

from __future__ import annotations

from pathlib import Path

from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from tokcli.models.nano.architecture import PIXELS as NANO_PIXELS
from tokcli.models.nano.architecture import build_tokenizer as build_nano_tokenizer
from tokcli.models.nano.architecture import chat_template, write_folder
from tokcli.models.settings import Settings
from tokcli.models.sizing import FixedSize

IMAGE = "<image>"
"""Stands for one still, or for all frames of a clip."""

FRAME = FixedSize(192, 192)
PIXELS = Settings(
    bounds=FRAME,
    patch_size=24,
    merge_size=1,
    temporal_patch_size=1,
    mean=NANO_PIXELS.mean,
    std=NANO_PIXELS.std,
    rescale_factor=NANO_PIXELS.rescale_factor,
    resample="bicubic",
)
"""Every frame becomes 192 x 192 pixels, whatever its shape, and 8 x 8 tokens."""

CHAT_TEMPLATE = chat_template("{%- if part['type'] in ('image', 'video') -%}{{- '<image>\n' -}}")
"""nano's, with LLaVA's placeholder; a video is the same placeholder."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return nano's tokenizer with LLaVA's placeholder added to it."""
    tokenizer = build_nano_tokenizer()
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """Return the configuration: 1.2 million weights, half of them in the language model's layers."""
    side, patch = FRAME.height, PIXELS.patch_size
    return LlavaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "initializer_range": 0.04,
            "rms_norm_eps": 1e-6,
            # The slowest wave spans some thousand positions: eight frames are five hundred.
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 96,
            "intermediate_size": 288,
            # The features are those of the last block but one, as in LLaVA-1.5.
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "image_size": side,
            "patch_size": patch,
            "initializer_factor": 1.0,
        },
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(side // patch) ** 2,
        tie_word_embeddings=True,
    )


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the whole checkpoint folder."""
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": FRAME.height, "width": FRAME.width},
        "resample": 3,  # bicubic
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": PIXELS.rescale_factor,
        "do_normalize": True,
        "image_mean": list(PIXELS.mean),
        "image_std": list(PIXELS.std),
    }
    files = {"preprocessor_config.json": processor, "processor_config.json": {"processor_class": "LlavaProcessor"}}
    write_folder(model, tokenizer, folder, files)
