"""Regions of a picture whose neighbouring squares look alike, as ShowUI (arXiv:2411.17465) and FocusUI find them."""

from __future__ import annotations

import torch


def components(grid: tuple[int, int], right: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """The region of each place of an (h, w) grid: int64 (h * w,), numbered from 0 by the regions' roots.

    ``right``, ``below``: bool (h * w,), whether a place is one region with the place to its right, and below it. What
    they say at the borders does not matter. Regions grow as in ShowUI's code: the root of the neighbour's region is
    hung below that of the place, so a root need not be the first place of its region.
    """
    height, width = grid
    parents = list(range(height * width))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    to_right, to_below = right.view(height, width).clone(), below.view(height, width).clone()
    to_right[:, -1], to_below[-1] = False, False
    links = torch.stack([to_right, to_below], dim=-1).flatten()
    for link in torch.nonzero(links).flatten().tolist():
        place, downwards = divmod(link, 2)
        parents[root(place + (width if downwards else 1))] = root(place)
    roots = torch.tensor([root(place) for place in range(height * width)])
    return torch.unique(roots, return_inverse=True)[1]
