"""Vision-language models in two halves: a tower that encodes, and a language model that answers from the tokens.

Names are looked up on first use, so that importing this package costs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokcli.models.catalog import describe_model
    from tokcli.models.checkpoints import resolve_checkpoint
    from tokcli.models.choosing import Choice
    from tokcli.models.constraint import parse_schema, problem_of
    from tokcli.models.families import list_models
    from tokcli.models.inputs import Inputs, collate, language_of, make_inputs
    from tokcli.models.language_model import LanguageModel, load_language_model
    from tokcli.models.layout import PromptLayout, load_prompt_layout
    from tokcli.models.outline import outline_tower
    from tokcli.models.preprocess import resize_frames
    from tokcli.models.prompt import Request
    from tokcli.models.replies import Answer, OptionScore
    from tokcli.models.sizing import Sizer
    from tokcli.models.tower import Encoding, VisionTower, load_tower

__all__ = [
    "Answer",
    "Choice",
    "Encoding",
    "Inputs",
    "LanguageModel",
    "OptionScore",
    "PromptLayout",
    "Request",
    "Sizer",
    "VisionTower",
    "collate",
    "describe_model",
    "language_of",
    "list_models",
    "load_language_model",
    "load_prompt_layout",
    "load_tower",
    "make_inputs",
    "outline_tower",
    "parse_schema",
    "problem_of",
    "resize_frames",
    "resolve_checkpoint",
]

_HOMES = {
    "Answer": "replies",
    "Choice": "choosing",
    "Encoding": "tower",
    "Inputs": "inputs",
    "LanguageModel": "language_model",
    "OptionScore": "replies",
    "PromptLayout": "layout",
    "Request": "prompt",
    "Sizer": "sizing",
    "VisionTower": "tower",
    "collate": "inputs",
    "describe_model": "catalog",
    "language_of": "inputs",
    "list_models": "families",
    "load_language_model": "language_model",
    "load_prompt_layout": "layout",
    "load_tower": "tower",
    "make_inputs": "inputs",
    "outline_tower": "outline",
    "parse_schema": "constraint",
    "problem_of": "constraint",
    "resize_frames": "preprocess",
    "resolve_checkpoint": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
