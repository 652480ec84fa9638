"""Cache in, smaller cache out: methods run on stored tokens, no media and no vision tower. Read ``derive`` first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import torch

from tokcli.cache import ErrorRow, open_cache
from tokcli.errors import CacheError, TokcliError
from tokcli.pipeline.compress import ITEM_ERRORS
from tokcli.pipeline.derivation import DeriveJob, check_derivation
from tokcli.pipeline.preflight import available_cores
from tokcli.pipeline.progress import CompressSummary, Observer, Progress, Silent, describe_method
from tokcli.pipeline.targets import Output, summarize
from tokcli.recipe import DeriveRecipe
from tokcli.types import EncodedItem, MediaItem

# Each lane holds an item with all its tokens.
MAX_LANES = 8
OWN_STAGE = "method"
"""The stage of failures that happen here; all others are the source cache's, carried over."""


def derive(recipe: DeriveRecipe, observer: Observer | None = None) -> CompressSummary:
    """Make another cache of every item of the recipe's cache, resuming what an earlier run began.

    Tokens, coordinates and provenance are bit for bit those of compressing the media, and so is the configuration in
    the manifest: either command goes on with what the other began. Items that failed in the source fail here.

    Raises ``UsageError`` or ``MethodError`` before any work for what cannot be derived, with the reason;
    ``CacheConflictError`` for an output with another configuration; ``CacheError`` for a cache that cannot be read or
    written.
    """
    job = check_derivation(recipe)
    with ExitStack() as stack:
        outputs = [
            Output(one.target, stack.enter_context(one.target.open(recipe.overwrite))) for one in job.derivations
        ]
        run = _Run(job, outputs, observer or Silent())
        run.run()
        for output in outputs:
            if job.source.complete:
                expected = [*job.ids, *(row.id for row in job.failures)]
                if recipe.limit is None:
                    output.look_for_removed(expected, recipe.prune)
                output.writer.finish(expected)
    return summarize(outputs, run.progress.items, job.ids, run.progress.seconds)


class _Run:
    """One pass over the items that are not in all outputs yet."""

    def __init__(self, job: DeriveJob, outputs: Sequence[Output], observer: Observer) -> None:
        self.job, self.outputs, self.observer = job, list(outputs), observer
        self.progress = Progress(items=len(job.items) + len(job.failures))
        self.by_target = {one.target: one for one in job.derivations}

    def run(self) -> None:
        for row in self.job.failures:
            self._carry_over(row)
        due = self._due()
        self.progress.expect([item.size_bytes for item, _ in due])
        self.observer.begin(self.progress, self._notes())
        for item, outputs, made in self._made(due):
            self.progress.current = [item.id]
            self._take(item, outputs, made)
            self.observer.update(self.progress)

    def _notes(self) -> list[str]:
        configuration = self.job.source.manifest.configuration
        notes = [f"from {self.job.source.path}: {describe_method(configuration['method'])}, no media and no tower"]
        for output in self.outputs:
            target = output.target
            notes.append(f"method {describe_method(target.compressor.to_json())}")
            notes.append(f"tokens stored as {target.tokens_dtype} in {target.folder}")
        if rounded := self.outputs[0].target.manifest.configuration.get("method_dtype"):
            notes.append(
                f"the source stores {rounded}, its tower computed {configuration['model']['dtype']}: methods see "
                "rounded tokens, and near ties they may choose otherwise than from the media; the manifest says so"
            )
        if not self.job.source.complete:
            notes.append(f"{self.job.source.path} is not complete: run this again when it is, to add the rest")
        return notes

    def _carry_over(self, row: ErrorRow) -> None:
        self.progress.failed += 1
        self.observer.failure(row.id, row.stage, f"{row.message} (in {self.job.source.path})")
        item = MediaItem(row.id, row.path, row.source_bytes, row.source_modified_ns)
        for output in self.outputs:
            output.failed += 1
            if output.writer.state(item, lambda: "") != "failed":
                output.writer.fail(row)

    def _due(self) -> list[tuple[MediaItem, list[Output]]]:
        carried = [_carried_failures(output) for output in self.outputs]
        due = []
        for item in self.job.items:
            missing, failed = [], False
            for output, old in zip(self.outputs, carried):
                retry = self.job.recipe.retry_errors or item.id in old
                before = output.failed
                if output.is_due(item, lambda item_id=item.id: self.job.hashes[item_id], retry):  # type: ignore[misc]
                    missing.append(output)
                failed |= output.failed > before
            if missing:
                due.append((item, missing))
            elif failed:
                self.progress.failed += 1
            else:
                self.progress.skipped += 1
        return due

    def _made(
        self, due: Sequence[tuple[MediaItem, list[Output]]]
    ) -> Iterator[tuple[MediaItem, list[Output], list[EncodedItem | Exception]]]:
        """Items in their order, made in lanes of one thread each: the same bits on any number of cores."""
        lanes = max(1, min(available_cores(), MAX_LANES, len(due)))
        waiting: deque[tuple[MediaItem, list[Output], Future[list[EncodedItem | Exception]]]] = deque()
        with ThreadPoolExecutor(lanes, "tokcli-derive", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for item, outputs in due:
                    waiting.append((item, outputs, pool.submit(self._make, item.id, outputs)))
                    if len(waiting) > lanes:
                        item, outputs, future = waiting.popleft()
                        yield item, outputs, future.result()
                while waiting:
                    item, outputs, future = waiting.popleft()
                    yield item, outputs, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, item_id: str, outputs: Sequence[Output]) -> list[EncodedItem | Exception]:
        item = self.job.source[item_id]
        made: list[EncodedItem | Exception] = []
        for output in outputs:
            try:
                made.append(self.by_target[output.target].make(item))
            except CacheError:
                raise
            except ITEM_ERRORS as error:
                made.append(error)
        return made

    def _take(self, item: MediaItem, outputs: Sequence[Output], made: Sequence[EncodedItem | Exception]) -> None:
        good = None
        failed = False
        for output, result in zip(outputs, made):
            if isinstance(result, EncodedItem):
                output.write(result)
                good = good or result
                continue
            failed = True
            self._fail(item, output, result)
        progress = self.progress
        progress.finish(item.size_bytes)
        progress.failed += failed
        progress.done += not failed
        if good is not None:
            progress.media_seconds += good.duration_seconds
            progress.source_tokens += good.source_tokens
            progress.kept_tokens += len(good.kept)

    def _fail(self, item: MediaItem, output: Output, error: Exception) -> None:
        message = " ".join(str(error).split()) or type(error).__name__
        self.observer.failure(item.id, OWN_STAGE, message)
        row = ErrorRow(item.id, item.path, OWN_STAGE, type(error).__name__, message)
        output.fail(replace(row, source_bytes=item.size_bytes, source_modified_ns=item.modified_ns))
        if self.job.recipe.on_error == "fail":
            raise TokcliError(f"{item.id}: {message} (stopped because of --on-error fail)")


def _carried_failures(output: Output) -> set[str]:
    """Items of the output that failed in the source of that time: worth another look where the source has them now."""
    rows = open_cache(output.target.folder).errors().to_pylist()
    return {row["id"] for row in rows if row["stage"] != OWN_STAGE}
