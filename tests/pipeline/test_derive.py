"""Caches from caches: what is derived is what compressing the media gives, for every method."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_sameness import assert_same_caches, assert_same_items

from tokcli.cache import CacheWriter, open_cache, verify_cache
from tokcli.errors import CacheConflictError, MethodError, UsageError
from tokcli.methods import METHODS, resolve
from tokcli.methods.budget import budgets_of
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derivation import Derivation, check_derivation
from tokcli.pipeline.derive import derive
from tokcli.pipeline.progress import CompressSummary, Silent
from tokcli.pipeline.restore import ANNOUNCED
from tokcli.recipe import CompressRecipe, DeriveRecipe

KEEP = 0.3
SIGNALS = ("pixel_change", "received_attention", "meanq")
HELD = {"signals": ",".join(SIGNALS)}
COMPOSED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # What is compressed at once: (what its first part made, what is derived from that)
    "dtd,uniform@0.2": ("dtd", {"method": "uniform", "keep": 0.2}),
    "dtd,pool2d@0.2": ("dtd", {"method": "pool2d", "keep": 0.2}),
    "pool2d,dtd@0.2:pool2d.keep=0.5": ("pool2d@0.5", {"method": "dtd", "keep": 0.2}),
    "pool2d,evs,random@0.1:pool2d.keep=0.5,evs.keep=0.4": (
        "pool2d@0.5",
        {"method": "evs,random", "keep": 0.1, "options": {"evs.keep": "0.4"}},
    ),
}


def alone() -> list[str]:
    """Every method that works on tokens and signals that the bundled model gives, as ``--also`` takes it."""
    names = []
    for method in METHODS.loaded().values():
        options = {"keep": KEEP} if "keep" in budgets_of(method.options) else {}
        parsed = method.parse(options)
        if method.where(parsed) == "tokens" and method.signals(parsed) <= set(SIGNALS):
            names.append(f"{method.name}@{KEEP}" if options else method.name)
    return names


ALONE = [name for name in alone() if name != "none"] + ["dtd:criterion=pixel", "dtd:reference=kept"]


def folder_of(caches: Path, entry: str) -> Path:
    return caches / "".join(character if character.isalnum() else "-" for character in entry)


def run(cache: Path, output: Path, **more: Any) -> CompressSummary:
    return derive(DeriveRecipe(cache=str(cache), output=str(output), **more))


@pytest.fixture(scope="module")
def media(copied: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and a file that is none."""
    return copied(tmp_path_factory.mktemp("media"), 3, bad=True)


@pytest.fixture(scope="module")
def caches(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with all tokens, and what compressing the media gives by every method, from bfloat16 kept as float32."""
    folder = tmp_path_factory.mktemp("caches")
    compress(
        recipe(
            media,
            folder / "full",
            options=HELD,
            also=[f"{entry}={folder_of(folder, entry)}" for entry in [*ALONE, *COMPOSED, "dtd", "pool2d@0.5", "none"]],
        )
    )
    return folder


def recipe(media: Path, output: Path, **more: Any) -> CompressRecipe:
    options = {"method": "none", "workers": 1, "dtype": "bfloat16", "tokens_dtype": "float32", **more}
    return CompressRecipe(inputs=[str(media)], output=str(output), **options)


@pytest.mark.parametrize("entry", ALONE)
def test_derived_is_compressed(caches: Path, tmp_path: Path, entry: str) -> None:
    """Also by itself from the media, which is what ``caches`` stands for: tested with ``--also``."""
    name, at, budget = entry.partition("@")
    name, _, option = name.partition(":")
    summary = run(
        caches / "full",
        tmp_path / "derived",
        method=name,
        keep=float(budget) if at else None,
        options=dict([option.split("=")]) if option else {},
        tokens_dtype="float32",
    )
    assert summary.done + summary.failed == summary.items == 4
    assert_same_caches(tmp_path / "derived", folder_of(caches, entry))
    assert verify_cache(tmp_path / "derived") == []


@pytest.mark.parametrize("entry", COMPOSED)
def test_further_methods_continue_a_composition(caches: Path, tmp_path: Path, entry: str) -> None:
    source, further = COMPOSED[entry]
    run(folder_of(caches, source), tmp_path / "derived", tokens_dtype="float32", **further)
    assert_same_caches(tmp_path / "derived", folder_of(caches, entry))


def test_all_tokens_again_are_the_same_cache(caches: Path, tmp_path: Path) -> None:
    run(caches / "full", tmp_path / "with", method="none", options=HELD)
    assert_same_caches(tmp_path / "with", caches / "full")
    run(caches / "full", tmp_path / "without", method="none")
    assert_same_caches(tmp_path / "without", folder_of(caches, "none"))


def test_several_at_once_and_another_dtype(caches: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    summary = run(
        caches / "full", half, method="evs", keep=KEEP, tokens_dtype="float16", also=[f"dtd@{KEEP}={tmp_path / 'dtd'}"]
    )
    assert (summary.done, summary.failed, summary.also[0].done) == (3, 1, 3)
    full = open_cache(folder_of(caches, f"evs@{KEEP}"))
    for item in open_cache(half):
        assert torch.equal(item.kept.tokens, full[item.id].kept.tokens.to(torch.bfloat16).half())
    run(caches / "full", tmp_path / "wide", method="dtd", keep=KEEP, tokens_dtype="float32")
    rounded = open_cache(tmp_path / "dtd")
    for item in open_cache(tmp_path / "wide"):
        assert torch.equal(item.kept.tokens.half(), rounded[item.id].kept.tokens)


def test_compress_goes_on_where_derive_was_and_the_other_way_round(media: Path, caches: Path, tmp_path: Path) -> None:
    output = tmp_path / "derived"
    derived = {"method": "evs", "keep": KEEP, "tokens_dtype": "float32"}
    assert run(caches / "full", output, limit=2, **derived).done == 2
    summary = compress(recipe(media, output, method="evs", keep=KEEP))
    assert (summary.done, summary.skipped, summary.failed) == (1, 2, 1)
    assert_same_caches(output, folder_of(caches, f"evs@{KEEP}"))
    again = run(caches / "full", output, **derived)
    assert (again.done, again.skipped, again.failed) == (0, 3, 1)


def test_a_stopped_run_goes_on(caches: Path, tmp_path: Path) -> None:
    class Stops(Silent):
        def update(self, progress: Any) -> None:
            raise KeyboardInterrupt

    output, how = tmp_path / "derived", {"method": "dtd", "keep": KEEP, "tokens_dtype": "float32"}
    with pytest.raises(KeyboardInterrupt):
        derive(DeriveRecipe(cache=str(caches / "full"), output=str(output), **how), Stops())
    assert len(open_cache(output)) == 1
    assert not open_cache(output).complete
    summary = run(caches / "full", output, **how)
    assert (summary.done, summary.skipped) == (2, 1)
    assert_same_caches(output, folder_of(caches, f"dtd@{KEEP}"))


def test_what_the_source_gains_is_added(caches: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "derived"
    shutil.copytree(caches / "full", source)
    run(source, output, method="evs", keep=KEEP)
    cache = open_cache(source)
    item = cache[0]
    (failure,) = cache.errors().to_pylist()
    mended = replace(item, id=failure["id"], source_bytes=failure["source_bytes"])
    changed = replace(item, source_bytes=item.source_bytes + 1, source_hash="0" * 64)
    with CacheWriter(source, cache.manifest) as writer:
        for written in (mended, changed):
            writer.write(written)
    summary = run(source, output, method="evs", keep=KEEP)
    assert (summary.done, summary.skipped, summary.failed) == (2, 2, 0)
    assert not open_cache(output).complete, "the source was not finished"
    assert open_cache(output)[item.id].source_hash == "0" * 64


def test_failures_of_the_method_stay_until_they_are_tried_again(caches: Path, tmp_path: Path) -> None:
    arguments = {"method": "pool2d", "max_tokens": 1}
    first = run(caches / "full", tmp_path / "derived", **arguments)
    assert (first.done, first.failed) == (0, 4)
    rows = open_cache(tmp_path / "derived").errors().to_pylist()
    assert sorted(row["stage"] for row in rows) == ["method", "method", "method", "open"]
    seen: list[str] = []

    class Seen(Silent):
        def failure(self, item_id: str, stage: str, message: str) -> None:
            seen.append(stage)

    for retry in (False, True):
        values = {"cache": str(caches / "full"), "output": str(tmp_path / "derived"), "retry_errors": retry}
        derive(DeriveRecipe(**values, **arguments), Seen())
    assert seen == ["open"] + ["open"] + ["method"] * 3


def test_what_cannot_be_derived_is_refused_with_the_reason(caches: Path, tmp_path: Path) -> None:
    full, plain, output = caches / "full", folder_of(caches, "none"), tmp_path / "derived"
    with pytest.raises(MethodError, match=r"'downsample' works before there are tokens.*tokcli compress"):
        run(full, output, method="downsample", keep=0.5)
    with pytest.raises(MethodError, match=r"'pixel_change', which .* does not hold .*--keep-signals pixel_change"):
        run(plain, output, method="dtd", options={"criterion": "pixel"})
    with pytest.raises(MethodError, match="pixel_change"):
        run(folder_of(caches, "dtd"), output, method="dtd", options={"criterion": "pixel"})
    with pytest.raises(UsageError, match="is the cache to derive from"):
        run(full, full, method="evs", keep=0.5)
    with pytest.raises(MethodError, match="keep"):
        run(full, output, method="evs", keep=2.0)
    assert not output.exists()
    run(full, output, method="evs", keep=0.5)
    with pytest.raises(CacheConflictError, match=r"keep: 0\.5 in the cache, 0\.4 asked for"):
        run(full, output, method="evs", keep=0.4)
    assert run(full, output, method="evs", keep=0.4, overwrite=True).done == 3


def test_rounded_tokens_are_told_apart(caches: Path, tmp_path: Path) -> None:
    """Methods on tokens that storing rounded may choose otherwise: no cache of the media, and it says so."""
    run(caches / "full", tmp_path / "half", method="none", tokens_dtype="float16")
    notes: list[str] = []

    class Seen(Silent):
        def begin(self, progress: Any, given: list[str]) -> None:
            notes.extend(given)

    values = {"method": "evs", "keep": KEEP}
    derive(DeriveRecipe(cache=str(tmp_path / "half"), output=str(tmp_path / "a"), **values), Seen())
    assert any("rounded" in note for note in notes)
    run(caches / "full", tmp_path / "b", **values)
    with pytest.raises(CacheConflictError, match=r"method_dtype: nothing in the cache, \"float16\" asked for"):
        run(tmp_path / "half", tmp_path / "b", **values)
    run(tmp_path / "a", tmp_path / "c", method="uniform", keep=0.1)
    assert open_cache(tmp_path / "c").manifest.configuration["method_dtype"] == "float16"


@pytest.mark.parametrize("method", ["dtd", "evs"])
def test_a_file_that_ended_early_is_planned_as_announced(caches: Path, method: str) -> None:
    """As while encoding: a stream plans with what was announced, other methods with what came."""
    cache = open_cache(caches / "full")
    item = cache[0]
    view = item.views[0]
    announced = replace(view, grid=(2 * view.grid[0], *view.grid[1:]))
    early = replace(
        item, kept=replace(item.kept, stats={**item.kept.stats, ANNOUNCED: np.array([announced.grid[0]], np.int64)})
    )
    how = {"method": method, "keep": KEEP, "tokens_dtype": "float32"}
    job = check_derivation(DeriveRecipe(cache=str(caches / "full"), output="unused", **how))
    made = job.derivations[0].make(early)
    compressor = resolve(method, keep=KEEP)
    visual = everything(job.derivations[0], item)
    if compressor.streaming:
        session = compressor.start(item.id, (announced,))
        expected = replace(session.push(visual), stats=session.finish())
        assert len(expected) != len(compressor.compress(visual, item.id))
    else:
        expected = compressor.compress(visual, item.id)
    assert torch.equal(made.kept.source, expected.source)
    assert torch.equal(made.kept.tokens, expected.tokens.float())
    assert made.kept.stats[ANNOUNCED].tolist() == [announced.grid[0]]


def everything(derivation: Derivation, item: Any) -> Any:
    from tokcli.pipeline.restore import kept_tokens

    return kept_tokens(item, item.source_tokens, derivation.tower_dtype)


def test_structural_rows_stay_structural(caches: Path, tmp_path: Path) -> None:
    """Rows such as newlines are known from the stored flags, through one derivation and through two."""
    source = tmp_path / "source"
    cache = open_cache(caches / "full")
    item = cache[0]
    flags = np.zeros(len(item.kept), dtype=np.bool_)
    flags[-2:] = True
    marked = replace(item, kept=replace(item.kept, stats={**item.kept.stats, "structural": flags}))
    with CacheWriter(source, cache.manifest) as writer:
        writer.write(marked)
        writer.finish([item.id])
    run(source, tmp_path / "one", method="evs", keep=0.5)
    run(tmp_path / "one", tmp_path / "two", method="uniform", keep=0.1)
    for name in ("one", "two"):
        kept = open_cache(tmp_path / name)[item.id].kept
        assert kept.stats["structural"].tolist() == [False] * (len(kept) - 2) + [True] * 2
        assert kept.source[-2:].tolist() == [len(flags) - 2, len(flags) - 1]


def test_a_derived_item_keeps_all_that_is_known_of_its_file(caches: Path, tmp_path: Path) -> None:
    run(caches / "full", tmp_path / "derived", method="none", options=HELD)
    full = open_cache(caches / "full")
    for item in open_cache(tmp_path / "derived"):
        assert_same_items(item, full[item.id])
    information = open_cache(tmp_path / "derived").manifest.information
    assert information["derived_from"]["cache"] == str(caches / "full")
    assert information["inputs"] == full.manifest.information["inputs"]
