"""Refusing tokens that are not finite, which no method can compare."""

from __future__ import annotations

import torch

from tokcli.errors import MethodError
from tokcli.types import VisualTokens


def refuse_not_finite(visual: VisualTokens) -> None:
    """Raise :class:`MethodError` unless all tokens are finite."""
    tokens = visual.tokens
    # Infinity and NaN pass on to the sum of their row, which takes no longer than reading; a sum of finite numbers may
    # overflow too, so doubtful rows are looked at.
    doubtful = torch.nonzero(~torch.isfinite(tokens.sum(dim=1))).flatten()
    bad = doubtful[~torch.isfinite(tokens[doubtful]).all(dim=1)]
    if bad.numel():
        place = tuple(visual.coords[int(bad[0])].tolist())
        raise MethodError(
            f"{bad.numel()} of {len(visual)} tokens are not finite, the first at (view, t, y, x) = {place}; "
            "the vision tower overflowed: encode with dtype float32 or bfloat16"
        )
