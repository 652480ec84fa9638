"""What a language model gives back for a prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What the language model said to one request."""

    text: str
    token_ids: tuple[int, ...]
    """Generated ids, an end token included where one was reached."""
    prompt_tokens: int
    """Tokens prefilled: text and kept visual ones."""
    visual_tokens: int
    finish_reason: str
    """"stop" at an end token, "length" at the limit."""
    seconds: float
    """The request's even share of the time that its batch took."""


@dataclass(frozen=True)
class OptionScore:
    """How likely the model finds an option as its reply to a prompt."""

    total: float
    """Sum of the natural log-probabilities of the option's tokens, each given the prompt and the tokens before it."""
    tokens: int
    """How many tokens the option has; no end token is added or counted."""
    greedy: bool
    """Whether each token is the model's most likely one, so that a greedy answer would begin with the option."""
