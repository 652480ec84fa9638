"""What an evaluation runs in memory is what `compress` writes: the same tokens, and as many bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokcli.cache import Manifest, open_cache
from tokcli.cache.codecs import codec_of
from tokcli.cache.measure import SizeMeter, read_back
from tokcli.errors import CacheError
from tokcli.evaluate.baselines import matched_settings
from tokcli.evaluate.caches import open_caches
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.runner import Outcome, Runner, Source
from tokcli.evaluate.settings import Setting, cache_name
from tokcli.methods import resolve
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.pipeline.restore import visual_tokens
from tokcli.recipe import CompressRecipe, DeriveRecipe, EvalRecipe
from tokcli.types import EncodedItem


class Nothing:
    """A judge that asks nothing, and notes what it could have asked about."""

    def __init__(self) -> None:
        self.seen: dict[str, EncodedItem] = {}

    def judge(self, item: EncodedItem | None, *_: object) -> list[object]:
        assert item is not None
        self.seen[item.id] = item
        return []


def in_memory(evaluated: EvalRecipe, setting: Setting) -> tuple[Runner, list[Outcome], list[str]]:
    folder = Path(evaluated.output)
    sources = {
        path.name: Source(open_cache(path), path.name) for path in folder.iterdir() if (path / "manifest.json").exists()
    }
    ids = sources["full"].cache.ids()
    runner = Runner(sources, {item_id: [] for item_id in ids}, Nothing())  # type: ignore[arg-type]
    return runner, runner.run([setting], ids)[0], ids


@pytest.mark.parametrize(
    ("method", "keep", "options"),
    [
        ("dtd", 0.4, {}),
        ("dtd", None, {"criterion": "pixel"}),
        ("none", None, {}),
        ("random", 0.2, {}),
        ("pool2d", 0.3, {}),
        ("downsample", 0.5, {}),
    ],
)
def test_tokens_and_bytes_are_those_of_compress(
    evaluated: EvalRecipe, tmp_path: Path, method: str, keep: float | None, options: dict[str, str]
) -> None:
    recipe = CompressRecipe(
        inputs=evaluated.inputs,
        output=str(tmp_path / "cache"),
        method=method,
        keep=keep,
        options=options,
        workers=1,
    )
    compress(recipe)
    written = open_cache(tmp_path / "cache")
    compressor = resolve(method, keep=keep, options=options)
    if compressor.pixel_scale == 1:
        setting = Setting(method, keep, method=compressor)
    else:
        setting = Setting(method, keep, source=cache_name(method, keep), encoder=compressor)
    runner, outcomes, ids = in_memory(evaluated, setting)
    judge = runner.judge
    assert isinstance(judge, Nothing)
    for outcome in outcomes:
        stored, kept = written[outcome.item], judge.seen[outcome.item].kept
        assert kept.tokens.dtype == stored.kept.tokens.dtype
        assert torch.equal(kept.tokens, stored.kept.tokens)
        assert torch.equal(kept.coords, stored.kept.coords)
        assert torch.equal(kept.source, stored.kept.source)
        assert torch.equal(kept.mass, stored.kept.mass)
        assert (outcome.kept_tokens, outcome.source_tokens) == (len(stored.kept), stored.source_tokens)
    sizes = [outcome.size for outcome in outcomes if outcome.size is not None]
    assert len(sizes) == len(ids)
    measured = SizeMeter(written.manifest).total(sizes)
    assert measured == pytest.approx(written.stats()["cache_bytes"], rel=0.02)


def test_baselines_are_stored_as_the_cache_that_they_stand_beside(evaluated: EvalRecipe, tmp_path: Path) -> None:
    """Else their bytes would tell the codec, not the method."""
    full = Path(evaluated.output) / "full"
    for codec in ("int8", "exact"):
        folder = tmp_path / codec
        derive(DeriveRecipe(cache=str(full), output=str(folder), method="dtd", tokens_dtype=codec))
        caches = open_caches([str(full), str(folder)])
        judge = Nothing()
        runner = Runner(caches.sources, {item_id: [] for item_id in caches.ids}, judge)  # type: ignore[arg-type]
        settings = [setting for setting in caches.settings if setting.source is not None]
        table = runner.run(settings, caches.ids)
        (uniform,) = [
            setting
            for setting in matched_settings(settings, table, seed=0, encoding=False)
            if setting.label == "uniform"
        ]
        (outcomes,) = runner.run([uniform], caches.ids)
        for outcome in outcomes:
            item, rows = judge.seen[outcome.item], open_cache(full)[outcome.item].kept.tokens
            exact = torch.equal(item.kept.tokens, rows[item.kept.source])
            assert exact == (codec == "exact")
            if codec == "int8":
                assert torch.equal(read_back(item, codec_of("int8")).kept.tokens, item.kept.tokens)
        manifest = open_cache(folder).manifest
        assert outcomes[0].size == SizeMeter(open_cache(full).manifest, codec_of(stored_as(manifest))).measure(
            judge.seen[outcomes[0].item]
        )


def stored_as(manifest: Manifest) -> str:
    return str(manifest.configuration["tokens_dtype"])


def test_sizes_add_up_over_row_groups(clip_cache: Path, tmp_path: Path) -> None:
    """Items of a tenth of a row group each share row groups; written several times under other ids they fill some."""
    from dataclasses import replace

    from tokcli.cache import CacheWriter

    cache = open_cache(clip_cache)
    meter = SizeMeter(cache.manifest)
    items = [replace(item, id=f"{number}-{item.id}") for number in range(4) for item in cache]
    with CacheWriter(tmp_path / "cache", cache.manifest) as writer:
        for item in items:
            writer.write(item)
    stored = open_cache(tmp_path / "cache").stats()["cache_bytes"]
    assert stored > 1.5 * (1 << 20)
    assert meter.total([meter.measure(item) for item in items]) == pytest.approx(stored, rel=0.005)
    assert meter.total([]) == 0


def test_a_cache_without_all_tokens_is_refused(evaluated: EvalRecipe) -> None:
    small = next(path for path in Path(evaluated.output).iterdir() if path.name.startswith("downsample-0.02"))
    item = open_cache(small)[0]
    with pytest.raises(CacheError, match="methods need all of them"):
        visual_tokens(item)


def test_outcomes_are_read_once_from_the_journal(evaluated: EvalRecipe, tmp_path: Path) -> None:
    setting = Setting("evs", 0.3, method=resolve("evs", keep=0.3))
    runner, outcomes, ids = in_memory(evaluated, setting)
    with Journal(tmp_path / "outcomes.jsonl", {}) as journal:
        first = Runner(runner.sources, runner.questions, runner.judge, journal)
        assert first.pending([setting], ids) == len(ids)
        written = first.run([setting], ids)[0]
    with Journal(tmp_path / "outcomes.jsonl", {}) as journal:
        again = Runner(runner.sources, runner.questions, runner.judge, journal)
        assert again.pending([setting], ids) == 0
        # Also under another name: what was done counts, not what it was called.
        assert again.run([Setting("other", method=setting.method)], ids)[0] == written
    assert [outcome.kept_tokens for outcome in written] == [outcome.kept_tokens for outcome in outcomes]
