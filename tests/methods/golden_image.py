"""Cases of the methods for stills that rank tokens by attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from method_items import Arrays, still

from tokcli.methods import resolve
from tokcli.types import TokenSet, VisualTokens

NOT_PORTABLE = {
    "fastervlm-g12_boundary_ties_keep30_SETONLY": "which of equal scores the authors' sort keeps is left open: the "
    "scores that are kept can be compared",
}


def pictures(tokens: npt.NDArray[Any], **signals: npt.NDArray[Any]) -> VisualTokens:
    """(B, N, D) tokens of B square pictures, one view each; signals are (B, N) or (B, N, ...)."""
    count, side = len(tokens), round(tokens.shape[1] ** 0.5)
    values = {name: torch.from_numpy(np.concatenate(array)) for name, array in signals.items()}
    return still(tokens, [(side, side)] * count, ["image"] * count, **values)


def masks_of(kept: TokenSet, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    mask[kept.source.numpy()] = True
    return mask.reshape(shape)


def fastervlm(case: str, arrays: Arrays) -> None:
    scores = arrays["cls_attn"].mean(axis=1)
    np.testing.assert_allclose(scores, arrays["scores_headmean"], atol=1e-6)
    visual = pictures(arrays["feats"], cls_attention=arrays["scores_headmean"])
    count = int(arrays["keep"]) * len(scores)
    kept = resolve("fastervlm", max_tokens=count, options={"importance": "cls"}).compress(visual, "item")
    mask = masks_of(kept, scores.shape)
    if case in NOT_PORTABLE:
        expected = arrays["scores_headmean"]
        np.testing.assert_array_equal(np.sort(expected[mask]), np.sort(expected[arrays["mask"]]))
        return
    np.testing.assert_array_equal(mask, arrays["mask"])
    np.testing.assert_array_equal(kept.tokens, np.concatenate(arrays["kept_feats"]))


RUNNERS = {"fastervlm": fastervlm}
