"""How the next token of an answer is chosen: the likeliest, one that is drawn, or one that a JSON schema allows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokcli.errors import UsageError

if TYPE_CHECKING:
    from tokcli.models.constraint import Writer
    from tokcli.models.language_model import LanguageModel
    from tokcli.models.prompt import Request


@dataclass(frozen=True)
class Choice:
    """What is done with the model's distribution at each step.

    The same request gets the same random numbers for a seed, whatever is answered beside it or before it.
    """

    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn from the distribution with logits divided by it."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    top_k: int = 0
    """Draw among this many likeliest tokens; 0 for all."""
    seed: int = 0
    schema: str | None = None
    """JSON text of a JSON Schema; answers are JSON of it, if they reach their end."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature must be a number from 0 on, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise UsageError(f"top_k must be 0 (all tokens) or more, got {self.top_k}")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k):
            raise UsageError("top_p and top_k say what is drawn among, and temperature 0 draws nothing; raise it")

    @property
    def likeliest(self) -> bool:
        """Whether nothing but the likeliest token is ever taken."""
        return self.temperature == 0 and self.schema is None


GREEDY = Choice()


class Chooser:
    """Chooses the tokens of a batch of answers, one step after the other."""

    def __init__(self, language: LanguageModel, choice: Choice, requests: Sequence[Request]) -> None:
        """Raises ``UsageError`` for a schema that can't be held."""
        self._ends = language.end_ids()
        self._warpers = _warpers(choice)
        self._writers: list[Writer | None] = [None] * len(requests)
        if choice.schema is not None:
            constraint = language.constraint(choice.schema)
            self._writers = [constraint.begin() for _ in requests]
        self._randoms = [_random(choice.seed, request) for request in requests] if choice.temperature else None

    def choose(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each of the answers ``rows``, from logits (R, V)."""
        scores = logits.float()
        writers = [self._writers[row] for row in rows]
        if masks := [writer.allowed() for writer in writers if writer is not None]:
            scores = scores.masked_fill(~torch.stack(masks).to(scores.device), -torch.inf)
        if self._randoms is None:
            tokens = scores.argmax(dim=-1).tolist()
        else:
            for warp in self._warpers:
                scores = warp(None, scores)
            draws = torch.tensor([self._randoms[row].random() for row in rows], dtype=torch.float64)
            tokens = draw(torch.softmax(scores, dim=-1), draws)
        for writer, token in zip(writers, tokens):
            if writer is not None and token not in self._ends:
                writer.take(token)
        return tokens


def draw(probabilities: torch.Tensor, numbers: torch.Tensor) -> list[int]:
    """One token for each row (R, V) of probabilities: where its number, from 0 to 1, falls among the likeliest first.

    Numbers close to each other give equal tokens, so the rounding of the probabilities seldom changes what is drawn.
    """
    # In this order: Apple's GPUs have no float64.
    ordered, order = torch.sort(probabilities.cpu().double(), dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(dim=-1)
    places = torch.searchsorted(reached, (numbers * reached[:, -1])[:, None], right=True)
    # The product may round up to the whole: never beyond the last token that is possible.
    last = (ordered > 0).sum(dim=-1, keepdim=True) - 1
    chosen: list[int] = order.gather(1, torch.minimum(places, last))[:, 0].tolist()
    return chosen


def _warpers(choice: Choice) -> list[Any]:
    """In the order in which transformers' ``generate`` applies them."""
    if choice.temperature == 0:
        return []
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = [TemperatureLogitsWarper(float(choice.temperature))]
    if choice.top_k:
        warpers.append(TopKLogitsWarper(choice.top_k))
    if choice.top_p < 1:
        warpers.append(TopPLogitsWarper(choice.top_p))
    return warpers


def _random(seed: int, request: Request) -> np.random.Generator:
    parts = [[item.id for item in request.items], request.system, list(request.history), request.prompt]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest[:16])]))
