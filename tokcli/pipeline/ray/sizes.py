"""How large actors are and how many of them a cluster can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokcli.errors import UsageError
from tokcli.recipe import CompressRecipe

MOST_CPUS = 8
"""Of an actor by default: more decoders than one encoder loop needs."""
USED = 0.9
"""Share of all CPUs that the default size of actors has to make use of."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with all that it has, free or not."""

    id: str
    cpus: float
    gpus: float

    def holds(self, cpus: int, gpus: float) -> int:
        """Actors of that size that fit on it."""
        return int(min(self.cpus // cpus, self.gpus // gpus if gpus else self.cpus))


@dataclass(frozen=True)
class Sizes:
    actors: int
    cpus: int
    gpus: float


def plan_sizes(nodes: Sequence[Node], recipe: CompressRecipe, items: int) -> Sizes:
    """What the recipe asks for, else an actor for each GPU; without GPUs actors of up to eight CPUs on all nodes.

    Raises ``UsageError`` where no node can hold one.
    """
    gpus = recipe.actor_gpus
    if gpus is None:
        some = any(node.gpus >= 1 for node in nodes)
        gpus = 1.0 if recipe.device == "cuda" or (some and recipe.device == "auto") else 0.0
    cpus = recipe.actor_cpus or _cpus(nodes, gpus)
    fitting = sum(node.holds(cpus, gpus) for node in nodes)
    if not fitting:
        have = "; ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "no nodes"
        raise UsageError(
            f"no node of the Ray cluster can hold an actor of {cpus} CPUs and {gpus:g} GPUs; the nodes have {have}. "
            "Lower --actor-cpus or --actor-gpus"
        )
    return Sizes(max(1, min(recipe.actors or fitting, items)), cpus, gpus)


def _cpus(nodes: Sequence[Node], gpus: float) -> int:
    """CPUs of an actor: as many as its share of the GPUs of its node, or a number that leaves few of them idle."""
    if gpus:
        return max(1, min((int(node.cpus / (node.gpus // gpus)) for node in nodes if node.gpus >= gpus), default=1))
    total = sum(int(node.cpus) for node in nodes)
    for cpus in range(MOST_CPUS, 1, -1):
        if sum(node.holds(cpus, 0) * cpus for node in nodes) >= USED * total:
            return cpus
    return 1
