"""Where the codebook of a cache comes from: another cache, the cache itself when a run goes on, or training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokcli.cache import Cache
from tokcli.cache.codebook import TRAINING_VECTORS, Codebook, codebook_of, train
from tokcli.cache.codecs import needs_codebook, numbers_per_code
from tokcli.cache.layout import MANIFEST
from tokcli.cache.levels import joined
from tokcli.cache.manifest import read_manifest
from tokcli.errors import UsageError
from tokcli.storage import Location, location

MOST_ITEMS = 256
"""Items that a codebook is trained on, evenly spaced in the order of writing."""


def codebook_for(
    codec: str, folder: Location, *, reuse: str | None, overwrite: bool, source: Cache | None = None
) -> Codebook | None:
    """The codebook for writing a cache in ``folder`` with ``codec``; None for codecs without one.

    Args:
        reuse: A cache to take it from.
        source: A cache of tokens to train on, if there is none yet.

    Raises:
        UsageError: There is nothing to take it from or to train on, or nothing to use it for.
        CacheError: The cache to take it from can't be read.
    """
    if not needs_codebook(codec):
        if reuse is not None:
            raise UsageError(f"codec {codec} has no codebook; leave --codebook out, or take --codec pq4 or pq8")
        return None
    if reuse is not None:
        found = codebook_of(location(reuse), read_manifest(location(reuse)))
        if found is None:
            raise UsageError(f"{reuse} has no codebook; name a cache that was made with --codec pq4 or pq8")
        return found
    if not overwrite and (folder / MANIFEST).exists():
        found = codebook_of(folder, read_manifest(folder))
        if found is not None:
            return found
    if source is None:
        raise UsageError(
            f"codec {codec} needs a codebook: take that of another cache with --codebook CACHE, or compress with "
            f"--codec exact and then `tokcli derive CACHE -o SMALL --method none --codec {codec}`, which trains one"
        )
    return train(_sample(source), numbers_per_code(codec))


def _sample(source: Cache) -> npt.NDArray[np.float32]:
    """float32 (n, D): tokens of evenly spaced items, evenly spaced in each; levels are vectors of their own."""
    count = min(MOST_ITEMS, len(source))
    if count == 0:
        raise UsageError(f"{source.path} has no items to train a codebook on")
    each = -(-TRAINING_VECTORS // count)
    vectors = []
    for number in range(count):
        kept = source[number * len(source) // count].kept
        width = kept.tokens.shape[1]
        rows = joined(kept.tokens, kept.deepstack).reshape(-1, width)
        vectors.append(rows[:: max(1, len(rows) // each)].float().numpy())
    return np.concatenate(vectors)[:TRAINING_VECTORS]
