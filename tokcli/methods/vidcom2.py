"""VidCom2: a fixed share of a video's tokens, those unlike the video and unlike their step."""

from __future__ import annotations

import torch

from tokcli.methods.base import method
from tokcli.methods.layout import steps_of, take
from tokcli.methods.output import select
from tokcli.methods.pruning_rate import PruningRateOptions, rows_after_pruning
from tokcli.ops.selection import top_k, top_k_mask
from tokcli.ops.similarity import TINY, norms
from tokcli.types import TokenSet, VisualTokens

TEMPERATURE = 0.01
BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


@method(
    "vidcom2",
    options=PruningRateOptions,
    kind="select",
    count="exact",
    paper="arXiv:2505.14454",
    golden=("vidcom2",),
    code="vllm 0.33.0, vllm/multimodal/video_prune/vidcom2.py",
    licence="Apache-2.0",
    variants={
        "official": "the count is int(T * N * (1 - rate)) in floating point, which can lose a token (1 - 0.9 < 0.1), "
        "and balancing the total may empty a step",
        "fixed": "the count is the share rounded to the nearest number, and every step keeps its most unlike token",
    },
)
def vidcom2(visual: VisualTokens, options: PruningRateOptions) -> TokenSet:
    """Keep a fixed share of a video's tokens: those unlike the mean of the video and of their step.

    Tokens are compared on the half of their channels that vary least, scaled to length 1, by a sum of five Gaussian
    kernels. A step whose tokens are unlike the mean of the video gets a larger part of the budget; every step keeps at
    least one token, so the least that is kept is the number of steps. What rounding adds or leaves over is balanced
    over the whole item. Ties go to the earlier token.

    All views of an item count as steps of one video: a thumbnail or a crop is a step. It is the second choice of
    vLLM's --video-pruning-method, after evs.
    """
    steps = steps_of(visual)
    count = rows_after_pruning("vidcom2", options, visual, floor=len(steps), floor_is="a token of each step")
    keep = torch.zeros(len(visual), dtype=torch.bool)
    if not steps:
        return select(visual, keep)
    to_video, to_step = _likeness(visual, steps)
    sizes = torch.tensor([len(rows) for rows in steps])
    share = count / int(sizes.sum())
    if options.variant == "official" and options.max_tokens is None:
        share = 1 - (options.pruning_rate or 0.0) if options.keep is None else options.keep
    quotas = _quotas(torch.stack([part.mean() for part in to_video.split(sizes.tolist())]), sizes, share)
    scores = torch.zeros(len(visual))
    scores[torch.cat(steps)] = to_video + to_step
    protected = torch.zeros_like(keep)
    for rows, quota in zip(steps, quotas.tolist()):
        chosen = rows[top_k(-scores[rows], quota)]
        keep[chosen] = True
        protected[chosen[0]] = options.variant == "fixed"
    excess = int(keep.sum()) - count
    if excess > 0:
        keep &= ~top_k_mask(scores.masked_fill(~keep | protected, -torch.inf), excess)
    elif excess < 0:
        keep |= top_k_mask((-scores).masked_fill(keep | visual.structural, -torch.inf), -excess)
    return select(visual, keep)


def _likeness(visual: VisualTokens, steps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """How alike the tokens of all steps are to the mean of the video, and to that of their step: float32 (M,) each.

    The tokens are read three times, a step at a time, rather than held as unit vectors.
    """
    scratch = torch.empty((max(map(len, steps)), visual.tokens.shape[1]))
    channels = _steady_channels(visual, steps, scratch)
    total, lengths, to_step, to_video = torch.zeros(len(channels)), [], [], []
    for rows in steps:
        tokens = torch.mul(take(visual.tokens, rows), channels, out=scratch[: len(rows)])
        lengths.append(norms(tokens))
        step_sum = (1 / lengths[-1]) @ tokens
        total += step_sum
        centre = step_sum / len(rows)
        # Half of |x/|x| - c|^2 is 1/2 - x.c/|x| + |c|^2/2; the first term is added for all steps at once.
        to_step.append(centre.square().sum() / 2 - (tokens @ centre) / lengths[-1])
    centre = total / sum(map(len, steps))
    half = centre.square().sum() / 2
    for rows, length in zip(steps, lengths):
        # The centre is zero in the channels that do not count.
        to_video.append(half - (take(visual.tokens, rows).float() @ centre) / length)
    unit = (torch.cat(lengths) > TINY) / 2
    return _kernels(unit + torch.cat(to_video)), _kernels(unit + torch.cat(to_step))


def _steady_channels(visual: VisualTokens, steps: list[torch.Tensor], scratch: torch.Tensor) -> torch.Tensor:
    """1.0 for the half of the channels that vary least over all tokens, 0.0 for the others: float32 (D,).

    ``scratch``: float32 (P, D), room for any step: with an array of its own for each it takes three times as long.
    """
    shift = take(visual.tokens, steps[0]).float().mean(0)
    sums = torch.zeros(len(shift), dtype=torch.float64)
    squares = torch.zeros_like(sums)
    for rows in steps:
        tokens = torch.sub(take(visual.tokens, rows), shift, out=scratch[: len(rows)])
        sums += tokens.sum(0)
        squares += tokens.square_().sum(0)
    count = sum(map(len, steps))
    variances = squares / count - (sums / count).square()
    return top_k_mask(-variances, max(1, len(shift) // 2)).float()


def _kernels(half_squares: torch.Tensor) -> torch.Tensor:
    """Sum of the Gaussian kernels at half the squared distances, float32 (M,)."""
    half_squares = half_squares.clamp_min_(0)
    return torch.stack([torch.exp(-half_squares / width) for width in BANDWIDTHS]).sum(0)


def _quotas(likeness: torch.Tensor, sizes: torch.Tensor, share: float) -> torch.Tensor:
    """How many tokens each step keeps: int64 (F,), larger where the mean likeness to the video is small."""
    scores = (-likeness).double()
    portions = torch.softmax((scores - scores.max()) / TEMPERATURE, dim=0)
    scale = (share * (1 + portions - portions.mean())).clamp_max(1)
    return torch.minimum(torch.round(scale * sizes).to(torch.int64).clamp_min(1), sizes)
