"""What the checkpoint folder holds besides weights: tokenizer, chat template, configurations."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from tokcli.models.settings import Settings
from tokcli.models.sizing import PixelBounds
from tokcli.synthetic import CHARACTERS, COLORS, MOTIONS, PHRASES, SHAPES

REFUSAL = "I only know rendered shapes."
"""The answer to everything that is not about a scene."""

TOKENS_PER_SECOND = 2
BOUNDS = PixelBounds(112 * 112, 224 * 224)
PIXELS = Settings(
    bounds=BOUNDS,
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    rescale_factor=1 / 255,
    resample="bicubic",
)
"""Qwen2.5-VL's, but 16 to 64 tokens for every two frames."""

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Words of questions that this model does not answer yet: a larger vocabulary costs little, a changed one a new format.
WORDS = (
    "first last appears appear left right top bottom upper lower middle center corner half third side near before "
    "after scene change changes times often digit letter number shown flash long short seconds beginning end "
    "larger smaller bigger faster slower than yes no none most and or of in on at to a an is are was does do did "
    "not what which where when who how why many much colour video image picture clip frame frames describe this "
    "that it you see word text user assistant system You are a helpful assistant. orange black gray pink cyan "
    "star diamond"
)


def chat_template(media: str) -> str:
    """Return Qwen2.5-VL's, without the system prompt that Qwen adds where the user gives none.

    ``media`` is the ``if`` for a part of a message that is no text, with the placeholder that stands for it.
    """
    return (
        "{%- for message in messages -%}"
        "{{- '<|im_start|>' + message['role'] + '\n' -}}"
        "{%- if message['content'] is string -%}{{- message['content'] -}}"
        "{%- else -%}"
        "{%- for part in message['content'] -%}"
        f"{media}"
        "{%- elif 'text' in part -%}{{- part['text'] -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{%- endif -%}"
        "{{- '<|im_end|>\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    )


CHAT_TEMPLATE = chat_template(
    "{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'video' or 'video' in part -%}"
    "{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the byte-level BPE tokenizer: one token for every word of the questions, bytes for everything else."""
    fill = {"shape": "circle", "color": "red", "one": "circle", "other": "square"}
    phrases = [phrase.format(**fill) for kind in PHRASES.values() for phrase in kind]
    words = {word for line in (*phrases, REFUSAL, WORDS) for word in line.replace("?", "").replace(".", "").split()}
    words |= {*COLORS, *SHAPES, *MOTIONS, *CHARACTERS}
    words |= {word.lower() for word in words}
    corpus = [form for word in sorted(words) for form in (word, " " + word)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,  # never reached: merging ends when every word of the corpus is one token
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
        chat_template=CHAT_TEMPLATE,
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return the configuration: 3.1 million weights, half of them in the language model's layers."""
    token = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL))))
    return Qwen2_5_VLConfig(
        text_config={
            # A multiple of 64 is what matrix products like.
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "initializer_range": 0.04,
            "rms_norm_eps": 1e-6,
            # The slowest wave of 24 spans some thousand positions: heads this small have none to spare.
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [8, 8, 8]},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token["<|im_end|>"],
            "pad_token_id": token["<|endoftext|>"],
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": PIXELS.patch_size,
            "spatial_merge_size": PIXELS.merge_size,
            "temporal_patch_size": PIXELS.temporal_patch_size,
            "tokens_per_second": TOKENS_PER_SECOND,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": 192,
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def save(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the whole checkpoint folder."""
    write_folder(model, tokenizer, folder, _processor_files())


def write_folder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, files: Mapping[str, Any]
) -> None:
    """Write a checkpoint folder, with ``files`` (name to content) as JSON.

    Weights are stored as bfloat16, which is what real models are stored in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = [model.config.text_config.eos_token_id, model.config.text_config.pad_token_id]
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=end, pad_token_id=end[1])
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    # safetensors keeps the file to its owner; a package's files are for all to read.
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _processor_files() -> dict[str, dict[str, Any]]:
    common = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(PIXELS.mean),
        "image_std": list(PIXELS.std),
        "merge_size": PIXELS.merge_size,
        "patch_size": PIXELS.patch_size,
        "temporal_patch_size": PIXELS.temporal_patch_size,
        "resample": 3,  # bicubic
        "rescale_factor": PIXELS.rescale_factor,
        "min_pixels": BOUNDS.min_pixels,
        "max_pixels": BOUNDS.max_pixels,
        "size": {"shortest_edge": BOUNDS.min_pixels, "longest_edge": BOUNDS.max_pixels},
    }
    video = {"do_sample_frames": True, "fps": 1.0, "min_frames": 2, "max_frames": 768, "cap_pixels_per_frame": False}
    return {
        "preprocessor_config.json": {
            **common,
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
        "video_preprocessor_config.json": {
            **common,
            **video,
            "video_processor_type": "Qwen2VLVideoProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
        "processor_config.json": {"processor_class": "Qwen2_5_VLProcessor"},
    }
