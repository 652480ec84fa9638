"""What the writers for serving engines have in common: tokens as an engine takes them, prompts, and a list of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tokcli.errors import UsageError
from tokcli.models import PromptLayout, Request
from tokcli.pipeline.export.capability import Verdict
from tokcli.pipeline.export.items import as_dtype, jsonable
from tokcli.types import EncodedItem

REQUESTS = "requests.jsonl"


class Lines:
    """A file with a JSON object a line, written as they come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(jsonable(row), ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()


@dataclass
class Asking:
    """How items become requests to a language model that runs somewhere else."""

    layout: PromptLayout
    prompts: Sequence[str]
    system: str | None
    dtype: str
    """Of what is written; "auto" as the cache has it."""
    plan: Mapping[str, Verdict]
    """What becomes of each item, by id."""

    def requests(self, item: EncodedItem) -> list[Request]:
        """A request for each prompt."""
        return [Request([item], prompt, self.system) for prompt in self.prompts]

    def tokens(self, item: EncodedItem) -> torch.Tensor:
        """(K, D) in the order of a prompt; with DeepStack (K, (1 + L) * D), the levels behind each token."""
        tokens, levels = self.layout.tokens(item, item.kept.tokens.dtype)
        return as_dtype(torch.cat([tokens, *levels], dim=1), self.dtype, item.id).contiguous()

    def patch_grid(self, item: EncodedItem) -> torch.Tensor:
        """int64 (1, 3): temporal steps, rows and columns of patches, as the model's processor tells them.

        Only for items with all their tokens: a grid of others would be a lie about where they are.
        """
        check_whole(item)
        (view,) = item.views
        steps, height, width = view.grid
        side = self.layout.merge_size
        return torch.tensor([[steps, height * side, width * side]])

    def embedded(self, request: Request) -> torch.Tensor:
        """(S, D): embeddings of the whole prompt, tokens of its item in their places.

        To be given running positions: what comes out is the position scheme ``compact``.
        """
        (item,) = request.items
        prompt = self.layout.prompt(request, "compact")
        visual = prompt.ids == self.layout.family.visual_token(self.layout.config, item.kind)
        tokens = self.tokens(item)
        with torch.inference_mode():
            rows = self._table(prompt.ids).to(tokens.dtype)
        rows = rows.clone()
        rows[visual] = tokens
        return rows

    @cached_property
    def _table(self) -> torch.nn.Embedding:
        return self.layout.embeddings()


def check_whole(item: EncodedItem) -> None:
    """Raise ``UsageError`` unless an item has every token of its grid, each in its place."""
    rows = sum(view.num_tokens for view in item.views)
    if len(item.kept) != rows or not torch.equal(item.kept.source, torch.arange(rows)):
        raise UsageError(
            f"{item.id} has {len(item.kept)} tokens that are not those of its grid of {rows}; "
            "a grid can't be told for them"
        )
