"""Some methods for stills written down plainly, as their authors' code computes them, to be timed in the same run.

Each makes what it needs first and gives the call to be timed: choosing or merging the tokens of five pictures of 576
and copying what is kept, a tenth if not said otherwise. None of it looks where tokens belong, or whether they are
finite.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import adaptive_avg_pool2d

PICTURES = 5
HEADS = 16
PLACES = 576
DIM = 1024
KEPT = PICTURES * PLACES // 10


def _attention() -> torch.Tensor:
    """(5, 16, 576): what [CLS] of each picture attends to."""
    return torch.rand((PICTURES, HEADS, PLACES))


def fastervlm() -> Callable[[], object]:
    """The best 58 of each picture by the mean over heads, in their order."""
    attention, tokens = _attention(), torch.randn((PICTURES, PLACES, DIM))

    def run() -> torch.Tensor:
        best = attention.mean(dim=1).topk(58, dim=1).indices
        return tokens[torch.zeros((PICTURES, PLACES), dtype=torch.bool).scatter_(1, best, True)]

    return run


def hired() -> Callable[[], object]:
    """A fifth: half of it for the whole picture, the rest for 2 x 2 tiles by where the whole draws attention."""
    first, last, tokens = _attention(), _attention(), torch.randn((PICTURES, PLACES, DIM))

    def run() -> torch.Tensor:
        total = int(PICTURES * PLACES * 0.2)
        whole = min(int(total * 0.5), PLACES)
        parts = min(total - whole, (PICTURES - 1) * PLACES)
        early, late = first.sum(dim=1), last.sum(dim=1)
        marked = torch.zeros(PLACES).index_fill_(0, early[0].topk(PLACES // 2).indices, 1)
        drawn = marked.view(PICTURES - 1, -1).sum(dim=1)
        budgets = [whole, *(drawn / drawn.sum() * parts).int().clamp_max(PLACES).tolist()]
        keep = torch.zeros((PICTURES, PLACES), dtype=torch.bool)
        for picture, budget in enumerate(budgets):
            keep[picture, late[picture].topk(budget).indices] = True
        return tokens[keep]

    return run


def divprune() -> Callable[[], object]:
    """The token farthest from its neighbour, then again and again the one farthest from all that are chosen."""
    tokens = torch.randn((PICTURES * PLACES, DIM))

    def run() -> torch.Tensor:
        unit = tokens / tokens.norm(dim=-1, keepdim=True)
        distances = 1.0 - unit @ unit.T
        chosen = torch.zeros(KEPT, dtype=torch.int64)
        for number in range(KEPT):
            if number:
                nearest = distances.index_select(0, chosen[:number]).amin(dim=0)
            else:
                nearest = distances.topk(2, dim=0, largest=False).values[1]
            chosen[number] = nearest.argmax()
        return tokens[chosen.sort().values]

    return run


def textmonkey() -> Callable[[], object]:
    """Those least like any token behind them."""
    tokens = torch.randn((PICTURES * PLACES, DIM))

    def run() -> torch.Tensor:
        unit = tokens / tokens.norm(dim=-1, keepdim=True)
        cosines = unit @ unit.T
        cosines = cosines - 2 * torch.tril(torch.ones_like(cosines))
        order = cosines.max(dim=-1).values.argsort(descending=True)
        return tokens[order[-KEPT:].sort().values]

    return run


def holov() -> Callable[[], object]:
    """By attention, as many of each of 16 strips as its attention and spread say."""
    attention, tokens = torch.rand(PICTURES * PLACES), torch.randn((PICTURES * PLACES, DIM))

    def run() -> torch.Tensor:
        places = torch.arange(len(tokens)).tensor_split(16)
        scores = torch.zeros(len(places))
        for number, strip in enumerate(places):
            unit = tokens[strip] / (tokens[strip].norm(dim=1, keepdim=True) + 1e-6)
            likeness = (unit @ unit.T) * (1 - torch.eye(len(strip)))
            means = likeness.sum(dim=1) / (len(strip) - 1)
            spread = (likeness - means.unsqueeze(1)).square().sum(dim=1) / (len(strip) - 1)
            loud = 1000 * attention[strip]
            spread = spread * loud.abs().mean() / (spread.abs().mean() + 1e-6)
            scores[number] = (loud + 0.09 * spread).mean()
        shares = scores / (scores.sum() + 1e-6)
        budgets = (shares * KEPT).int()
        budgets[shares.topk(KEPT - int(budgets.sum())).indices] += 1
        best = [strip[attention[strip].topk(int(k)).indices] for strip, k in zip(places, budgets)]
        return tokens[torch.cat(best)]

    return run


def vispruner() -> Callable[[], object]:
    """A ninth of each picture: half by attention, half what is left when the most alike of the others have gone."""
    attention, tokens = _attention().mean(dim=1), torch.randn((PICTURES, PLACES, DIM))

    def run() -> torch.Tensor:
        return torch.cat([picture[_half_diverse(scores, picture)] for scores, picture in zip(attention, tokens)])

    return run


def _half_diverse(scores: torch.Tensor, tokens: torch.Tensor, count: int = 64) -> torch.Tensor:
    order = scores.argsort(descending=True)
    important, rest = order[: count // 2], order[count // 2 :]
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    while (r := min(8, len(rest) - count // 2)) > 0:
        sources, others = rest[::2], rest[1::2]
        alike = (unit[sources] @ unit[others].T).max(dim=-1).values
        rest = torch.cat([sources[alike.argsort(descending=True)[r:]], others])
    return torch.cat([important, rest]).sort().values


def expedit() -> Callable[[], object]:
    """54 x 54 tokens to 18 x 16 clusters, five times over, each token among the clusters around it."""
    tokens = torch.randn((54, 54, DIM))

    def run() -> torch.Tensor:
        flat = tokens.flatten(0, 1)
        centres = adaptive_avg_pool2d(tokens.permute(2, 0, 1), (18, 16)).flatten(1).T
        rows, columns = torch.arange(54) * 18 // 54, torch.arange(54) * 16 // 54
        y, x = rows.repeat_interleave(54).unsqueeze(1), columns.repeat(54).unsqueeze(1)
        down, across = torch.arange(18).repeat_interleave(16), torch.arange(16).repeat(18)
        barred = (((y - down).abs() > 2) | ((x - across).abs() > 2)) * 1e16
        for _ in range(5):
            squared = flat.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * flat @ centres.T
            shares = torch.softmax(-0.01 * (squared + barred), dim=1)
            centres = shares.T @ flat / shares.sum(dim=0).clamp_min(1e-16).unsqueeze(1)
        return centres

    return run


def ppe() -> Callable[[], object]:
    """The means of the clusters around dense tokens far from denser ones."""
    tokens = torch.randn((PICTURES * PLACES, DIM))

    def run() -> torch.Tensor:
        distances = torch.cdist(tokens, tokens) / DIM**0.5
        density = (-distances.topk(5, dim=-1, largest=False).values.square().mean(dim=-1)).exp()
        denser = density.unsqueeze(0) > density.unsqueeze(1)
        far = torch.where(denser, distances, distances.max()).amin(dim=-1)
        centres = (far * density).topk(KEPT).indices
        labels = distances[centres].argmin(dim=0)
        labels[centres] = torch.arange(KEPT)
        members = torch.zeros(KEPT).index_add_(0, labels, torch.ones(len(labels))) + 1e-6
        return torch.zeros((KEPT, DIM)).index_add_(0, labels, tokens / members[labels].unsqueeze(1))

    return run


def folder() -> Callable[[], object]:
    """2,880 tokens folded to 288; what they are compared by is merged along with them."""
    tokens = torch.randn((1, PICTURES * PLACES, DIM))

    def run() -> torch.Tensor:
        merged, metric, sizes = tokens, tokens, torch.ones((1, PICTURES * PLACES, 1))
        left = PICTURES * PLACES * 9 // 10
        while left:
            r = min(left, (merged.shape[1] - 1) // 2)
            unit = metric / metric.norm(dim=-1, keepdim=True)
            best, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(dim=-1)
            order = best.argsort(dim=-1, descending=True)
            merge = partial(_merged, order=order, partner=partner, r=r)
            after = merge(sizes)
            merged, metric, sizes = merge(merged * sizes) / after, merge(metric * sizes) / after, after
            left -= r
        return merged * (1 + sizes.log())

    return run


def _merged(values: torch.Tensor, order: torch.Tensor, partner: torch.Tensor, r: int) -> torch.Tensor:
    """The sums of (1, n, W) values along a matching, in the order that they had."""
    goes, stays = order[:, :r], order[:, r:]
    sources, targets = values[:, ::2], values[:, 1::2]
    moved, kept = (sources.gather(1, some.unsqueeze(2).expand(-1, -1, values.shape[2])) for some in (goes, stays))
    into = partner.gather(1, goes).unsqueeze(2).expand_as(moved)
    places = torch.cat([2 * stays[0], 2 * torch.arange(targets.shape[1]) + 1])
    return torch.cat([kept, targets.scatter_reduce(1, into, moved, "sum")], dim=1)[:, places.argsort()]
