"""The caches that an evaluation starts from: every item decoded and encoded once, with all its tokens."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tokcli.cache import Cache, open_cache
from tokcli.cache.manifest import canonical_json, read_manifest
from tokcli.errors import CacheError
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.observer import EvalObserver
from tokcli.evaluate.runner import Source
from tokcli.evaluate.settings import FULL, Setting
from tokcli.media import ScanResult
from tokcli.methods import Compressor, resolve
from tokcli.models import VisionTower
from tokcli.pipeline.compress import run_job
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.preflight import Request, check_request, load_job
from tokcli.recipe import CompressRecipe, EvalRecipe


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
        workers=recipe.workers,
        timeout=recipe.timeout,
    )


class Encoder:
    """Makes caches in the folder of an evaluation, all with one vision tower, and goes on with those that are there."""

    def __init__(self, recipe: EvalRecipe, observer: EvalObserver) -> None:
        """Looks for the inputs; no model is loaded. Raises ``UsageError`` for what cannot work."""
        self.recipe, self.observer = recipe, observer
        self.folder = Path(recipe.output)
        self._request = check_request(compress_recipe(recipe, self.folder / FULL))
        self._tower: VisionTower | None = None
        self.seconds: dict[str, float | None] = {}
        """By cache: from the first file to the last, over all runs that it took."""
        self._made: dict[str, Source] = {}

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
        request = Request(recipe, self._request.scan, compressor, self._request.workers)
        key = f"encode:{name}"
        before = float(journal.lines.get(key, {}).get("seconds", 0.0))
        with DecoderPool(request.workers, recipe.timeout) as pool:
            job = load_job(request, self._tower)
            self._tower = job.tower
            pool.configure(job.decode)
            started, done = time.monotonic(), 1
            try:
                with self.observer.encoding(name) as observer:
                    done = run_job(job, pool, observer).done
            finally:
                if done:
                    journal.add(key, {"seconds": round(before + time.monotonic() - started, 3)})
        self.seconds[name] = journal.lines.get(key, {}).get("seconds")
        return open_cache(folder)
