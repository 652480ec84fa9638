"""Answers that are JSON of a given schema: which tokens may come next."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from tokcli.errors import UsageError

# One space or none where JSON allows white space: models that were left free to have written lines of it for ever.
_SPACES: Any = {"whitespace_pattern": "[ ]?"}


class Constraint:
    """A JSON schema for the tokens of one model."""

    def __init__(self, schema: str, tokenizer: Any, vocabulary: int, ends: Collection[int]) -> None:
        """Compile a schema.

        Args:
            schema: Its JSON text.
            tokenizer: The checkpoint's tokenizer, one of the fast ones.
            vocabulary: How many logits the model has.
            ends: Ids that end an answer.

        Raises:
            UsageError: The text is no JSON schema, or has keys that can't be held while an answer is written.
        """
        from llguidance import LLMatcher, LLTokenizer

        self._size = vocabulary
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UsageError("a schema needs the checkpoint's tokenizer.json; this one has a tokenizer without")
        self._tokenizer = LLTokenizer(backend.to_str(), n_vocab=vocabulary, eos_token=sorted(ends) or None)
        self._grammar = LLMatcher.grammar_from_json_schema(parse_schema(schema), defaults=_SPACES)
        self._new: Any = LLMatcher
        if problem := LLMatcher.validate_grammar(self._grammar, self._tokenizer):
            raise UsageError(f"the schema can't be held while an answer is written: {' '.join(problem.split())}")

    def begin(self) -> Writer:
        """An answer that begins."""
        return Writer(self._new(self._tokenizer, self._grammar), self._size)


class Writer:
    """One answer while it is written."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._size = vocabulary

    def allowed(self) -> torch.Tensor:
        """bool (V,): what may come next; where the JSON is complete only ends of the answer."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._size].astype(bool))

    def take(self, token: int) -> None:
        """Go on behind a token that is allowed."""
        self._matcher.consume_token(token)


def parse_schema(text: str) -> Any:
    """The JSON of a schema. Raises ``UsageError`` where it is no JSON Schema."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise UsageError(f"the schema is a JSON {type(schema).__name__}; a JSON Schema is an object")
    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path)
        raise UsageError(f"the schema is no JSON Schema: {f'{where}: ' if where else ''}{error.message}") from None
    return schema


def problem_of(answer: str, schema: Any) -> str | None:
    """Why the text is not JSON of that schema, in one line; None where it is."""
    from jsonschema import ValidationError, validate

    try:
        validate(json.loads(answer), schema)
    except ValueError as error:
        return f"the answer is not JSON: {error}"
    except ValidationError as error:
        return f"the answer is not of the schema: {' '.join(error.message.split())}"
    return None
