"""Cases of the methods for stills that rank tokens by attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from method_items import Arrays, still

from tokcli.methods import resolve
from tokcli.methods.globalcom2 import tile_shares
from tokcli.methods.holov import official_rows
from tokcli.methods.tiles import region_sums, tiled_steps
from tokcli.methods.vflowopt import with_entropy
from tokcli.methods.vtc_cls import layer_sum
from tokcli.models.preprocess import patch_entropy
from tokcli.models.signals import attend, hub_attention
from tokcli.types import TokenSet, View, VisualTokens

MISPLACED = "of padded tiles the authors' code puts tokens in wrong places: which tokens are kept can be compared"
NO_HUB = "in a picture without a hub the authors' code takes the mean of nothing; here it is the attention received"
NOT_PORTABLE = {
    "fastervlm-g12_boundary_ties_keep30_SETONLY": "which of equal scores the authors' sort keeps is left open: the "
    "scores that are kept can be compared",
    "globalcom2-w1h3_g12_pad_R025": MISPLACED,
    "globalcom2-w2h2_g12_padH_R05": MISPLACED,
    "vflowopt-imp_g12_t5": NO_HUB,
    "vflowopt-imp_g12_t_toohigh_nan": NO_HUB,
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


def tiled(
    tokens: npt.NDArray[Any], columns: int, rows: int, *, box: tuple[int, int, int, int] | None = None, **signals: Any
) -> tuple[VisualTokens, npt.NDArray[np.int64]]:
    """A thumbnail and a canvas of tiles, of (1 + rows * columns, N, D) tokens, and where each row of it comes from.

    ``box``: top, bottom, left, right of what is left of the canvas without padding. Signals are (1 + n, N) or
    (1 + n, N, ...). The second result is int64 rows of the flattened tokens.
    """
    count = tokens.shape[1]
    side = round(count**0.5)
    tiles = np.arange(count, tokens.shape[0] * count).reshape(rows, columns, side, side)
    top, bottom, left, right = box or (0, rows * side, 0, columns * side)
    canvas = tiles.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)[top:bottom, left:right]
    origin = np.concatenate([np.arange(count), canvas.flatten()])
    values = {name: torch.from_numpy(np.concatenate(array)[origin]) for name, array in signals.items()}
    grids, kinds = [(side, side), canvas.shape], ["thumbnail", "crop"]
    return still(np.concatenate(tokens)[origin], grids, kinds, **values), origin


def decimal(value: Any) -> float:
    """The number that was written before it became a float32."""
    return float(str(np.float32(value)))


def hired(case: str, arrays: Arrays) -> None:
    first, last = (arrays[name].mean(axis=1) for name in ("first_layer_cls_attn", "late_layer_cls_attn"))
    visual, origin = tiled(
        last[:, :, None], *arrays["grid_wh"].tolist(), cls_attention=last, cls_attention_layers=first[:, :, None]
    )
    options = {"variant": "official", "importance": "cls", "alpha": decimal(arrays["alpha"])}
    keep = decimal(arrays["token_budget_rate"])
    kept = resolve("hired", keep=keep, options=options).compress(visual, "item")
    mask = np.zeros(last.size, dtype=bool)
    mask[origin[kept.source]] = True
    np.testing.assert_array_equal(mask.reshape(last.shape), arrays["mask"])
    np.testing.assert_array_equal(mask.reshape(last.shape).sum(axis=1), [arrays["full_budget"], *arrays["sub_budgets"]])
    fixed = resolve("hired", keep=keep, options={**options, "variant": "fixed"}).compress(visual, "item")
    assert len(fixed) == round(keep * last.size)


def holov(case: str, arrays: Arrays) -> None:
    tokens, attention = torch.from_numpy(arrays["feats"]), torch.from_numpy(arrays["attn"])
    crops, count = int(arrays["num_crops"]), int(arrays["keep"])
    positions = arrays["positions"]
    # Where the authors' code runs out of tokens it puts zeros.
    used = positions[positions >= 0]
    strips = [part for part in torch.arange(len(tokens)).tensor_split(crops) if len(part)]
    np.testing.assert_array_equal(official_rows(tokens, attention, strips, count), used)
    np.testing.assert_array_equal(tokens[used], arrays["out"][: len(used)])
    assert not arrays["out"][len(used) :].any()
    visual = pictures(arrays["feats"][None], cls_attention=arrays["attn"][None])
    options = {"importance": "cls", "crops": crops}
    kept = resolve("holov", max_tokens=count, options={**options, "variant": "official"}).compress(visual, "item")
    expected = np.arange(len(tokens)) if count == len(tokens) else np.sort(used)
    np.testing.assert_array_equal(kept.source, expected)
    assert len(resolve("holov", max_tokens=count, options=options).compress(visual, "item")) == count


def valid_box(columns: int, rows: int, side: int, width: int, height: int) -> tuple[int, int, int, int]:
    """top, bottom, left, right of a still of that size on its canvas, by the authors' arithmetic."""
    canvas_width, canvas_height = columns * side, rows * side
    if width / height > canvas_width / canvas_height:
        pad = (canvas_height - int(height * canvas_width / width)) // 2
        return pad, canvas_height - pad, 0, canvas_width
    pad = (canvas_width - int(width * canvas_height / height)) // 2
    return 0, canvas_height, pad, canvas_width - pad


def globalcom2(case: str, arrays: Arrays) -> None:
    tokens, logits, share = arrays["feats"], arrays["cls_logits_headmean"], decimal(arrays["R"])
    columns, rows = arrays["grid_wh"].tolist()
    box = valid_box(columns, rows, round(tokens.shape[1] ** 0.5), *arrays["orig_wh"].tolist())
    visual, _ = tiled(tokens, columns, rows, box=box, cls_logits=logits)
    step = tiled_steps(visual)[0]
    thumbnail = step.thumbnail
    assert thumbnail is not None and len(step.parts) == rows * columns
    temperature = float(arrays["temperature"])
    scales = tile_shares(region_sums(step, thumbnail, torch.from_numpy(logits[0])), share, temperature)
    np.testing.assert_allclose(scales, arrays["scales"], atol=1e-5)
    if share == 1:
        # A budget of all tokens keeps all; the authors' code drops some of every tile but one.
        return
    options = {"variant": "official", "temperature": temperature}
    kept = resolve("globalcom2", keep=share, options=options).compress(visual, "item")
    is_thumbnail = kept.source.numpy() < tokens.shape[1]
    np.testing.assert_array_equal(kept.source[is_thumbnail], np.sort(arrays["thumb_idx"]))
    found, expected = kept.tokens[~is_thumbnail].numpy(), arrays["crops_out_fp16"].astype(np.float32)
    expected = expected[np.abs(expected - arrays["image_newline"]).max(axis=1) > 1e-2]
    if case in NOT_PORTABLE:
        found, expected = found[np.lexsort(found.astype(np.float16).T)], expected[np.lexsort(expected.T)]
    np.testing.assert_allclose(found, expected, atol=1e-2)


def vtc_cls(case: str, arrays: Arrays) -> None:
    layers = np.moveaxis(arrays["cls_attn_per_layer"].mean(axis=1), 0, 1)
    start = int(arrays["start_layer"])
    np.testing.assert_allclose(layer_sum(torch.from_numpy(layers), start), arrays["score"], atol=1e-6)
    visual = pictures(arrays["feats"][None], cls_attention_layers=layers[None])
    options = {"importance": "cls", "start_layer": start}
    kept = resolve("vtc_cls", max_tokens=int(arrays["keep"]), options=options).compress(visual, "item")
    np.testing.assert_array_equal(kept.source, arrays["kept_sorted"])
    if "kept_feats" in arrays:
        np.testing.assert_array_equal(kept.tokens, arrays["kept_feats"])


def visiondrop(case: str, arrays: Arrays) -> None:
    """What the authors' one layer of attention gives is what the tower's signals would be."""
    hidden, heads = torch.from_numpy(arrays["hidden"][0]), int(arrays["heads"])
    normed = hidden * torch.rsqrt(hidden.square().mean(dim=1, keepdim=True) + float(arrays["rms_eps"]))
    query, key = ((normed @ torch.from_numpy(arrays[name]).T).view(len(hidden), heads, -1) for name in ("wq", "wk"))
    width = query.shape[2]
    if arrays["rope"]:
        angles = torch.arange(len(hidden))[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
        cos, sin = (values.repeat(1, 2)[:, None] for values in (angles.cos(), angles.sin()))
        query, key = (
            x * cos + torch.cat([-x[..., width // 2 :], x[..., : width // 2]], -1) * sin for x in (query, key)
        )
    logits = torch.einsum("ihd,jhd->hij", query, key) / width**0.5
    if arrays["causal"]:
        logits = logits.masked_fill(torch.ones(logits.shape[1:], dtype=torch.bool).triu(1), -torch.inf)
    start, count = int(arrays["image_start"]), int(arrays["n_image"])
    picture = slice(start, start + count)
    received = torch.softmax(logits, dim=-1)[:, picture, picture].mean(dim=(0, 1))
    visual = pictures(
        arrays["hidden"][:, picture],
        received_attention=received[None].numpy(),
        head_mean_keys=key.mean(dim=1)[None, picture].numpy(),
    )
    dominant, contextual = int(arrays["dominant"]), int(arrays["contextual"])
    total = dominant + contextual
    options = {"variant": "official", "contextual_share": contextual / total}
    kept = resolve("visiondrop", max_tokens=total, options=options).compress(visual, "item")
    expected = arrays["out"][0, start : start + total]
    # The merged tokens stand last in the authors' list.
    merged = (kept.mass > 1).numpy()
    assert merged.sum() == contextual
    found = np.concatenate([kept.tokens[~merged], kept.tokens[merged]])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def vflowopt(case: str, arrays: Arrays) -> None:
    if "attn" in arrays:
        vflowopt_importance(case, arrays)
        return
    height, width = arrays["crop_grid_hw"].tolist()
    base = still(np.zeros((729 + height * (width + 1), 1)), [(27, 27), (height, width + 1)], ["thumbnail", "crop"])
    newline = (base.coords[:, 0] == 1) & (base.coords[:, 3] == width)
    visual = replace(
        base,
        tokens=torch.from_numpy(arrays["feats"]),
        views=(base.views[0], View("crop", (1, height, width))),
        structural=newline,
        signals={"hub_attention": torch.from_numpy(arrays["importance"]).unsqueeze(1).expand(-1, 3)},
    )
    share, cell = float(arrays["retain_ratio"]), float(arrays["cell"])
    options = {"variant": "official", "cell": cell}
    kept = resolve("vflowopt", keep=share, options=options).compress(visual, "item")
    np.testing.assert_array_equal(masks_of(kept, arrays["keep_mask"].shape), arrays["keep_mask"])
    np.testing.assert_allclose(kept.tokens, arrays["out"], atol=1e-3)
    # With as many tokens as that for a ceiling, the same are merged.
    fixed = resolve("vflowopt", max_tokens=len(kept), options={"cell": cell}).compress(visual, "item")
    assert len(fixed) == len(kept)
    np.testing.assert_allclose(fixed.tokens, arrays["out"], atol=1e-3)


def vflowopt_importance(case: str, arrays: Arrays) -> None:
    if "pixels01_u8" in arrays:
        pixels = arrays["pixels01_u8"].transpose(0, 2, 3, 1)
        entropy = patch_entropy(pixels, pixels.shape[1] // arrays["patch_entropy_bits"].shape[-1])
        np.testing.assert_allclose(entropy, arrays["patch_entropy_bits"].flatten(), atol=1e-5)
        entropies = entropy.reshape(len(pixels), -1)
    else:
        assert arrays["alpha_v"] == 0
        entropies = np.zeros_like(arrays["importance"])
    for attention, bits, expected in zip(torch.from_numpy(arrays["attn"]), entropies, arrays["importance"]):
        # Logarithms as queries, and keys of which each is an axis, give these probabilities again.
        axes = torch.eye(attention.shape[1]).expand_as(attention)
        received = attend(attention.log(), axes, 1.0)
        importance = hub_attention(attention.log(), axes, 1.0, received, float(arrays["t"]))
        if case in NOT_PORTABLE and np.isnan(expected).all():
            np.testing.assert_array_equal(importance, received)
            continue
        visual = pictures(np.zeros((1, len(bits), 1)), patch_entropy=bits[None])
        found = with_entropy(visual, importance, float(arrays["alpha_v"]))
        np.testing.assert_allclose(found, expected, atol=1e-5)


RUNNERS = {
    "fastervlm": fastervlm,
    "hired": hired,
    "holov": holov,
    "globalcom2": globalcom2,
    "vtc_cls": vtc_cls,
    "visiondrop": visiondrop,
    "vflowopt": vflowopt,
}
