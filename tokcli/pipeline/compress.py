"""The encoder loop: media in, token cache out. Read ``Run.run`` first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

from tokcli.errors import CacheError, MethodError
from tokcli.pipeline.call_size import CallSize
from tokcli.pipeline.decoder import Event
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.fetching import Fetcher
from tokcli.pipeline.keyframing import STEPS_AT_A_TIME
from tokcli.pipeline.lanes import EncoderLanes, EncodingJob
from tokcli.pipeline.ledger import GivenUpError, Ledger
from tokcli.pipeline.messages import Chunk, Failed, Finished, Opened, Stage
from tokcli.pipeline.preflight import Job, check_request, load_job, supervision
from tokcli.pipeline.progress import CompressSummary, Observer, Progress, Silent
from tokcli.pipeline.session import ItemSession
from tokcli.pipeline.settled import run_settled, settled_targets
from tokcli.pipeline.targets import Output, Target, finish, notes_of, summarize
from tokcli.recipe import CompressRecipe
from tokcli.storage import work_folder
from tokcli.types import MediaItem

Result = TypeVar("Result")

# Between two looks at deadlines; whatever becomes ready ends the waiting at once.
POLL_SECONDS = 0.5
# One item never ends a run, whatever a method or a model makes of it; many in a row do, see below.
ITEM_ERRORS = (Exception,)
MAX_ATTEMPTS = 2
# Objects copied before a decoder wants them, beside one for each: a copy takes about as long as decoding.
FETCH_AHEAD = 2
# When nothing but failures comes out of the encoder, the fault is ours or the machine's, not the files'.
MAX_ENCODER_FAILURES_IN_A_ROW = 10


def compress(recipe: CompressRecipe, observer: Observer | None = None) -> CompressSummary:
    """Bring every input of the recipe into its caches, resuming what an earlier run began.

    A file that cannot be used becomes an error row and costs nothing else. Raises ``UsageError`` before any work
    for what cannot work, ``CacheConflictError`` for a cache with another configuration, ``CacheError`` when the cache
    cannot be written; whatever was committed until then stays intact.
    """
    if recipe.executor == "ray":
        from tokcli.pipeline.ray.driver import compress_on_ray

        return compress_on_ray(recipe, observer)
    observer = observer or Silent()
    request = check_request(recipe)
    targets = settled_targets(request)
    if targets is not None and (summary := run_settled(request, targets, observer)) is not None:
        return summary
    # Decoder processes start while the tower loads: both take seconds, mostly of imports.
    with DecoderPool(request.workers, supervision(recipe)) as pool:
        job = load_job(request)
        pool.configure(job.decode)
        return run_job(job, pool, observer)


def run_job(job: Job, pool: DecoderPool, observer: Observer) -> CompressSummary:
    """Bring the job's inputs into its caches, with decoders that are configured for it."""
    recipe = job.recipe
    with ExitStack() as stack:
        writers = [stack.enter_context(target.open(recipe.overwrite, job.part)) for target in job.targets]
        outputs = [Output(target, writer) for target, writer in zip(job.targets, writers)]
        run = Run(job, outputs, pool, observer)
        # Whatever ends the run, Ctrl-C too: leaving the writers commits the items that are whole.
        run.run()
        finish(outputs, recipe, job.scan, job.part)
    return summarize(outputs, run.progress.items, [item.id for item in job.scan.items], run.progress.seconds, job.part)


class Run:
    """One pass over the items that are not in all caches yet."""

    def __init__(self, job: Job, outputs: Sequence[Output], pool: DecoderPool, observer: Observer) -> None:
        self.job, self.pool, self.observer = job, pool, observer
        self.progress = Progress(items=len(job.scan.items) + len(job.scan.failures))
        self.ledger = Ledger(job.recipe, outputs, self.progress, observer)
        self.sessions: dict[str, ItemSession] = {}
        self.retries: deque[tuple[MediaItem, int]] = deque()
        self.failed_in_encoder: set[str] = set()
        """Items that failed there since one came out: one that many methods fail on is one."""
        self.jobs: deque[EncodingJob] = deque()
        self.fetcher = Fetcher(job.decode.limits, ahead=len(pool.decoders) + FETCH_AHEAD, on_ready=pool.wake)
        self.lanes = EncoderLanes(job.tower.device, job.cores, on_ready=pool.wake)
        self.call_size = CallSize(job.tower)
        self.work_began: float | None = None
        """Monotonic seconds of the first assignment: what comes before is starting up."""

    def run(self) -> None:
        # Longest first: a long file that starts last would leave the other decoders idle at the end.
        waiting = sorted(self.ledger.pending(self.job.scan), key=lambda item: -item.size_bytes)
        self.progress.expect([item.size_bytes for item in waiting])
        self.observer.begin(self.progress, notes_of(self.ledger.outputs, self.job.scan, self.job.recipe.prune))
        self.fetcher.add(waiting)
        try:
            while self.busy:
                self.turn()
        finally:
            self.close()

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.fetcher or self.retries or self.jobs or any(decoder.item for decoder in self.pool.decoders))

    def turn(self) -> None:
        """Give work to whoever has none, and take what has come, waiting for it a moment."""
        self._assign()
        for event in self.pool.poll(POLL_SECONDS):
            self._receive(event)
        # Whoever has finished gets its next file before this process does anything that takes time.
        self._assign()
        while self.jobs and self.jobs[0].ready:
            self._handle(self.jobs.popleft())
        for message in self.call_size.news():
            self.observer.warning(self.job.recipe.output, message)
        self.progress.current = [decoder.item.id for decoder in self.pool.decoders if decoder.item]
        self.observer.update(self.progress)

    def close(self) -> None:
        """Stop what is under way."""
        self.lanes.close()
        self.fetcher.close()
        for session in self.sessions.values():
            session.close()

    def _assign(self) -> None:
        for decoder in self.pool.idle():
            self.work_began = self.work_began or time.monotonic()
            if self.retries:
                item, attempt = self.retries.popleft()
                decoder.assign(item, attempt, path=self.fetcher.path_of(item))
            elif (item_path := self._next()) is not None:
                decoder.assign(item_path[0], attempt=1, path=item_path[1])

    def _next(self) -> tuple[MediaItem, str] | None:
        """The next item and where it lies on this machine; those that could not be copied fail on the way."""
        while (ready := self.fetcher.take()) is not None:
            if ready.failed is None:
                if ready.tries > 1:
                    self.observer.warning(ready.item.id, f"read from the server on try {ready.tries}")
                return ready.item, ready.path
            self.fetcher.release(ready.item)
            event = Event(ready.item, ready.tries, ready.failed, None, lambda: None)
            self.ledger.fail(event, list(self.ledger.due[ready.item.id]), ready.failed)
        return None

    def _receive(self, event: Event) -> None:
        """Open sessions and start encoding as soon as messages come; what depends on order waits for its turn."""
        item, message, tokens = event.item, event.message, None
        try:
            if isinstance(message, Opened):
                self.sessions[item.id] = self._open(item, message)
            elif event.pixels is not None and item.id in self.sessions:
                session = self.sessions[item.id]
                steps = -(-len(event.pixels) // self.job.tower.frames_per_step)
                tokens = self.lanes.submit(self._fitting(session, session.prepare(event.pixels), steps))
        except ITEM_ERRORS as error:
            self._encode_failed(event, error)
        self.jobs.append(EncodingJob(event, tokens))

    def _fitting(self, session: ItemSession, call: Callable[[], Result], steps: int) -> Callable[[], Result]:
        return self.call_size.fitting(call, session.info, session.size, steps)

    def _handle(self, job: EncodingJob) -> None:
        """One message in its turn. Whatever goes wrong with an item ends that item only."""
        event, item, message = job.event, job.event.item, job.event.message
        try:
            if isinstance(message, Failed):
                self._close_session(item)
                self._decode_failed(event, message)
            elif item.id in self.sessions:  # else the encoder has given it up: let its decoder run out
                session, failed = self.sessions[item.id], {}
                if isinstance(message, Chunk) and job.tokens is not None:
                    failed = session.collect(event, message, job.tokens.result(), ITEM_ERRORS)
                elif job.tokens is not None:
                    failed = session.collect_chosen(job.tokens.result(), ITEM_ERRORS)
                for target, error in failed.items():
                    self._encode_failed(event, error, [target])
                refusal = self.ledger.refusal(message) if isinstance(message, Finished) else None
                if refusal is not None:
                    self._close_session(item)
                    self._decode_failed(event, refusal)
                elif isinstance(message, Finished) and item.id in self.sessions:
                    self._encode_chosen(event, session)
                    if not session.encoding_on:
                        self._complete(event, message)
        except (CacheError, GivenUpError):
            raise
        except ITEM_ERRORS as error:
            self._encode_failed(event, error)
        finally:
            if isinstance(message, Finished):
                self.fetcher.release(item)
            job.wait()
            event.release()

    def _encode_chosen(self, event: Event, session: ItemSession) -> None:
        """Submit frames that waited for the end of their clip: enough to keep the lanes busy, not all at once."""
        for call in session.chosen_runs(self.lanes.count + 1):
            self.jobs.append(EncodingJob(event, self.lanes.submit(self._fitting(session, call, STEPS_AT_A_TIME))))

    def _open(self, item: MediaItem, opened: Opened) -> ItemSession:
        targets, folder = list(self.ledger.due[item.id]), work_folder(self.job.recipe.output)
        return ItemSession(
            item, opened, self.job.tower, targets, folder, self.job.recipe.reuse_unchanged, self.job.describe
        )

    def _complete(self, event: Event, finished: Finished) -> None:
        session = self.sessions[event.item.id]
        written = None
        for target in session.targets:
            try:
                item = session.finish(target, finished)
                self.ledger.write(target, item)
            except CacheError:
                raise
            except ITEM_ERRORS as error:
                self._encode_failed(event, error, [target])
                continue
            self.failed_in_encoder.clear()
            if written is None:
                written = item
                self.progress.kept_tokens += len(item.kept)
        self._close_session(event.item)
        if written is not None:
            self.ledger.done(written, finished)

    def _close_session(self, item: MediaItem) -> None:
        session = self.sessions.pop(item.id, None)
        if session is not None:
            session.close()

    def _decode_failed(self, event: Event, failed: Failed) -> None:
        targets = list(self.ledger.due[event.item.id])
        if targets and failed.retry and event.attempt < MAX_ATTEMPTS:
            self.retries.append((event.item, event.attempt + 1))
            return
        self.fetcher.release(event.item)
        if not targets:  # the encoder gave it up before its decoder did
            return
        self.ledger.fail(event, targets, failed)

    def _encode_failed(self, event: Event, error: Exception, targets: Sequence[Target] | None = None) -> None:
        """Note a failure of some targets' methods, or of the encoder, which concerns all that miss the item."""
        due = self.ledger.due[event.item.id]
        targets = list(due) if targets is None else targets
        if not targets:
            return
        stage: Stage = "method" if isinstance(error, MethodError) else "encode"
        message = " ".join(str(error).split()) or type(error).__name__
        self.failed_in_encoder.add(event.item.id)
        self.ledger.fail(event, targets, Failed(stage, type(error).__name__, message))
        if not due:
            self._close_session(event.item)
        if len(self.failed_in_encoder) >= MAX_ENCODER_FAILURES_IN_A_ROW:
            raise GivenUpError(
                f"{len(self.failed_in_encoder)} items in a row failed in the encoder; the last: {message}"
            ) from error
