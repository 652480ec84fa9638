"""VTC-CLS: of each picture the tokens that several blocks of the vision tower look at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.errors import MethodError
from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, shares_of
from tokcli.methods.importance import AttentionOptions, layers_signal, numbers_of
from tokcli.methods.tiles import Step
from tokcli.types import View, VisualTokens


class VtcClsOptions(AttentionOptions, SizeBudget):
    # 64 of 576 tokens.
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1111}

    start_layer: int = Field(
        default=-5,
        description="First block to count, from the end if negative; the default is ours, the authors name none.",
    )


@method(
    "vtc_cls",
    options=VtcClsOptions,
    kind="select",
    count="exact",
    paper="arXiv:2412.05819",
    streaming=True,
    needs_from=lambda options: (layers_signal(options),),
    code="THU-MIG/VTC-CLS @ e41ac9b4",
    licence="Apache-2.0",
    golden=("vtc_cls",),
)
def vtc_cls(options: VtcClsOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens that get most attention in several blocks of the vision tower.

    A token's score is the sum of the attention that it gets in the blocks from ``start_layer`` to the last but one;
    the last never counts, as in the authors' code. The paper takes the attention of [CLS]: ``importance=cls``. Each
    frame of a video, still, thumbnail and tile is ranked by itself and keeps the same share. Ties go to the earlier
    token. Without a budget it keeps 11.1%, 64 of 576 tokens; that too is our choice.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        scores = layer_sum(numbers_of(chunk, layers_signal(options)), options.start_layer)

        def choose(step: Step, count: int) -> torch.Tensor:
            return best_of_each(step, scores, shares_of(step, count))

        return choose

    return StepSelection("vtc_cls", options, views, prepare)


def layer_sum(layers: torch.Tensor, start: int) -> torch.Tensor:
    """Sum over the blocks from ``start`` to the last but one of (N, L) scores: float32 (N,)."""
    counted = layers[:, start:-1]
    if not counted.shape[1]:
        raise MethodError(
            f"method 'vtc_cls': start_layer={start} leaves no block before the last of {layers.shape[1]}; "
            f"choose one from {-layers.shape[1]} to {layers.shape[1] - 2}"
        )
    return counted.sum(dim=1)
