"""A whole run of the local executor, with the moments that measurements are taken between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tokcli.pipeline.compress import Run
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.preflight import Job, check_request, load_job, supervision
from tokcli.pipeline.progress import Progress, Silent
from tokcli.pipeline.targets import Output
from tokcli.recipe import CompressRecipe


@dataclass(frozen=True)
class Moments:
    """Monotonic seconds."""

    began: float
    """Before anything was looked at or started."""
    work_began: float
    """A decoder got the first item."""
    committed: float
    ended: float
    """Decoders are gone too."""
    progress: Progress


def run_locally(recipe: CompressRecipe, prepare: Callable[[Job], None] = lambda job: None) -> Moments:
    """Compress into the one cache of the recipe; ``prepare`` sees what is loaded. A failed item voids it."""
    began = time.monotonic()
    request = check_request(recipe)
    with DecoderPool(request.workers, supervision(recipe)) as pool:
        job = load_job(request)
        prepare(job)
        pool.configure(job.decode)
        (target,) = job.targets
        with target.open() as writer:
            run = Run(job, [Output(target, writer)], pool, Silent())
            run.run()
            writer.commit()
            committed = time.monotonic()
    ended = time.monotonic()
    if run.progress.failed or run.work_began is None:
        raise SystemExit("an item failed: the measurement is void")
    return Moments(began, run.work_began, committed, ended, run.progress)


def cpu_seconds() -> float:
    """Of this process, of its children that have ended, and of those that live with all that they have seen end.

    Decoders are children of the process that they are forked from, which stays.
    """
    this = psutil.Process()
    times = [this.cpu_times(), *(child.cpu_times() for child in this.children())]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))
