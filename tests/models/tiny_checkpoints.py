"""Complete checkpoints of tiny random models, built without a network, and cached items made from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tokcli import models as tokcli_models
from tokcli.types import EncodedItem, MediaInfo, TokenSet, VisualTokens

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CORPUS = ["a cat sits on the mat", "what happens in this video ?", "user assistant system", "0 1 2 3 4 5 6 7 8 9"] * 4
FACTOR = 28
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
}
"""Settings of the language model, alike in all families; what depends on the tokenizer is added."""
VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 3, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "depth": 4,
        "hidden_size": 32,
        "num_heads": 4,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
    },
}


@dataclass(frozen=True)
class Halves:
    """A tiny checkpoint, whole and in halves."""

    family: str
    folder: Path
    native: Any
    tower: tokcli_models.VisionTower
    language: tokcli_models.LanguageModel


def make_tokenizer() -> Any:
    """A byte-level tokenizer with Qwen's special tokens and no chat template."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )


def make_checkpoint(folder: Path, family: str, *, tied: bool = False, shard: str = "1GB") -> Path:
    """Save a random float32 model of ``family`` with tokenizer and preprocessor files into ``folder``."""
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    tokenizer = make_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        **TEXT,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    }
    config = CONFIG_MAPPING[family](
        text_config=text,
        vision_config=VISION[family],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(7)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)  # sharpened, so that the logits depend on every token
    model.generation_config.eos_token_id = token("<|im_end|>")
    model.generation_config.pad_token_id = token("<|endoftext|>")
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    bounds = {"shortest_edge": FACTOR**2 * 4, "longest_edge": FACTOR**2 * 24}
    shared = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps({**shared, "size": bounds}))
    return folder


def relayout(source: Path, folder: Path, rename: Callable[[str], str | None]) -> Path:
    """Copy a checkpoint with its tensors under other names; None leaves a tensor out."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(source.glob("*.safetensors")):
        tensors.update(load_file(file))
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    renamed.pop(None, None)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def native_model(folder: Path) -> Any:
    """The whole model, as transformers opens it."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def make_info(kind: str = "video", *, frames: int = 7, height: int = 100, width: int = 150) -> MediaInfo:
    video = kind == "video"
    return MediaInfo(
        kind=kind,
        width=width,
        height=height,
        num_frames=frames if video else 1,
        sample_fps=1.6 if video else None,
        duration_seconds=frames / 1.6 if video else 0.0,
        source_fps=25.0 if video else None,
        codec="test",
        decoder="test",
    )


def make_pixels(info: MediaInfo, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (info.num_frames, *size, 3), dtype=np.uint8)


def encode_in_runs(
    tower: Any, frames: np.ndarray, runs: Sequence[int], wanted: frozenset[str], max_patches: int | None = None
) -> VisualTokens:
    """Encode ``frames`` in runs of the given lengths and put the results together.

    ``max_patches`` is how many patches the tower is given at once, where that is not to be what it is for users.
    """
    before = tower.max_patches
    tower.max_patches = max_patches or before
    try:
        encoding = tower.start(make_info(frames=len(frames)), frames.shape[1:3], wanted)
        ends = np.cumsum(runs)
        parts = [encoding.push(frames[end - run : end]) for run, end in zip(runs, ends)]
    finally:
        tower.max_patches = before
    assert encoding.encoded_views == encoding.views
    return VisualTokens(
        tokens=torch.cat([part.tokens for part in parts]),
        coords=torch.cat([part.coords for part in parts]),
        views=parts[0].views,
        structural=torch.cat([part.structural for part in parts]),
        signals={name: torch.cat([part.signals[name] for part in parts]) for name in parts[0].signals},
        seconds_per_step=parts[0].seconds_per_step,
    )


def encode_item(tower: Any, info: MediaInfo, *, seed: int = 0, name: str = "item") -> EncodedItem:
    """Encode random pixels and keep every token."""
    size = tower.sizer(info)
    encoding = tower.start(info, size, frozenset())
    parts = [encoding.push(make_pixels(info, size, seed))]
    closing = encoding.closing()
    parts += [] if closing is None else [closing]
    tokens, coords = torch.cat([part.tokens for part in parts]), torch.cat([part.coords for part in parts])
    count = len(tokens)
    levels = parts[0].signals.get("deepstack")
    kept = TokenSet(tokens, coords, torch.ones(count), torch.arange(count), deepstack=levels)
    return EncodedItem(
        id=name,
        path=name,
        kind=info.kind,
        kept=kept,
        views=encoding.views,
        source_tokens=count,
        times=np.arange(info.num_frames, dtype=np.float64),
        indices=np.arange(info.num_frames),
        frame_size=size,
        source_size=(info.height, info.width),
        duration_seconds=info.duration_seconds,
        source_fps=info.source_fps,
        sample_fps=info.sample_fps,
        seconds_per_step=encoding.seconds_per_step,
        codec=info.codec,
        decoder=info.decoder,
        source_bytes=0,
        source_modified_ns=0,
        source_hash="0" * 64,
    )
