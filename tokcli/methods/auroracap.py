"""AuroraCap: ToMe in the vision tower of a captioning model (arXiv:2410.03051)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from pydantic import model_validator

from tokcli.methods.base import in_tower, method
from tokcli.methods.options import VariantOptions
from tokcli.methods.tome import merge_similar
from tokcli.methods.tower_schedule import ShareOfFrame, steps_by_budget, steps_by_r
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.reducing import PLACELESS, Act, InTower, Rows, Step, TowerShape


class AuroracapOptions(ShareOfFrame, VariantOptions):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.5}

    @model_validator(mode="after")
    def _no_more_than_that(self) -> AuroracapOptions:
        if self.variant == "official" and self.max_tokens is not None:
            raise ValueError("variant='official' leaves more than it is asked for, so no max_tokens; take 'fixed'")
        return self


def _merge_after_first(r: int, rows: Rows, seen: BlockAttention) -> Step:
    """As the official code in a tower without [CLS]: the first patch is taken for it, and left out in the end."""
    matching = bipartite_matching(seen.keys(), r, protected=1)
    step = Step.merged(Merging.start(rows.states, rows.sizes).apply(matching, matching.official_order()))
    return replace(
        step, memory={PLACELESS: torch.arange(step.rows.shape[1], device=step.rows.device).eq(0).expand_as(step.rows)}
    )


def _plan(options: AuroracapOptions, shape: TowerShape) -> dict[int, Act]:
    steps = steps_by_budget("auroracap", options, shape) if options.variant == "fixed" else None
    if steps is None:
        # Of a number for all blocks of the tower, those that do not run or see windows only keep what is theirs.
        steps = steps_by_r([int(shape.rows * (1 - (options.keep or 1.0)) / shape.depth)] * len(shape.blocks), shape)
    merge = merge_similar if shape.leading or options.variant == "fixed" else _merge_after_first
    return {block: partial(merge, r) for block, r in steps.items()}


@method(
    "auroracap",
    options=AuroracapOptions,
    paper="arXiv:2410.03051",
    code="rese1f/aurora 2bf68d57",
    licence="Apache-2.0",
    kind="merge",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    variants={
        "official": "merges int(N (1 - keep) / blocks) tokens in each block that runs, so that more than keep is left; "
        "no attention in proportion, as the authors' has no effect; in towers without [CLS] the first patch is "
        "protected and then left out",
        "fixed": "leaves keep of a frame's tokens, with attention by how many tokens each stands for",
    },
    golden=("auroracap_tome",),
)
def auroracap(options: AuroracapOptions) -> InTower:
    """Merge similar tokens in every block of the vision tower, down to a given share.

    The authors found a share of 0.2 to 0.4 enough for captions, above 0.5 for questions, above 0.8 for reading.
    """
    return InTower(partial(_plan, options), proportional=options.variant == "fixed")
