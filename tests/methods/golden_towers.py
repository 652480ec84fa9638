"""Cases of what works inside vision towers: auroracap, turbo, mctf, pumer, evit, flowcut and mustdrop.

Whole towers run here on CLIP's own weights, tiny and random, in the loop that items go through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from method_items import Arrays

from tokcli.methods import METHODS
from tokcli.methods.evit import keep_attended
from tokcli.methods.flowcut import evenness, flow_scores, lengths, num_to_prune
from tokcli.methods.mctf import count_by_r
from tokcli.methods.mustdrop import Windows, merge_windows
from tokcli.methods.pumer import match_by_score, merge_matched
from tokcli.methods.turbo import merge_of_little_value
from tokcli.models.in_tower import TowerBlocks, attend_before, check_plan, run_blocks
from tokcli.models.in_tower_clip import ClipBlocks
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.fusion import Criteria, fuse
from tokcli.ops.matching import bipartite_matching
from tokcli.ops.reducing import InTower, Rows, Step

NOT_PORTABLE = {
    "mustdrop-g12_w3_identical_ties": "the order of windows that are equally alike is left open by the authors' sort: "
    "counts and the sum of all tokens can be compared",
}


@dataclass(frozen=True)
class Told:
    """A block's attention of which some is known from a file."""

    row: torch.Tensor | None = None
    metric: torch.Tensor | None = None

    def importance(self) -> torch.Tensor:
        assert self.row is not None
        return self.row

    def keys(self) -> torch.Tensor:
        assert self.metric is not None
        return self.metric


def rows_of(states: torch.Tensor, leading: int) -> Rows:
    return Rows.start(states, leading)


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def clip(arrays: Arrays, layers: int) -> Any:
    """The tower in a file, as transformers has it."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    weights = {name.removeprefix("sd/"): torch.from_numpy(values) for name, values in arrays.items() if "sd/" in name}
    position = next(values for name, values in weights.items() if name.endswith("position_embedding.weight"))
    patch = next(values for name, values in weights.items() if name.endswith("patch_embedding.weight"))
    inner = next(values for name, values in weights.items() if name.endswith("fc1.weight"))
    size = arrays["pixel_values"].shape[-1]
    assert len(position) == (size // patch.shape[-1]) ** 2 + 1
    config = CLIPVisionConfig(
        hidden_size=patch.shape[0],
        intermediate_size=inner.shape[0],
        num_hidden_layers=layers,
        num_attention_heads=int(arrays["heads"]),
        image_size=size,
        patch_size=patch.shape[-1],
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
    model = CLIPVisionModel(config).eval()
    own = model.state_dict()
    named = {name.removeprefix("vision_model."): values for name, values in weights.items()}
    unknown = own.keys() ^ {name for name in named if "position_ids" not in name}
    assert not unknown, unknown
    model.load_state_dict(named, strict=False)
    return model


def taken_apart(model: Any, side: int) -> ClipBlocks:
    """The tower up to hidden states -2, which go out as they are."""
    layers = model.encoder.layers

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = model.pre_layrnorm(model.embeddings(pixels))
        return embedded

    return ClipBlocks(layers, len(layers) - 1, (side, side), embed, lambda states: states, leading=1)


@torch.no_grad()
def through_clip(arrays: Arrays, layers: int, name: str, options: dict[str, Any]) -> tuple[Rows, Any]:
    """What is left of the picture in a file after the blocks of its tower, with a method inside."""
    model = clip(arrays, layers)
    tower = taken_apart(model, int(len(model.embeddings.position_embedding.weight) ** 0.5))
    method = METHODS.get(name)
    inside = method.inside(method.parse(options))
    pixels = torch.from_numpy(arrays["pixel_values"])
    return run_blocks(tower, pixels, inside, check_plan(tower.shape, inside)), model


def auroracap_tome(case: str, arrays: Arrays) -> None:
    options = {"variant": "official", "keep": float(arrays["token_kept_ratio"])}
    left, _ = through_clip(arrays, len(arrays["tokens_per_layer"]) - 1, "auroracap", options)
    np.testing.assert_allclose(left.states[:, 1:], arrays["features_m2_nocls"], atol=1e-4)


def turbo(case: str, arrays: Arrays) -> None:
    given = tensors(arrays)
    rows = rows_of(given["x"], 1)
    seen: Any = Told(given["cls_attn"], given["metric"])
    step = merge_of_little_value(float(arrays["alpha"]) * 30, int(arrays["r"]), rows, seen)
    np.testing.assert_allclose(step.states, arrays["out"], atol=1e-4)
    np.testing.assert_array_equal(rows.reduced(step, merges=True).sizes, arrays["size"][:, :, 0])


def mctf(case: str, arrays: Arrays) -> None:
    given, protected = tensors(arrays), int(arrays["num_protected"])
    length = given["x"].shape[1]
    similarity, information, size = arrays["tau"].tolist()
    rows = rows_of(given["x"], protected)
    step = fuse(
        given["x"],
        rows.sizes,
        given["attn"].mean(dim=(1, 2)),
        count_by_r(round(float(arrays["r"]), 4), length, protected),
        Criteria(similarity, information, size),
        protected=protected,
        both_ways=bool(arrays["bidirection"]),
        weigh_by="size" if int(arrays["pooling"]) == 0 else "attention",
    )
    left = rows.reduced(step, merges=True)
    np.testing.assert_allclose(step.states, arrays["out"], atol=1e-4)
    np.testing.assert_array_equal(left.sizes, arrays["size_out"][:, :, 0])
    source = torch.zeros(arrays["source"].shape)
    np.testing.assert_array_equal(source.scatter_(1, step.into.unsqueeze(1), 1.0), arrays["source"])
    if arrays["attn_next"].size:
        np.testing.assert_allclose(attention_after(given["attn"], step), arrays["attn_next"], atol=1e-5)


def attention_after(attention: torch.Tensor, step: Step) -> torch.Tensor:
    """(B, H, T', T') after a step, of (B, H, T, T) before: what rows get where the value of each is an axis."""
    batch, heads, length, _ = attention.shape
    axes, fused = torch.eye(step.rows.shape[1]), step.fused
    value = axes[step.into].masked_fill(fused.gather(1, step.into).unsqueeze(2), torch.nan)
    # Logarithms as queries, and keys of which each is an axis, give this attention again.
    query, key = attention.log(), torch.eye(length).expand(batch, heads, -1, -1)
    seen = BlockAttention(query, key, value.unsqueeze(1).expand(-1, heads, -1, -1), key, scale=1.0)
    numbers = torch.nonzero(fused)[:, 1]
    tower: Any = SimpleNamespace(unit=1, values=lambda block, states: axes[numbers].expand(1, heads, -1, -1))
    return attend_before(tower, 0, seen, step).unflatten(2, (heads, -1)).transpose(1, 2)


def pumer(case: str, arrays: Arrays) -> None:
    given, r = tensors(arrays), int(arrays["r"])
    sizes = torch.ones(given["score"].shape)
    weighted = bipartite_matching(given["metric"] * given["score"].unsqueeze(2), r, protected=1)
    alike = match_by_score(given["score"], r)
    for name, matching, added in (
        ("weighted_mean", weighted, False),
        ("weighted_sum", weighted, True),
        ("diff_mean", alike, False),
    ):
        merged = merge_matched(given["x"], sizes, matching, added=added)
        np.testing.assert_allclose(merged.tokens, arrays[name], atol=1e-4)
    # The score is no part of the cosine.
    plain = bipartite_matching(given["metric"], r, protected=1)
    assert torch.equal(plain.merged, weighted.merged) and torch.equal(plain.targets, weighted.targets)


class TimmBlock(TowerBlocks):
    """The one block of a file, named as timm names it."""

    leading = 1

    def __init__(self, weights: dict[str, torch.Tensor], length: int) -> None:
        super().__init__(1, 1, (1, length - 1))
        self._weights = weights

    def _linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(values, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return torch.nn.functional.layer_norm(values, weight.shape, weight, bias, 1e-5)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def heads(self, block: int, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        joined = self._linear("attn.qkv", self._norm("norm1", states))
        query, key, value = joined.view(*joined.shape[:2], 3, 4, -1).permute(2, 0, 3, 1, 4)
        return query, key, value

    def scale(self, block: int) -> float:
        return float((self._weights["norm1.weight"].shape[0] // 4) ** -0.5)

    def leave(self, block: int, attended: torch.Tensor) -> torch.Tensor:
        return self._linear("attn.proj", attended)

    def mlp(self, block: int, states: torch.Tensor) -> torch.Tensor:
        inner = torch.nn.functional.gelu(self._linear("mlp.fc1", self._norm("norm2", states)))
        return self._linear("mlp.fc2", inner)


def evit(case: str, arrays: Arrays) -> None:
    weights = {name.removeprefix("sd/"): torch.from_numpy(array) for name, array in arrays.items() if "sd/" in name}
    tower = TimmBlock(weights, arrays["x"].shape[1])
    options: Any = SimpleNamespace(
        variant="official", keep_rate=round(float(arrays["keep_rate"]), 6), fuse=bool(arrays["fuse"])
    )
    seen: list[torch.Tensor] = []

    def act(rows: Rows, attention: BlockAttention) -> Step | None:
        seen.append(attention.importance()[:, 1:])
        return keep_attended(options, None, rows, attention)

    inside = InTower(lambda shape: {0: act}, merges=False)
    left = run_blocks(tower, torch.from_numpy(arrays["x"]), inside, {0: act})
    np.testing.assert_allclose(left.states, arrays["out"], atol=1e-4)
    if arrays["kept_idx"].size:
        np.testing.assert_allclose(seen[0], arrays["cls_attn"], atol=1e-6)
        count = arrays["kept_idx"].shape[1]
        np.testing.assert_array_equal(left.anchors[:, 1 : 1 + count], arrays["kept_idx"])


def flowcut(case: str, arrays: Arrays) -> None:
    if "pixel_values" in arrays:
        target, layers = int(arrays["target_num"]), int(arrays["layers"])
        patches = int(arrays["tokens_per_layer"][0]) - 1
        options = {"variant": "official", "keep": target / patches}
        left, _ = through_clip(arrays, layers, "flowcut", options)
        np.testing.assert_array_equal(left.anchors[:, 1:], arrays["keep_indices"])
        np.testing.assert_allclose(left.states[:, 1:], arrays["features"], atol=1e-4)
        return
    given = tensors(arrays)
    later = int(arrays["remaining_layers"])
    if "q" in arrays:
        heads = given["q"].shape[-1]
        seen = BlockAttention(given["q"], given["k"], given["v"], given["k"], heads**-0.5)
        attention = seen.of_mean_query()
        np.testing.assert_allclose(attention, arrays["global_attn"], atol=1e-6)
        np.testing.assert_allclose(attention * lengths(seen.values()), arrays["score"], rtol=1e-4, atol=1e-6)
        count, target = attention.shape[1], int(arrays["target"])
    else:
        attention, values = given["cls_attn_headmean"], given["values"]
        np.testing.assert_allclose(values.mean(dim=1), arrays["value_headmean"], atol=1e-6)
        np.testing.assert_allclose(flow_scores(attention, values), arrays["score"], rtol=1e-4, atol=1e-6)
        count, target = attention.shape[1], int(arrays["target_patches"])
    if "q" not in arrays or count > target:
        assert num_to_prune(count, target, later, evenness(attention, "official")) == int(arrays["prune_num"])


def mustdrop(case: str, arrays: Arrays) -> None:
    if "pixel_values" in arrays:
        left, _ = through_clip(arrays, 24, "mustdrop", {"variant": "official"})
        np.testing.assert_allclose(left.states[:, 1:], arrays["features"], atol=1e-3)
        np.testing.assert_array_equal([145, *[left.states.shape[1]] * 24], arrays["tokens_per_layer"])
        # Which tokens later stages spare: of the last block, which features do not need.
        spared = torch.nonzero(left.memory["protected"][0]).flatten() - 1
        assert set(spared.tolist()) == set(arrays["key_set"][0].tolist())
        return
    states = torch.from_numpy(arrays["hidden_incl_cls"])
    rows, side = rows_of(states, 1), int((states.shape[1] - 1) ** 0.5)
    windows = Windows((side, side), int(arrays["window"][0]))
    order, threshold = torch.arange(side * side), float(arrays["threshold"])
    step = merge_windows(states, windows, order, 1, threshold=threshold, count=0)
    left = rows.reduced(step, merges=True)
    np.testing.assert_array_equal(left.sizes, arrays["size"][:, :, 0])
    if case in NOT_PORTABLE:
        np.testing.assert_allclose(step.states.sum(dim=1), arrays["out"].sum(axis=1), atol=1e-3)
        return
    np.testing.assert_allclose(step.states, arrays["out"], atol=1e-4)
    source = torch.zeros(arrays["source"].shape, dtype=torch.bool).scatter_(1, step.into.unsqueeze(1), True)
    np.testing.assert_array_equal(source, arrays["source"])


RUNNERS: dict[str, Callable[[str, Arrays], None]] = {
    "auroracap_tome": auroracap_tome,
    "turbo": turbo,
    "mctf": mctf,
    "pumer": pumer,
    "evit": evit,
    "flowcut": flowcut,
    "mustdrop": mustdrop,
}
