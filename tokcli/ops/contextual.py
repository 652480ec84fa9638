"""Merging what was not selected into a few targets at even distances, as VisionZip and VisionDrop do.

Sources: VisionZip (arXiv:2412.04467) and VisionDrop (arXiv:2506.22283).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokcli.ops.similarity import norms

ENTRIES_AT_A_TIME = 1 << 22
"""Bound on the similarities held at once: 16 MiB in float32."""


@dataclass(frozen=True)
class Contextual:
    """What C tokens became of R."""

    targets: torch.Tensor
    """int64 (C,), ascending: the positions that the others went to."""
    groups: torch.Tensor
    """int64 (R,): which of the targets each token went to, a target to itself."""
    values: torch.Tensor
    """float32 (C, D): each target plus the mean of what went to it."""


def contextual_merge(features: torch.Tensor, keys: torch.Tensor, count: int) -> Contextual:
    """Send every token to the most similar of ``count`` targets, those at positions 0, step, 2 * step, ...

    ``features``: (R, D) float, in raster order; ``keys``: (R, d) float, compared by cosine, in which a zero vector is
    like nothing; ties go to the first target. At most R targets are made. ``step`` is ``max(1, R // count)``.

    A value is the target PLUS the mean of the tokens that went to it, not the mean of all of them: it is about twice as
    long as a token. That is the authors' definition; a target that nothing went to stays as it is.
    """
    total = len(features)
    count = min(count, total)
    if count == 0:
        return Contextual(
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(total, dtype=torch.int64),
            torch.zeros((0, features.shape[1]), dtype=torch.float32),
        )
    targets = torch.arange(count) * max(1, total // count)
    unit = keys.float()
    unit = unit / norms(unit).unsqueeze(1)
    groups = _nearest(unit, unit[targets])
    groups[targets] = torch.arange(count)
    others = torch.ones(total, dtype=torch.bool)
    others[targets] = False
    into, rows = groups[others], features[others].float()
    members = torch.bincount(into, minlength=count).clamp_min(1)
    sums = torch.zeros((count, features.shape[1])).index_add_(0, into, rows)
    return Contextual(targets, groups, features[targets].float() + sums / members.unsqueeze(1))


def _nearest(unit: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The target with the largest product with each row: int64 (R,); some rows at a time."""
    parts = unit.split(max(1, ENTRIES_AT_A_TIME // len(targets)))
    # numpy's argmax takes the first of equals by contract; torch leaves it open.
    return torch.cat([torch.from_numpy((part @ targets.T).numpy().argmax(axis=1)) for part in parts])
