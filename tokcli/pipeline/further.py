"""A method that is run on the items of a cache, as if it had come behind the cache's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tokcli.cache import Cache
from tokcli.errors import MethodError
from tokcli.methods import Compressor
from tokcli.methods.budget import grid_tokens
from tokcli.methods.compose import chain
from tokcli.pipeline.reduction import flags_of, with_flags
from tokcli.pipeline.restore import announced_views, kept_tokens, with_announced, with_damage_of
from tokcli.pipeline.targets import DTYPES
from tokcli.types import EncodedItem, TokenSet, VisualTokens


@dataclass(frozen=True)
class Further:
    """What is run on the rows of one cache."""

    method: Compressor
    composed: bool
    """Whether the cache's own method comes before it; else the cache has all tokens."""
    streaming: bool
    tower_dtype: torch.dtype | None
    """What the cache's tokens were before they were stored; None where storing rounded them."""
    shrunk: bool
    """Whether the cache's frames were made smaller before the tower."""

    def run(self, item: EncodedItem) -> TokenSet:
        """What it keeps of an item, in terms of the item's own rows. Raises ``MethodError``."""
        visual = self.visual_tokens(item)
        announced = announced_views(item)
        if self.streaming:
            session = self.method.start(item.id, announced)
            kept = session.push(visual)
            kept = replace(kept, stats=session.finish())
        else:
            kept = self.method.compress(visual, item.id)
        return self.placed(item, visual, kept)

    def visual_tokens(self, item: EncodedItem) -> VisualTokens:
        """The item's rows as a method gets them."""
        return kept_tokens(item, self._rows(item), self.tower_dtype)

    def placed(self, item: EncodedItem, visual: VisualTokens, kept: TokenSet) -> TokenSet:
        """What was kept of ``visual``, the item's rows, in terms of all rows that the item had."""
        flags = flags_of(visual, kept.source)
        if self.composed:
            kept = chain(item.kept, kept, self._rows(item))
        kept = with_announced(with_flags(kept, flags), announced_views(item), item.views)
        return with_damage_of(kept, item)

    def _rows(self, item: EncodedItem) -> int:
        """Tokens that the cache's first method got."""
        if item.kept.assignment is not None:
            return len(item.kept.assignment)
        return grid_tokens(item.views) if self.shrunk else item.source_tokens


def further_on(source: Cache, method: Compressor) -> Further:
    """``method`` on the items of a cache. Raises ``MethodError`` for one that needs what the cache does not hold."""
    configuration = source.manifest.configuration
    before = Compressor.from_json(configuration["method"])
    _check_method(source, before, method)
    composed = before.name != "none"
    held, computed = stored_dtypes(source)
    # Float32 holds the other two exactly; between the others something is always rounded away.
    exact = held in (computed, "float32") and "method_dtype" not in configuration
    streaming = before.followed_by(method).streaming if composed else method.streaming
    return Further(method, composed, streaming, DTYPES[computed] if exact else None, before.pixel_scale != 1.0)


def stored_dtypes(source: Cache) -> tuple[str, str]:
    """What the tokens of a cache are stored as, and what the tower computed them as."""
    held = str(source.manifest.configuration["tokens_dtype"])
    return held, str(source.manifest.configuration["model"].get("dtype", held))


def _check_method(source: Cache, before: Compressor, further: Compressor) -> None:
    """Raise ``MethodError`` for methods that need what the cache does not hold."""
    for stage in further.before_tokens:
        raise MethodError(
            f"method {stage['name']!r} works before there are tokens, and a cache holds tokens only; "
            f"use `tokcli compress --method {further.name}` on the media"
        )
    first = before.to_json()["methods"][0]
    held = Compressor.from_json({"methods": [first]}).needs if first["name"] == "none" else frozenset[str]()
    missing = sorted(further.needs - held - {"tokens"})
    if missing:
        there = f"it holds {', '.join(sorted(held))}" if held else "it holds none"
        raise MethodError(
            f"method {further.name!r} needs the signal {missing[0]!r}, which {source.path} does not hold ({there}); "
            f"make it from the media with --method none --keep-signals {','.join(sorted(further.needs - {'tokens'}))}"
        )
