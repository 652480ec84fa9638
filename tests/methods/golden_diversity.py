"""Cases of the methods for stills that keep what differs."""

from __future__ import annotations

import numpy as np
import torch
from golden_image import masks_of, pictures
from method_items import Arrays

from tokcli.methods import resolve
from tokcli.methods.agilepruner import spaced_order
from tokcli.methods.tiles import tiled_steps
from tokcli.methods.zoo_prune import sensitive_order
from tokcli.ops.complexity import effective_rank
from tokcli.ops.diversity import max_min_order, min_sum_order, unit_rows
from tokcli.ops.sensitivity import sensitivity

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


def todre(case: str, arrays: Arrays) -> None:
    visual = pictures(arrays["feats"][None], cls_attention=arrays["cls_attn"][None])
    unit, count = unit_rows(visual.tokens), int(arrays["keep"])
    first = int(arrays["cls_attn"].argmax())
    orders = {
        "max-sum": (min_sum_order(unit, count, first), arrays["order_maxsum_v2"]),
        "k-center": (max_min_order(unit, count, first=first), arrays["order_kcenter_v1"]),
    }
    for rule, (order, expected) in orders.items():
        np.testing.assert_array_equal(order, expected)
        options = {"importance": "cls", "rule": rule}
        kept = resolve("todre", max_tokens=count, options=options).compress(visual, "item")
        np.testing.assert_array_equal(kept.source, np.sort(expected))


def agilepruner(case: str, arrays: Arrays) -> None:
    tokens, attention = arrays["feats"], arrays["cls_attn"]
    rank, usual, most = (float(arrays[name]) for name in ("erank", "erank_avg", "tau_max"))
    features, count = torch.from_numpy(tokens), int(arrays["keep"])
    np.testing.assert_allclose(effective_rank(features), rank, rtol=1e-6)
    order, spaced = spaced_order(unit_rows(features), torch.from_numpy(attention), count, 0.01 * rank / usual, most)
    np.testing.assert_array_equal(order, arrays["order"])
    assert spaced == arrays["n_before_backfill"]
    visual = pictures(tokens[None], cls_attention=attention[None], pre_projector=tokens[None])
    options = {"importance": "cls", "usual_rank": usual, "most_distance": most}
    kept = resolve("agilepruner", max_tokens=count, options=options).compress(visual, "item")
    np.testing.assert_array_equal(kept.source, np.sort(arrays["order"]))
    np.testing.assert_allclose(kept.stats["effective_rank"], rank, rtol=1e-6)
    np.testing.assert_allclose(kept.stats["attention_entropy"], arrays["attn_entropy_nats"], rtol=1e-6)


def zoo_prune(case: str, arrays: Arrays) -> None:
    features, w1, b1, w2, b2, directions = (
        torch.from_numpy(arrays[name]).double() for name in ("feats", "W1", "b1", "W2", "b2", "directions")
    )

    def projector(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(rows @ w1.T + b1) @ w2.T + b2

    found = sensitivity(features, projector, directions, float(arrays["h"]))
    np.testing.assert_allclose(found, arrays["sensitivity"], atol=1e-4)
    projected, count = projector(features), int(arrays["keep"])
    np.testing.assert_array_equal(sensitive_order(unit_rows(projected), found, count), arrays["order"])
    visual = pictures(projected.numpy()[None], projector_sensitivity=found.numpy()[None])
    kept = resolve("zoo_prune", max_tokens=count).compress(visual, "item")
    np.testing.assert_array_equal(kept.source, np.sort(arrays["order"]))


def fopru(case: str, arrays: Arrays) -> None:
    received = arrays["attn_headmean"][:, 1:].mean(axis=0)
    np.testing.assert_allclose(received, arrays["significance"], atol=1e-6)
    visual = pictures(np.zeros((1, len(received), 1)), received_attention=arrays["significance"][None])
    count = max(1, int(len(received) * float(arrays["retain_ratio"])))
    kept = resolve("fopru", max_tokens=count).compress(visual, "item")
    np.testing.assert_array_equal(kept.source, arrays["rank_kept"])
    (tile,) = tiled_steps(visual)[0].tiles
    np.testing.assert_allclose(arrays["significance"].reshape(tile.grid).mean(axis=1), arrays["row_scores"], atol=1e-6)
    # Whole rows; a budget that is smaller than a row keeps a part of it.
    rows = len(arrays["row_kept"])
    kept = resolve("fopru", max_tokens=rows, options={"strategy": "row"}).compress(visual, "item")
    np.testing.assert_array_equal(kept.source, arrays["row_kept"])


RUNNERS = {
    "divprune": divprune,
    "textmonkey": textmonkey,
    "vispruner": vispruner,
    "todre_paper_derived": todre,
    "agilepruner_paper_derived": agilepruner,
    "zoo_prune_paper_derived": zoo_prune,
    "fopru_paper_derived": fopru,
}
