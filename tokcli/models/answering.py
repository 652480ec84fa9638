"""Answers to many requests: those about the same items compute the items once, all others go in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tokcli.errors import ModelError, UsageError
from tokcli.models import asking, generating
from tokcli.models.branching import check_attention
from tokcli.models.choosing import Choice
from tokcli.models.generating import Results
from tokcli.models.positions import check_scheme
from tokcli.models.prompt import Request

if TYPE_CHECKING:
    from tokcli.models.language_model import LanguageModel

SHARED_TOKENS = 512
"""Visual tokens that a group has to save: sharing them gives up the batches with requests about other items, in which
all share the steps of decoding. An estimate; where the two ways cost the same depends on the model and the device."""


def answer(
    language: LanguageModel, requests: Sequence[Request], *, max_new_tokens: int, scheme: str, choice: Choice
) -> Iterator[Results]:
    """See :meth:`tokcli.models.LanguageModel.answer`."""
    check_scheme(scheme, language.family.position_schemes)
    alone: list[int] = []
    for group in _groups(language, requests):
        if _saved([requests[number] for number in group]) < SHARED_TOKENS:
            alone += group
            continue
        try:
            answers = asking.ask(
                language,
                [requests[number] for number in group],
                max_new_tokens=max_new_tokens,
                scheme=scheme,
                choice=choice,
            )
        except UsageError:
            # One of them can't be answered, or not together: alone each gets its answer or its own error.
            alone += group
        else:
            yield dict(zip(group, answers))
    yield from generating.each(language, requests, alone, max_new_tokens=max_new_tokens, scheme=scheme, choice=choice)


def _groups(language: LanguageModel, requests: Sequence[Request]) -> list[list[int]]:
    """Numbers of the requests that begin alike: with the very same items."""
    try:
        check_attention(language.model)
    except ModelError:
        return [[number] for number in range(len(requests))]
    groups: dict[object, list[int]] = {}
    for number, request in enumerate(requests):
        same = (tuple(id(item) for item in request.items), request.system, request.history)
        groups.setdefault(same, []).append(number)
    return list(groups.values())


def _saved(group: Sequence[Request]) -> int:
    """Visual tokens that computing them once saves."""
    return (len(group) - 1) * sum(len(item.kept) for item in group[0].items)
