"""Find the items of a cache that look like one of them: nothing is decoded, and no model runs.

    tokcli compress videos/ -o cache --method dtd
    python docs/examples/search.py cache videos/cat.mp4

Each token of that item looks for its nearest ones in all others. The score of an item is the mean, over the tokens that
looked, of the nearest that it has (as ColBERT does with words: arXiv:2004.12832, section 3.3). The second beside it is
where most of them are.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict

import faiss
import torch

import tokcli

NEIGHBOURS = 64
"""That each token looks for; an item that has none of them counts as 0 for it."""


def directions(tokens: torch.Tensor) -> torch.Tensor:
    """float32 (N, D) of length 1."""
    return torch.nn.functional.normalize(tokens.float(), dim=-1)


def search(cache_path: str, item_id: str, count: int = 5) -> list[tuple[float, str, float]]:
    """(score, id, second) of the items that are most like this one, without itself."""
    cache = tokcli.open_cache(cache_path)
    asked = cache[item_id].kept.tokens
    index = faiss.IndexFlatIP(asked.shape[1])  # exact; for many millions of tokens: IndexHNSWFlat
    places: list[tuple[str, int]] = []  # of each token of the index
    for block in cache.blocks():
        for name, first, end in zip(block.ids, block.starts, block.starts[1:]):
            if name != item_id:
                index.add(directions(block.tokens[first:end]).numpy())
                places += [(name, step) for step in block.coords[first:end, 1].tolist()]
    scores: dict[str, float] = defaultdict(float)
    steps: dict[str, Counter[int]] = defaultdict(Counter)
    similarities, found = index.search(directions(asked).numpy(), min(NEIGHBOURS, len(places)))
    for token_similarities, token_found in zip(similarities.tolist(), found.tolist()):
        nearest: dict[str, tuple[float, int]] = {}
        for similarity, number in zip(token_similarities, token_found):  # the nearest first
            name, step = places[number]
            nearest.setdefault(name, (similarity, step))
        for name, (similarity, step) in nearest.items():
            scores[name] += similarity / len(asked)
            steps[name][step] += 1
    best = sorted(scores, key=lambda name: scores[name], reverse=True)[:count]
    seconds = {name: cache.metadata(name)["seconds_per_step"] or 0.0 for name in best}
    return [(scores[name], name, steps[name].most_common(1)[0][0] * seconds[name]) for name in best]


if __name__ == "__main__":
    for score, name, second in search(*sys.argv[1:3]):
        print(f"{score:.3f}  {second:6.1f} s  {name}")
