"""From a request to the tokens and positions that the language model is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tokcli.errors import ModelError, UsageError
from tokcli.models.base import FamilyAdapter
from tokcli.models.positions import Block, Text
from tokcli.models.settings import read_json
from tokcli.types import EncodedItem

Padding = Literal["left", "right"]
"""Where the shorter rows of a batch are filled up: on the left to generate, on the right to train."""


@dataclass(frozen=True)
class Request:
    """One question about cached items."""

    items: Sequence[EncodedItem]
    """In the order in which they stand before the question, or before the first of the conversation."""
    prompt: str
    system: str | None = None
    """System message; None leaves it to the checkpoint's chat template."""
    history: tuple[tuple[str, str], ...] = ()
    """What was asked and answered before the question."""


@dataclass(frozen=True)
class Prompt:
    """What is left of a request's full prompt once the dropped tokens are out."""

    ids: torch.Tensor
    """int64 (K,), placeholders where visual tokens go."""
    positions: torch.Tensor
    """int64 (..., K): where each token stood in the full prompt, by the scheme; (3, K) for M-RoPE, (K,) for others."""
    visual_tokens: int


def read_template(folder: Path, tokenizer: Any, default: str) -> str:
    """The checkpoint's chat template: the processor's, else the tokenizer's, else ``default``."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = read_json(folder / "chat_template.json").get("chat_template") or tokenizer.chat_template
    return template if isinstance(template, str) else default


def build_prompt(
    request: Request, *, family: FamilyAdapter, config: Any, tokenizer: Any, template: str, scheme: str
) -> Prompt:
    """Lay out the full prompt, give every token its position, then take the dropped tokens out.

    Raises:
        ModelError: The template fails or doesn't place the items, or an item doesn't fit its own grid or this family.
        UsageError: The question holds a placeholder token.
    """
    (ids,) = read_ids([request], family=family, config=config, tokenizer=tokenizer, template=template)
    return lay_out(request, ids, family=family, config=config, tokenizer=tokenizer, scheme=scheme)


def read_ids(
    requests: Sequence[Request], *, family: FamilyAdapter, config: Any, tokenizer: Any, template: str
) -> list[list[int]]:
    """Ids of the prompts, each item being a single placeholder yet. Raises as :func:`build_prompt` does."""
    texts = read_texts(requests, family=family, config=config, tokenizer=tokenizer, template=template)
    # Templates may begin with what the tokenizer would put at the beginning itself.
    begun = bool(tokenizer.bos_token) and all(text.startswith(tokenizer.bos_token) for text in texts)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=not begun).input_ids
    return ids


def read_texts(
    requests: Sequence[Request], *, family: FamilyAdapter, config: Any, tokenizer: Any, template: str
) -> list[str]:
    """The prompts as text, each item being a single placeholder. Raises as :func:`build_prompt` does."""
    conversations = [_conversation(request, family, config, tokenizer) for request in requests]
    if family.video_template and any(item.kind == "video" for request in requests for item in request.items):
        template = family.video_template
    try:
        texts = tokenizer.apply_chat_template(
            conversations, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:
        # Templates are programs: they may refuse a system message, or take no content but plain text.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the chat template of the model fails on this request: {reason[:200]}") from error
    return [_surround(text, request, family, config, tokenizer) for text, request in zip(texts, requests)]


def _surround(text: str, request: Request, family: FamilyAdapter, config: Any, tokenizer: Any) -> str:
    """The prompt's text with each item's own text around its placeholder."""
    done, rest = "", text
    for item in request.items:
        token = tokenizer.convert_ids_to_tokens(family.placeholder(config, item.kind))
        before, found, rest = rest.partition(token)
        lead, trail = family.around(item)
        done += f"{before}{lead}{found}{trail}" if found else before
    return done + rest


def lay_out(
    request: Request, ids: list[int], *, family: FamilyAdapter, config: Any, tokenizer: Any, scheme: str
) -> Prompt:
    """The prompt that ids from :func:`read_ids` are for. Raises as :func:`build_prompt` does."""
    placeholders = [family.placeholder(config, item.kind) for item in request.items]
    visual = {family.placeholder(config, kind) for kind in ("image", "video")}
    if [token for token in ids if token in visual] != placeholders:
        raise ModelError(
            f"the chat template of the model doesn't place the {len(placeholders)} item(s) of a request once each; "
            "use a checkpoint with a multimodal chat template"
        )
    layout = _Layout()
    begin = 0
    for item, placeholder in zip(request.items, placeholders):
        end = ids.index(placeholder, begin)
        layout.add_text(ids[begin:end])
        pieces = family.expand(item, config, tokenizer)
        layout.add_item(item, family.visual_token(config, item.kind), pieces, family.reading_order(item))
        begin = end + 1
    layout.add_text(ids[begin:])
    kept = torch.cat(layout.kept)
    positions = family.positions(layout.parts, kept, scheme)
    return Prompt(torch.cat(layout.ids), positions, sum(len(item.kept) for item in request.items))


class _Layout:
    """The full prompt while it grows: its parts, and the ids and full indices of the tokens that are kept."""

    def __init__(self) -> None:
        self.parts: list[Text | Block] = []
        self.ids: list[torch.Tensor] = []
        self.kept: list[torch.Tensor] = []
        self._length = 0

    def add_text(self, ids: Sequence[int]) -> None:
        self._add(Text(len(ids)), torch.tensor(ids, dtype=torch.long), torch.arange(len(ids)))

    def add_item(
        self, item: EncodedItem, token: int, pieces: Sequence[Block | Sequence[int]], order: torch.Tensor | None
    ) -> None:
        rows = sum(piece.length for piece in pieces if isinstance(piece, Block))
        source = item.kept.source
        if len(source) and not 0 <= int(source.min()) <= int(source.max()) < rows:
            raise ModelError(f"item {item.id!r} has tokens outside of its grid of {rows}; compress it again")
        if order is not None:
            source = order[source].sort().values
        first = 0
        for piece in pieces:
            if isinstance(piece, Block):
                inside = source[(source >= first) & (source < first + piece.length)] - first
                self._add(piece, torch.full((len(inside),), token), inside)
                first += piece.length
            else:
                self.add_text(piece)

    def _add(self, part: Text | Block, ids: torch.Tensor, kept: torch.Tensor) -> None:
        self.parts.append(part)
        self.ids.append(ids)
        self.kept.append(kept + self._length)
        self._length += part.length


def _conversation(request: Request, family: FamilyAdapter, config: Any, tokenizer: Any) -> list[dict[str, Any]]:
    said = [request.system or "", *(text for turn in request.history for text in turn), request.prompt]
    for kind in ("image", "video"):
        token = tokenizer.convert_ids_to_tokens(family.placeholder(config, kind))
        if any(token in text for text in said):
            raise UsageError(
                f"the prompt holds {token}, which stands for visual tokens; remove it, they go before the prompt"
            )
    questions = [question for question, _ in request.history] + [request.prompt]
    content: list[dict[str, str]] = [{"type": family.part_types[item.kind]} for item in request.items]
    content.append({"type": "text", "text": questions[0]})
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    for (_, reply), question in zip(request.history, questions[1:]):
        messages.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
        messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
    if request.system is not None:
        parts = [{"type": "text", "text": request.system}]
        messages.insert(0, {"role": "system", "content": parts if family.system_as_parts else request.system})
    return messages
