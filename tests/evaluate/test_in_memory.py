"""What an evaluation runs in memory is what `compress` writes: the same tokens, and as many bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokcli.cache import open_cache
from tokcli.cache.measure import SizeMeter
from tokcli.errors import CacheError
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.runner import Outcome, Runner, Source
from tokcli.evaluate.settings import Setting, cache_name
from tokcli.methods import resolve
from tokcli.pipeline.compress import compress
from tokcli.pipeline.restore import visual_tokens
from tokcli.recipe import CompressRecipe, EvalRecipe


class Nothing:
    """A judge that asks nothing."""

    def judge(self, *_: object) -> list[object]:
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
    full = runner.sources["full"].cache
    for outcome in outcomes:
        stored = written[outcome.item]
        if setting.method is not None:
            kept = compressor.compress(visual_tokens(full[outcome.item]), outcome.item)
        else:
            assert setting.source is not None
            kept = runner.sources[setting.source].cache[outcome.item].kept
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
