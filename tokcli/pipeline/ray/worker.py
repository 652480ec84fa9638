"""What runs in an actor: decoders, encoder and the writer of a part of every cache. It knows nothing of Ray.

The driver asks for one thing at a time: ``load``, ``open``, any number of ``step``, ``close``.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tokcli
from tokcli.errors import TokcliError, UsageError
from tokcli.pipeline.ray.messages import Loaded, Order, Place, Report, Setup

if TYPE_CHECKING:
    from tokcli.pipeline.decoder_pool import DecoderPool
    from tokcli.pipeline.preflight import Job
    from tokcli.pipeline.ray.stripes import PartRun

STEP_SECONDS = 0.5
"""The longest that the driver waits for news, and a stop for being heard."""


class Worker:
    """One actor's share of a run; nothing heavy is loaded before ``load``."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._stack = ExitStack()
        self._pool: DecoderPool | None = None
        self._job: Job | None = None
        self._run: PartRun | None = None

    def place(self) -> Place:
        """Where this is; raises ``UsageError`` where nothing can be done here."""
        setup, host = self.setup, socket.gethostname()
        if tokcli.__version__ != setup.version:
            raise UsageError(
                f"node {host} has tokcli {tokcli.__version__}, the driver has {setup.version}; install the same on all"
            )
        try:
            os.chdir(setup.folder)
        except OSError as error:
            if _has_relative_paths(setup):
                raise UsageError(
                    f"node {host} cannot enter {setup.folder} ({error.strerror}), where relative paths start; give "
                    "absolute paths of a folder that all nodes share"
                ) from None
        return Place(node="", host=host, pid=os.getpid())

    def load(self) -> Loaded:
        """Load the tower while decoder processes start. Raises what the checks of a local run do."""
        # As the command line does, and before torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from tokcli.media import ScanResult
        from tokcli.pipeline.decoder_pool import DecoderPool
        from tokcli.pipeline.preflight import check_request, load_job, supervision

        recipe = self.setup.recipe
        request = replace(check_request(recipe, ScanResult()), workers=self.setup.decoders)
        pool = self._pool = self._stack.enter_context(DecoderPool(request.workers, supervision(recipe)))
        job = self._job = replace(load_job(request), cores=self.setup.cores)
        pool.configure(job.decode)
        targets = job.targets
        return Loaded(tuple(target.manifest for target in targets), tuple(target.codebook for target in targets))

    def open(self, index: int, count: int, samples: list[str]) -> None:
        """Become the writer of part ``index`` of ``count`` of the caches, which the driver has made.

        Raises ``UsageError`` where this node sees other files than the driver: ``samples`` are some inputs that are
        there.
        """
        from tokcli.pipeline.ray.stripes import PartRun, check_shared

        assert self._job is not None and self._pool is not None
        check_shared(self._job.targets, samples)
        self._run = self._stack.enter_context(PartRun(self._job, self._pool, index, count))

    def step(self, orders: list[Order], low: int, last: bool) -> Report:
        """Work for a moment: until something is done and ``low`` orders are left, at most about ``STEP_SECONDS``.

        With ``last``, commit as soon as nothing is left. Errors that end the run are in the report, along with what was
        done before them.
        """
        run = self._run
        assert run is not None
        error: Exception | None = None
        try:
            run.take(orders)
            until = time.monotonic() + STEP_SECONDS
            while run.busy and time.monotonic() < until and not (run.has_news and len(run.fetcher) <= low):
                run.turn()
            if last and not run.busy:
                run.commit()
        except (TokcliError, OSError) as raised:
            error = raised
        return run.report(error)

    def close(self) -> Report:
        """Commit what is whole, and end the decoders."""
        run = self._run
        self._stack.close()
        return Report() if run is None else run.report(None)


def _has_relative_paths(setup: Setup) -> bool:
    recipe = setup.recipe
    return not all(Path(path).is_absolute() or "://" in path for path in (*recipe.inputs, recipe.output))
