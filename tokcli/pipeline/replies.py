"""What is written of a reply, and of the settings that it depends on."""

from __future__ import annotations

import hashlib
from typing import Any

from tokcli.models import Choice
from tokcli.pipeline.answers import Row
from tokcli.pipeline.asking import Reply
from tokcli.recipe import InferRecipe

_SETTINGS = (
    "system",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "positions",
    "dtype",
    "attn",
    "method",
    "select",
    "keep",
    "max_tokens",
    "threshold",
    "group_by",
)


def settings_of(recipe: InferRecipe, choice: Choice) -> str:
    """What else answers depend on, where it isn't the default: ``keep=0.1 method=evs``."""
    defaults = InferRecipe.model_fields
    found: dict[str, Any] = {
        name: value for name in _SETTINGS if (value := getattr(recipe, name)) != defaults[name].get_default()
    }
    found |= recipe.options
    if recipe.temperature or recipe.method is not None:
        found["seed"] = recipe.seed
    if choice.schema is not None:
        found["schema"] = hashlib.sha256(choice.schema.encode()).hexdigest()[:16]
    return " ".join(f"{name}={value!r}" if name == "system" else f"{name}={value}" for name, value in found.items())


def row_of(reply: Reply, source_hash: str, identity: dict[str, str]) -> Row:
    """A row of the output; a reply without an answer has the same columns, with its error."""
    prompt, answer = reply.question.prompt, reply.answer
    extra: dict[str, Any] = {"expected" if key == "answer" else key: value for key, value in prompt.extra.items()}
    expected = extra.get("expected")
    text = None if answer is None else answer.text
    row: Row = {"id": reply.question.item_id, "prompt": prompt.text, "answer": text, **extra}
    if len(reply.items) > 1:
        row["items"] = [item.id for item in reply.items]
    if prompt.conversation is not None:
        row["conversation"] = prompt.conversation
        said = [*reply.history, (prompt.text, text)]
        row["messages"] = [
            {"role": role, "content": content}
            for turn in said
            for role, content in zip(("user", "assistant"), turn)
            if content is not None
        ]
    return {
        **row,
        "right": None if expected is None or text is None else _normalised(text) == _normalised(str(expected)),
        "visual_tokens": 0 if answer is None else answer.visual_tokens,
        "source_tokens": sum(item.source_tokens for item in reply.items),
        "prompt_tokens": 0 if answer is None else answer.prompt_tokens,
        "new_tokens": 0 if answer is None else len(answer.token_ids),
        "seconds": round(reply.seconds, 6),
        "finish_reason": None if answer is None else answer.finish_reason,
        "error": reply.error,
        "source_hash": source_hash,
        **identity,
    }


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
