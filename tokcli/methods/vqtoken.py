"""VQToken: a whole video as a small codebook and an index map."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.options import SeededOptions, VariantOptions
from tokcli.methods.output import merge, unmerged
from tokcli.ops.directions import (
    DirectionGroups,
    Directions,
    cosine_kmeans,
    farthest_first,
    plus_plus,
    without_empty,
)
from tokcli.types import TokenSet, VisualTokens

FEWEST = 12
"""The smallest codebook that the search for an elbow tries."""

TOLERANCE = 1e-4


class VqtokenOptions(VariantOptions, SeededOptions, SizeBudget):
    max_codes: int = Field(
        default=32, ge=FEWEST + 2, description="Largest codebook to try where no budget is given; the smallest is 12."
    )
    start: Literal["farthest", "k-means++"] = Field(
        default="farthest",
        description="First centroids: each token the farthest from those before it, or drawn with the seed as the "
        "authors do.",
    )
    max_iterations: int = Field(default=100, ge=1, description="Most iterations of k-means.")
    rescale: Literal["mean_norm", "none"] = Field(
        default="mean_norm",
        description="Length of the codes: the mean length of the tokens that each stands for, or below 1 as in the "
        "paper, for a language model that was trained on it.",
    )


@method(
    "vqtoken",
    options=VqtokenOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2503.16980",
    code="Hai-chao-Zhang/VQToken @ 019f89fd",
    licence="BSD-3-Clause",
    golden=("vqtoken_kmeans", "vqtoken_elbow", "vqtoken_adaptive"),
    variants={
        "official": "the elbow is read 9 codes too low (at most 22 of 32, mostly 12), and codes that no token chose "
        "are left out",
        "fixed": "the elbow is where the distortion bends, and a code that no token chose becomes the token that its "
        "own code fits worst",
    },
)
def vqtoken(visual: VisualTokens, options: VqtokenOptions, generator: np.random.Generator) -> TokenSet:
    """Replace the whole item by a codebook of a few vectors and a map from each place to its code.

    All tokens, of all steps and views together, are clustered by cosine k-means. A code is the mean of the unit
    vectors of its tokens, and stands at the token that is most like it; the index map is the stored assignment, from
    which a loader can fill the grid again. Made for 12 to 32 codes an item: the time grows with their number, so a
    share of a long video is slow. A budget that covers all tokens leaves them as they are.

    Without a budget the number of codes is found by the item: k-means with 12 up to ``max_codes`` codes, and the
    number where the distortion bends most. The first centroids are chosen without chance, so that each try differs
    from the one before by one centroid; ``start=k-means++`` draws them with ``seed``.

    The authors feed codes that are shorter than 1 to a language model that they trained on them; other models have
    seen tokens of a length of tens, hence ``rescale``. Left out: VQ-attention, which needs the authors' trained
    weights, and their 'silhouette' rule, which does not depend on the clusters and always gives 12. A token of zeros
    has cosine 0 with every code (the authors' code returns NaN).
    """
    rows = torch.nonzero(~visual.structural).flatten()
    wanted = _codes_wanted(options, visual)
    if wanted is not None and wanted >= len(rows):
        return unmerged(visual)
    directions = Directions(visual.tokens if len(rows) == len(visual) else visual.tokens[rows])
    counts = [wanted] if wanted is not None else list(range(FEWEST, min(options.max_codes, len(rows)) + 1))
    first = _start(directions, options, counts[-1], generator)
    tries = [_cluster(directions, first[:count], options) for count in counts]
    centroids, groups = tries[0]
    if len(tries) > 1:
        distortions = [means.distortion(codes) for codes, means in tries]
        centroids, groups = tries[best_count(distortions, options.variant) - FEWEST]
    return _codebook(visual, rows, directions, centroids, groups, options)


def _codes_wanted(options: VqtokenOptions, visual: VisualTokens) -> int | None:
    """The number of codes, None where it is to be searched for."""
    available = int((~visual.structural).sum())
    if options.budget_given:
        return rows_to_keep("vqtoken", options, visual)
    return min(available, FEWEST) if available < FEWEST + 2 else None


def _start(directions: Directions, options: VqtokenOptions, count: int, generator: np.random.Generator) -> torch.Tensor:
    """First centroids, float32 (count, D); those of a smaller codebook are the first of them."""
    if options.start == "k-means++":
        return directions.at(plus_plus(directions, count, generator))
    return directions.at(farthest_first(directions, count))


def _cluster(
    directions: Directions, start: torch.Tensor, options: VqtokenOptions
) -> tuple[torch.Tensor, DirectionGroups]:
    return cosine_kmeans(directions, start, max_iterations=options.max_iterations, tolerance=TOLERANCE)


def best_count(distortions: npt.ArrayLike, variant: Literal["official", "fixed"] = "fixed") -> int:
    """The size of the codebook where the distortions of 12, 13, ... codes, at least three, bend most.

    That is in the middle of the largest second difference, the first of several.
    """
    bend = int(np.argmax(np.diff(np.asarray(distortions, dtype=np.float64), n=2)))
    if variant == "official":
        # The place in the list is taken for a number of codes.
        return max(bend + 4, FEWEST)
    return FEWEST + bend + 1


def _codebook(
    visual: VisualTokens,
    rows: torch.Tensor,
    directions: Directions,
    centroids: torch.Tensor,
    groups: DirectionGroups,
    options: VqtokenOptions,
) -> TokenSet:
    """The result: ``rows`` are those of ``visual`` that were clustered."""
    closeness = directions.closeness(centroids, groups.labels)
    count = len(centroids) if options.variant == "fixed" else len(groups.labels.unique())
    codes, members = without_empty(closeness, groups.labels, count)
    final = DirectionGroups(directions, len(members), centroids.shape[1])
    final.move(codes)
    values = final.means()
    if options.rescale == "mean_norm":
        lengths = torch.bincount(codes, weights=directions.norms.double()) / final.sizes
        values = torch.nn.functional.normalize(values, dim=1) * lengths.float().unsqueeze(1)
        # A token alone in its group is given back as it was, not as rounding leaves it.
        alone = final.sizes == 1
        values[alone] = visual.tokens[rows[members[alone]]].float()
    labels = torch.full((len(visual),), -1, dtype=torch.int64)
    labels[rows] = codes
    return merge(visual, labels, rows[members], values=values)
