"""The encoder loop: media in, token cache out. Read ``Run.run`` first."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import torch

from tokcli.cache import CacheWriter, ErrorRow, open_cache
from tokcli.cache.records import clean_text
from tokcli.errors import CacheError, MethodError, TokcliError
from tokcli.media import hash_file
from tokcli.pipeline.decoder_pool import DecoderPool, Event
from tokcli.pipeline.lanes import EncoderLanes, EncodingJob
from tokcli.pipeline.messages import Chunk, Failed, Finished, Opened, Stage
from tokcli.pipeline.preflight import Job, check_request, load_job
from tokcli.pipeline.progress import CompressSummary, Observer, Progress, Silent, describe_method
from tokcli.pipeline.session import ItemSession, torch_dtype
from tokcli.recipe import CompressRecipe
from tokcli.types import MediaItem

POLL_SECONDS = 0.5
ENCODING_POLL_SECONDS = 0.005
ITEM_ERRORS = (TokcliError, torch.OutOfMemoryError, MemoryError, RuntimeError, ValueError)
MAX_ATTEMPTS = 2
DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
# When nothing but failures comes out of the encoder, the fault is ours or the machine's, not the files'.
MAX_ENCODER_FAILURES_IN_A_ROW = 10


def compress(recipe: CompressRecipe, observer: Observer | None = None) -> CompressSummary:
    """Bring every input of the recipe into its cache, resuming what an earlier run began.

    A file that cannot be used becomes an error row and costs nothing else. Raises ``UsageError`` before any work
    for what cannot work, ``CacheConflictError`` for a cache with another configuration, ``CacheError`` when the cache
    cannot be written; whatever was committed until then stays intact.
    """
    request = check_request(recipe)
    # Decoder processes start while the tower loads: both take seconds, mostly of imports.
    with DecoderPool(request.workers, recipe.timeout) as pool:
        job = load_job(request)
        pool.configure(job.decode)
        return run_job(job, pool, observer or Silent())


def run_job(job: Job, pool: DecoderPool, observer: Observer) -> CompressSummary:
    """Bring the job's inputs into its cache, with decoders that are configured for it."""
    recipe = job.recipe
    with CacheWriter(Path(recipe.output), job.manifest, overwrite=recipe.overwrite) as writer:
        run = Run(job, writer, pool, observer)
        # Whatever ends the run, Ctrl-C too: leaving the writer commits the items that are whole.
        run.run()
        writer.finish(run.expected_ids())
    return _summary(job, run.progress)


class Run:
    """One pass over the items that are not in the cache yet."""

    def __init__(self, job: Job, writer: CacheWriter, pool: DecoderPool, observer: Observer) -> None:
        self.job, self.writer, self.pool, self.observer = job, writer, pool, observer
        self.progress = Progress(items=len(job.scan.items) + len(job.scan.failures))
        self.sessions: dict[str, ItemSession] = {}
        self.retries: deque[tuple[MediaItem, int]] = deque()
        self.encoder_failures = 0
        self.failed_ids: set[str] = set()
        self.jobs: deque[EncodingJob] = deque()
        self.lanes = EncoderLanes(job.tower.device)
        self.work_began: float | None = None
        """Monotonic seconds of the first assignment: what comes before is starting up."""

    def expected_ids(self) -> list[str]:
        return [item.id for item in self.job.scan.items] + [failure.id for failure in self.job.scan.failures]

    def run(self) -> None:
        self._record_scan_failures()
        # Longest first: a long file that starts last would leave the other decoders idle at the end.
        waiting = deque(sorted(self._pending(), key=lambda item: -item.size_bytes))
        self.progress.bytes_total = sum(item.size_bytes for item in waiting)
        self.observer.begin(self.progress, self._notes())
        decoders = self.pool.decoders
        try:
            while waiting or self.retries or self.jobs or any(decoder.item for decoder in decoders):
                self._assign(waiting)
                for event in self.pool.poll(self._patience()):
                    self._receive(event)
                # Whoever has finished gets its next file before this process does anything that takes time.
                self._assign(waiting)
                while self.jobs and self.jobs[0].ready:
                    self._handle(self.jobs.popleft())
                self.progress.current = [decoder.item.id for decoder in decoders if decoder.item]
                self.observer.update(self.progress)
        finally:
            self.lanes.close()
            for session in self.sessions.values():
                session.close()

    def _patience(self) -> float:
        return ENCODING_POLL_SECONDS if self.jobs else POLL_SECONDS

    def _notes(self) -> list[str]:
        model, method = self.job.tower.identity, self.job.compressor
        return [
            f"model {model['model']} ({model['family']}, {model['dtype']})",
            f"method {describe_method(method.to_json())}",
            f"tokens stored as {self.job.tokens_dtype} in {self.job.recipe.output}",
            *self._passed_over(),
        ]

    def _passed_over(self) -> list[str]:
        count = self.job.scan.passed_over
        return [f"passed over in folders: {count}, not media by their names"] if count else []

    def _record_scan_failures(self) -> None:
        for failure in self.job.scan.failures:
            self.progress.failed += 1
            self.observer.failure(failure.id, "scan", failure.message)
            if self.writer.state(MediaItem(failure.id, failure.path, 0, 0), lambda: "") != "new":
                # Its error stands there already; or its tokens do, and a file that is gone must not take them along.
                continue
            self.writer.fail(ErrorRow(failure.id, failure.path, "scan", "ManifestError", failure.message))

    def _pending(self) -> list[MediaItem]:
        pending = []
        for item in self.job.scan.items:
            state = self.writer.state(item, lambda item=item: hash_file(item.path))  # type: ignore[misc]
            if state == "done":
                self.progress.skipped += 1
            elif state == "failed" and not self.job.recipe.retry_errors:
                self.progress.failed += 1
            else:
                pending.append(item)
        return pending

    def _assign(self, waiting: deque[MediaItem]) -> None:
        for decoder in self.pool.idle():
            self.work_began = self.work_began or time.monotonic()
            if self.retries:
                decoder.assign(*self.retries.popleft())
            elif waiting:
                decoder.assign(waiting.popleft(), attempt=1)

    def _receive(self, event: Event) -> None:
        """Open sessions and start encoding as soon as messages come; what depends on order waits for its turn."""
        item, message, tokens = event.item, event.message, None
        try:
            if isinstance(message, Opened):
                self.sessions[item.id] = self._open(item, message)
            elif event.pixels is not None and item.id in self.sessions:
                tokens = self.lanes.submit(self.sessions[item.id].prepare(event.pixels))
        except ITEM_ERRORS as error:
            self._encode_failed(event, error)
        self.jobs.append(EncodingJob(event, tokens))

    def _handle(self, job: EncodingJob) -> None:
        """One message in its turn. Whatever goes wrong with an item ends that item only."""
        event, item, message = job.event, job.event.item, job.event.message
        try:
            if isinstance(message, Failed):
                self._close_session(item)
                self._decode_failed(event, message)
            elif item.id in self.sessions:  # else the encoder has given it up: let its decoder run out
                if isinstance(message, Chunk) and job.tokens is not None:
                    self.sessions[item.id].collect(job.tokens.result(), message)
                elif isinstance(message, Finished):
                    self._complete(item, message)
        except CacheError:
            raise
        except ITEM_ERRORS as error:
            self._encode_failed(event, error)
        finally:
            job.wait()
            event.release()

    def _open(self, item: MediaItem, opened: Opened) -> ItemSession:
        dtype = torch_dtype(self.job.tokens_dtype)
        return ItemSession(item, opened, self.job.tower, self.job.compressor, Path(self.job.recipe.output), dtype)

    def _complete(self, source: MediaItem, finished: Finished) -> None:
        item = self.sessions[source.id].finish(finished)
        self.writer.write(item)
        for message in finished.warnings:
            self.observer.warning(item.id, message)
        if item.bad_packets:
            self.observer.warning(item.id, f"{item.bad_packets} damaged packets skipped")
        progress = self.progress
        progress.done += 1
        progress.bytes_done += item.source_bytes
        progress.media_seconds += item.duration_seconds
        progress.source_tokens += item.source_tokens
        progress.kept_tokens += len(item.kept)
        self.encoder_failures = 0
        self._close_session(source)

    def _close_session(self, item: MediaItem) -> None:
        session = self.sessions.pop(item.id, None)
        if session is not None:
            session.close()

    def _decode_failed(self, event: Event, failed: Failed) -> None:
        if event.item.id in self.failed_ids:  # the encoder gave it up before its decoder did
            return
        if failed.retry and event.attempt < MAX_ATTEMPTS:
            self.retries.append((event.item, event.attempt + 1))
            return
        self._fail(event.item, failed.stage, failed.error_class, failed.message, event.attempt, failed.log_tail)

    def _encode_failed(self, event: Event, error: Exception) -> None:
        stage: Stage = "method" if isinstance(error, MethodError) else "encode"
        message = " ".join(str(error).split()) or type(error).__name__
        self._close_session(event.item)
        self.encoder_failures += 1
        self._fail(event.item, stage, type(error).__name__, message, event.attempt)
        if self.encoder_failures >= MAX_ENCODER_FAILURES_IN_A_ROW:
            raise TokcliError(
                f"{self.encoder_failures} items in a row failed in the encoder; the last: {message}"
            ) from error

    def _fail(
        self, item: MediaItem, stage: Stage, error_class: str, message: str, attempts: int, log_tail: str = ""
    ) -> None:
        self.failed_ids.add(item.id)
        self.progress.failed += 1
        self.progress.bytes_done += item.size_bytes
        self.observer.failure(item.id, stage, message)
        self.writer.fail(
            ErrorRow(
                item.id,
                item.path,
                stage,
                error_class,
                message,
                attempts=attempts,
                log_tail=log_tail,
                source_bytes=item.size_bytes,
                source_modified_ns=item.modified_ns,
            )
        )
        if self.job.recipe.on_error == "fail":
            raise TokcliError(f"{item.id}: {message} (stopped because of --on-error fail)")


def _summary(job: Job, progress: Progress) -> CompressSummary:
    cache = open_cache(job.recipe.output)
    columns = ("source_tokens", "kept_tokens", "source_bytes", "duration_seconds")
    table = cache.table(columns=["id", *columns])
    wanted = {clean_text(item.id) for item in job.scan.items}
    rows = [row for row in table.to_pylist() if row["id"] in wanted]
    source_tokens, kept_tokens, source_bytes, seconds = (sum(row[name] for row in rows) for name in columns)
    return CompressSummary(
        items=progress.items,
        done=progress.done,
        failed=progress.failed,
        skipped=progress.skipped,
        source_tokens=source_tokens,
        kept_tokens=kept_tokens,
        token_bytes=source_tokens * job.tower.identity["hidden_size"] * DTYPE_BYTES[job.tokens_dtype],
        source_bytes=source_bytes,
        cache_bytes=cache.stats()["cache_bytes"],
        media_seconds=round(seconds, 3),
        seconds=round(progress.seconds, 3),
        output=str(job.recipe.output),
        method=job.compressor.to_json(),
        model=job.tower.identity["model"],
    )
