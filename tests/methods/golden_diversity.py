"""Cases of the methods for stills that keep what differs."""

from __future__ import annotations

import numpy as np
import torch
from golden_image import masks_of, pictures
from method_items import Arrays

from tokcli.methods import resolve
from tokcli.ops.diversity import max_min_order, unit_rows

DECIDED = 1e-6
"""A pick is decided by rounding where the best score is less than this above the second best."""
OVERLAP = 0.7
"""Of what vispruner keeps: the last bit of a cosine decides what its rounds drop, and so what they compare next."""
EQUAL = "equal tokens: the authors' code chooses some of them again, by rounding"
NOT_PORTABLE = {
    "divprune-g12_all_identical_r01": EQUAL,
    "divprune-g12_dup41_r05": EQUAL,
    "divprune-g12_fp16_r01": "the authors' arithmetic is in half precision: most picks can be compared",
    "textmonkey-g12_dup41_r60": "equal tokens, whose cosines differ in the last bit: how redundant those are that are "
    "kept can be compared",
}


def divprune(case: str, arrays: Arrays) -> None:
    half = "feats_fp16" in arrays
    tokens = arrays["feats_fp16" if half else "feats"]
    count = int(arrays["n_keep"]) if "n_keep" in arrays else len(arrays["order"])
    visual, ratio = pictures(tokens[None]), float(arrays["ratio"])
    official = resolve("divprune", keep=ratio, options={"variant": "official"}).compress(visual, "item")
    kept = resolve("divprune", max_tokens=count).compress(visual, "item")
    assert len(kept) == count
    if half:
        assert len(set(kept.source.tolist()) & set(arrays["kept_sorted"].tolist())) >= 0.95 * count
        return
    unit = unit_rows(torch.from_numpy(tokens))
    order = max_min_order(unit, count, repeat=True)
    if case in NOT_PORTABLE:
        # As many different ones are chosen, whatever rounding makes of the rest.
        distinct = len(np.unique(tokens, axis=0))
        assert len(np.unique(tokens[kept.source], axis=0)) == min(count, distinct)
        assert len(np.unique(tokens[arrays["order"]], axis=0)) == min(count, distinct)
        return
    undecided = np.flatnonzero(arrays["step_margin"] < DECIDED)
    decided = undecided[0] if len(undecided) else count
    np.testing.assert_array_equal(order[:decided], arrays["order"][:decided])
    if decided == count:
        np.testing.assert_array_equal(official.source, arrays["kept_sorted"])
        np.testing.assert_array_equal(kept.source, arrays["kept_sorted"])
    if "dist" in arrays:
        np.testing.assert_allclose(1 - unit @ unit.T, arrays["dist"], atol=1e-6)


def textmonkey(case: str, arrays: Arrays) -> None:
    tokens, count = arrays["feats"], int(arrays["keep"])
    kept = resolve("textmonkey", max_tokens=count).compress(pictures(tokens), "item")
    if case in NOT_PORTABLE:
        unit = unit_rows(torch.from_numpy(tokens[0]))
        cosines = (unit @ unit.T).masked_fill(torch.ones(len(unit), len(unit), dtype=torch.bool).tril(), -1)
        redundancy = cosines.amax(dim=1)
        found, expected = (np.sort(redundancy[rows]) for rows in (kept.source, arrays["kept_sorted"][0]))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        return
    np.testing.assert_array_equal(kept.source, arrays["kept_sorted"][0])


def vispruner(case: str, arrays: Arrays) -> None:
    scores = arrays["cls_attn"].mean(axis=1)
    visual = pictures(arrays["feats"], cls_attention=scores, pre_projector=arrays["feats"])
    count, share = int(arrays["keep"]), float(arrays["important_ratio"])
    options = {"importance": "cls", "important_share": share}
    kept = resolve("vispruner", max_tokens=count * len(scores), options=options).compress(visual, "item")
    mask = masks_of(kept, scores.shape)
    for found, expected, score in zip(mask, arrays["mask"], scores):
        assert found.sum() == expected.sum() == count
        important = np.argsort(-score, kind="stable")[: int(count * share)]
        assert found[important].all() and expected[important].all()
        assert (found & expected).sum() >= OVERLAP * count


RUNNERS = {"divprune": divprune, "textmonkey": textmonkey, "vispruner": vispruner}
