"""Options that say where a run works: on this machine, on several of which each does its part, on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from tokcli.cli.options import RUNNING

CLUSTER = "Cluster"
"""Panel of what is for --executor ray."""

Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Do the I-th of N parts of the inputs, 1/N to N/N, all into one folder and at once if you like.",
        rich_help_panel=RUNNING,
    ),
]
Executor = Annotated[str, typer.Option(help="local: on this machine; ray: on a Ray cluster.", rich_help_panel=CLUSTER)]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where it is; local: start one here. (default: $RAY_ADDRESS, one that runs here, or local)",
        rich_help_panel=CLUSTER,
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        help="How many, each with decoders, an encoder and shards of its own. (default: as many as fit)",
        rich_help_panel=CLUSTER,
    ),
]
ActorCpus = Annotated[
    int | None,
    typer.Option(
        help="CPUs of an actor, its decoders. (default: its share beside a GPU, else up to 8)", rich_help_panel=CLUSTER
    ),
]
ActorGpus = Annotated[
    float | None,
    typer.Option(
        help="GPUs of an actor, 0.5 for two on each. (default: 1 where the cluster has any)", rich_help_panel=CLUSTER
    ),
]
