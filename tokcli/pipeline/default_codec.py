"""Which codec a cache gets: decided here alone, for compressing, deriving, planning and measuring."""

from __future__ import annotations

from tokcli.cache.codecs import codec_of
from tokcli.methods import Compressor

DEFAULT = "int8"
"""The smallest codec that keeps at least 99.5% of the right answers that float16 keeps, on questions of every kind:
docs/codecs.md has the figures, ``python -m bench.codecs`` measures them."""


def resolved_codec(asked: str, method: Compressor, *, exact: str, held: str | None = None) -> str:
    """The name of the codec that tokens are stored with.

    Args:
        asked: What a recipe's ``tokens_dtype`` says. "exact" loses nothing. "auto" is ``DEFAULT`` where tokens go, and
            loses nothing where the method is ``none`` alone: other caches come from such a one, and it is what equals
            a native run. Tokens that were stored as codes before stay in theirs. Any other name is that codec.
        method: What is run on the tokens.
        exact: The type that holds the tokens which ``method`` gets, as they are.
        held: The codec of the cache that they are read from; None where the vision tower gives them.
    """
    held = held or exact
    if asked == "exact":
        return exact
    if asked != "auto":
        return asked
    return held if method.name == "none" or codec_of(held).lossy else DEFAULT
