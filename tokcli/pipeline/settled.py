"""Runs that find nothing to do: they end as any other, and load no weights and start no decoders for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

from tokcli.cache.layout import MANIFEST
from tokcli.cache.manifest import read_manifest
from tokcli.cache.records import clean_text
from tokcli.cache.state import Status, load_state
from tokcli.errors import TokcliError
from tokcli.models import outline_tower
from tokcli.pipeline.ledger import Ledger
from tokcli.pipeline.preflight import Request, targets_of
from tokcli.pipeline.progress import CompressSummary, Observer, Progress
from tokcli.pipeline.targets import Output, Target, check_targets, finish, notes_of, summarize
from tokcli.storage import Location, location
from tokcli.types import MediaItem

StatusOf = Callable[[MediaItem, Callable[[], str]], Status]


def settled_targets(request: Request) -> tuple[Target, ...] | None:
    """The request's caches where they have all its inputs; None where there is something to do, or to refuse.

    What there is to refuse, a run finds in the order in which any run does.
    """
    recipe = request.recipe
    folders = (location(recipe.output), *(folder for folder, _ in request.also))
    try:
        # First, for it needs no model: a run with work to do loses no time before its decoders start.
        if recipe.overwrite or not all(_looks_settled(request, folder) for folder in folders):
            return None
        outline = outline_tower(recipe.model, dtype=recipe.dtype, device=recipe.device)
        targets = targets_of(request, outline.identity, outline.device)
        check_targets(targets, recipe.overwrite)
    except (TokcliError, OSError):
        return None
    # What cannot be done with this tower was refused before these caches were made, of this tower and this method.
    return targets


def run_settled(request: Request, targets: tuple[Target, ...], observer: Observer) -> CompressSummary | None:
    """End a run over caches that have everything; None where, now that they are locked, something is left to do.

    Raises what opening them for writing does.
    """
    recipe, scan = request.recipe, request.scan
    progress = Progress(items=len(scan.items) + len(scan.failures))
    with ExitStack() as stack:
        writers = [stack.enter_context(target.open(part=request.part)) for target in targets]
        if not all(_is_settled(scan.items, writer.state, recipe.retry_errors) for writer in writers):
            return None
        outputs = [Output(target, writer) for target, writer in zip(targets, writers)]
        Ledger(recipe, outputs, progress, observer).pending(scan)
        observer.begin(progress, notes_of(outputs, scan, recipe.prune))
        finish(outputs, recipe, scan, request.part)
    return summarize(outputs, progress.items, [item.id for item in scan.items], progress.seconds, request.part)


def _looks_settled(request: Request, folder: Location) -> bool:
    """Whether a cache that others may be writing has all inputs."""
    if not (folder / MANIFEST).exists():
        return False
    state, _ = load_state(folder, read_manifest(folder), request.part)

    def status_of(item: MediaItem, source_hash: Callable[[], str]) -> Status:
        known = state.get(clean_text(item.id))
        return known.compared(item, source_hash) if known else "new"

    return _is_settled(request.scan.items, status_of, request.recipe.retry_errors)


def _is_settled(items: Iterable[MediaItem], status_of: StatusOf, retry_errors: bool) -> bool:
    """Whether none of the items is due; where only its content could tell, it may be, and it is not read here."""
    settled = ("done",) if retry_errors else ("done", "failed")
    return all(status_of(item, lambda: "") in settled for item in items)
