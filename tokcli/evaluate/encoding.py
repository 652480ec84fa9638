"""The caches that an evaluation starts from: every item decoded and encoded once, with all its tokens."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tokcli.cache import Cache, CacheWriter, open_cache
from tokcli.cache.manifest import canonical_json, read_manifest
from tokcli.errors import CacheError, MethodError, ModelError
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.observer import EvalObserver
from tokcli.evaluate.runner import Source
from tokcli.evaluate.settings import BASELINES, FULL, Setting
from tokcli.media import ScanResult, hash_if_readable
from tokcli.methods import Compressor, resolve
from tokcli.models import VisionTower, load_tower
from tokcli.pipeline.compress import Run
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.feasible import check_method
from tokcli.pipeline.preflight import Job, Request, check_request, load_job, supervision
from tokcli.pipeline.targets import Output
from tokcli.recipe import CompressRecipe, EvalRecipe
from tokcli.types import MediaItem


def compress_recipe(recipe: EvalRecipe, output: Path) -> CompressRecipe:
    """What `tokcli compress` would be told to make one of the caches, without the method."""
    return CompressRecipe(
        inputs=recipe.inputs,
        output=str(output),
        model=recipe.model or "nano",
        method="none",
        sampling=recipe.sampling,
        resize=recipe.resize,
        dtype=recipe.dtype,
        device=recipe.device,
        path_col=recipe.path_col,
        id_col=recipe.id_col,
        limit=recipe.limit,
        overwrite=recipe.overwrite,
        retry_errors=recipe.retry_errors,
        workers=recipe.workers,
        timeout=recipe.timeout,
    )


class Encoder:
    """Makes caches in the folder of an evaluation, all with one vision tower, and goes on with those that are there.

    A context manager: leaving it ends the decoder processes.
    """

    def __init__(self, recipe: EvalRecipe, observer: EvalObserver) -> None:
        """Looks for the inputs; no model is loaded. Raises ``UsageError`` for what cannot work."""
        self.recipe, self.observer = recipe, observer
        self.folder = Path(recipe.output)
        self._request = check_request(compress_recipe(recipe, self.folder / FULL))
        self._tower: VisionTower | None = None
        self.seconds: dict[str, float | None] = {}
        """By cache: from the first file to the last, over all runs that it took."""
        self._made: dict[str, Source] = {}
        self._pool: DecoderPool | None = None
        self._open = ExitStack()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def ids(self) -> list[str]:
        """All inputs that can be opened, in their order."""
        return [item.id for item in self._request.scan.items]

    def only(self, ids: Collection[str]) -> None:
        """Leave out all other items: nobody asks about them."""
        items = [item for item in self._request.scan.items if item.id in ids]
        scan = ScanResult(items=items)
        workers = max(1, min(self._request.workers, len(items)))
        self._request = Request(self._request.recipe, scan, self._request.compressor, workers)

    @property
    def tower(self) -> VisionTower:
        """Loaded when it is first needed."""
        if self._tower is None:
            recipe = self._request.recipe
            self._tower = load_tower(recipe.model, dtype=recipe.dtype, device=recipe.device)
        return self._tower

    def carried(self, settings: Sequence[Setting], asked: Collection[str]) -> list[Setting]:
        """Those of the settings that the vision tower can carry: baselines that nobody asked for are left out.

        Raises ``MethodError``, ``ModelError`` for one of the labels that were ``asked`` for, before any work.
        """
        found = []
        for setting in settings:
            compressor = setting.encoder or setting.method
            try:
                if compressor is not None:
                    check_method(compressor, self.tower)
            except (MethodError, ModelError) as error:
                if setting.label in asked or setting.label not in BASELINES:
                    raise
                self.observer.note(f"the baseline {setting.name} is left out: {error}")
            else:
                found.append(setting)
        return found

    def sources(self, settings: Sequence[Setting], signals: Sequence[str], journal: Journal) -> dict[str, Source]:
        """All caches made so far, by name, and those that the settings start from; each is made once."""
        for setting in settings:
            if setting.source is None or setting.source in self._made:
                continue
            folder = self.folder / setting.source
            compressor = setting.encoder or self._all_tokens(folder, signals)
            cache = self._encode(setting.source, folder, compressor, journal)
            # Signals do not change tokens: what was answered from a cache without them stays true.
            identity = FULL if setting.source == FULL else canonical_json(compressor.to_json())
            self._made[setting.source] = Source(cache, identity)
        return dict(self._made)

    def _all_tokens(self, folder: Path, signals: Sequence[str]) -> Compressor:
        try:
            stored = Compressor.from_json(read_manifest(folder).configuration["method"])
        except CacheError:
            stored = resolve("none")
        there = stored.needs if stored.name == "none" and not self.recipe.overwrite else frozenset()
        return stored if set(signals) <= there else resolve("none", options={"signals": ",".join(signals)})

    def _encode(self, name: str, folder: Path, compressor: Compressor, journal: Journal) -> Cache:
        recipe = self._request.recipe.model_copy(update={"output": str(folder)})
        job = load_job(Request(recipe, self._request.scan, compressor, self._request.workers), self.tower)
        key = f"encode:{name}"
        (target,) = job.targets
        with target.open(recipe.overwrite) as writer:
            if any(self._is_due(item, writer) for item in job.scan.items):
                with self.observer.encoding(name) as observer:
                    run = Run(job, [Output(target, writer)], self._decoders(job), observer)
                    try:
                        run.run()
                    finally:
                        seconds = time.monotonic() - run.work_began if run.work_began else 0.0
                        before = float(journal.lines.get(key, {}).get("seconds", 0.0))
                        journal.add(key, {"seconds": round(before + seconds, 3)})
            writer.finish([item.id for item in job.scan.items])
        self.seconds[name] = journal.lines.get(key, {}).get("seconds")
        return open_cache(folder)

    def _is_due(self, item: MediaItem, writer: CacheWriter) -> bool:
        state = writer.state(item, lambda: hash_if_readable(item.path))
        return state in ("new", "changed") or (state == "failed" and self.recipe.retry_errors)

    def _decoders(self, job: Job) -> DecoderPool:
        """One pool for all caches: starting processes takes longer than decoding short clips."""
        if self._pool is None:
            self._pool = self._open.enter_context(DecoderPool(self._request.workers, supervision(job.recipe)))
        self._pool.configure(job.decode)
        return self._pool
