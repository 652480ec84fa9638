"""Which caches still miss which items, what failed, and when so much failed that a run should stop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from tokcli.cache import ErrorRow
from tokcli.errors import TokcliError
from tokcli.media import ScanResult, hash_if_readable
from tokcli.pipeline.decoder import Event
from tokcli.pipeline.messages import Failed, Finished
from tokcli.pipeline.progress import Observer, Progress
from tokcli.pipeline.targets import Output, Target
from tokcli.recipe import CompressRecipe
from tokcli.types import EncodedItem, MediaItem

# Shares of fewer items say little: the first three files may all be broken.
ITEMS_FOR_A_RATE = 50

# The share of an item's planned frames that has to be good for --on-error salvage to keep it.
MIN_DECODED = 0.9


class GivenUpError(TokcliError):
    """Ends the run, not only the item in work."""


class Ledger:
    """Counts what is done and what failed in one run, for every cache that it fills."""

    def __init__(
        self, recipe: CompressRecipe, outputs: Sequence[Output], progress: Progress, observer: Observer
    ) -> None:
        self.recipe, self.outputs, self.progress, self.observer = recipe, list(outputs), progress, observer
        self.due: dict[str, dict[Target, Output]] = {}
        """By item: the caches that still miss it, neither written nor failed."""
        self._failed: set[str] = set()
        self._done = 0

    def pending(self, scan: ScanResult) -> list[MediaItem]:
        """The items that some cache misses; inputs that could not even be looked at are noted as failed."""
        for failure in scan.failures:
            self.progress.failed += 1
            self.observer.failure(failure.id, "scan", failure.message)
            for output in self.outputs:
                output.failed += 1
                if output.writer.state(MediaItem(failure.id, failure.path, 0, 0), lambda: "") == "new":
                    # Else its error stands there already; or its tokens do, which a file that is gone must not take
                    # along.
                    output.writer.fail(ErrorRow(failure.id, failure.path, "scan", "ManifestError", failure.message))
        return [item for item in scan.items if self._is_due(item)]

    def _is_due(self, item: MediaItem) -> bool:
        source_hash = cache(partial(hash_if_readable, item.path))
        failed = [output.failed for output in self.outputs]
        due = {
            output.target: output
            for output in self.outputs
            if output.is_due(item, source_hash, self.recipe.retry_errors)
        }
        if due:
            self.due[item.id] = due
        elif failed == [output.failed for output in self.outputs]:
            self.progress.skipped += 1
        else:
            self.progress.failed += 1
        return bool(due)

    def write(self, target: Target, item: EncodedItem) -> None:
        """Give an item to a cache that misses it."""
        self.due[item.id][target].write(item)
        del self.due[item.id][target]

    def done(self, item: EncodedItem, finished: Finished) -> None:
        """Note that an item is in the caches that wanted it, or in some of them."""
        for message in finished.warnings:
            self.observer.warning(item.id, message)
        if finished.damaged:
            self.observer.warning(item.id, damage(finished))
        elif finished.bad_packets:
            self.observer.warning(item.id, f"{finished.bad_packets} damaged packets skipped; no planned frame is lost")
        if item.id not in self._failed:
            self._done += 1
            self.progress.done += 1
            self.progress.finish(item.source_bytes)
        self.progress.media_seconds += item.duration_seconds
        self.progress.source_tokens += item.source_tokens

    def fail(self, event: Event, targets: Sequence[Target], failed: Failed) -> None:
        """Write an item's error into the caches of ``targets``. Raises ``GivenUpError`` where the run should stop."""
        item, progress = event.item, self.progress
        if item.id not in self._failed:
            self._failed.add(item.id)
            progress.failed += 1
            progress.finish(item.size_bytes)
        row = ErrorRow(
            item.id,
            item.path,
            failed.stage,
            failed.error_class,
            failed.message,
            attempts=event.attempt,
            log_tail=failed.log_tail,
            source_bytes=item.size_bytes,
            source_modified_ns=item.modified_ns,
        )
        for target in targets:
            self.due[item.id].pop(target).fail(row)
        where = f" (for {targets[0].folder})" if failed.stage == "method" and len(self.outputs) > 1 else ""
        self.observer.failure(item.id, failed.stage, failed.message + where)
        if self.recipe.on_error == "fail":
            raise GivenUpError(f"{item.id}: {failed.message} (stopped because of --on-error fail)")
        self.check_rate(failed.message)

    def check_rate(self, last: str) -> None:
        """Raise ``GivenUpError`` where too large a share of all items failed; ``last`` is what the last one said."""
        limit, failed = self.recipe.max_error_rate, len(self._failed)
        tried = failed + self._done
        if limit is not None and tried >= ITEMS_FOR_A_RATE and failed > limit * tried:
            raise GivenUpError(
                f"{failed} of {tried} items failed, over --max-error-rate {limit:g}; the last: {last}. What is done is "
                "kept: the same command goes on from here"
            )

    def refusal(self, finished: Finished) -> Failed | None:
        """Why a damaged item is not taken; None where it is."""
        if not finished.damaged:
            return None
        least = MIN_DECODED if self.recipe.min_decoded is None else self.recipe.min_decoded
        if self.recipe.on_error != "salvage":
            message = f"{damage(finished)}; --on-error salvage keeps what decodes of such files"
        elif finished.decoded_frames < least * finished.planned_frames:
            message = f"{damage(finished)}: less than --min-decoded {least:g}"
        else:
            return None
        return Failed("decode", "Damaged", message, finished.log_tail)


def damage(finished: Finished) -> str:
    """What is wrong with an item of which not every planned frame is good, in one line."""
    decoded, planned = finished.decoded_frames, finished.planned_frames
    parts = [f"{decoded:,} of {planned:,} planned frames decoded ({decoded / planned:.1%})"]
    if finished.doubtful_frames:
        parts.append(f"{finished.doubtful_frames:,} of them doubtful")
    if finished.bad_packets:
        parts.append(f"{finished.bad_packets:,} bad packets")
    if finished.corrupt_frames:
        parts.append(f"{finished.corrupt_frames:,} frames flagged as corrupt")
    return f"the file is damaged: {', '.join(parts)}"
