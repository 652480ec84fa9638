"""Encoding a sample again: what counts as the same, what is named, what is a fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokcli.cache import CacheWriter, Manifest, open_cache
from tokcli.errors import CacheConflictError, UsageError
from tokcli.pipeline.compress import compress
from tokcli.pipeline.preflight import machine_of
from tokcli.pipeline.reencode import compare, verify_deep
from tokcli.recipe import CompressRecipe
from tokcli.types import EncodedItem


@pytest.fixture(scope="module")
def media(copied: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips and a cache of them, beside each other; tokens are float32, where little differences can be told."""
    folder = copied(tmp_path_factory.mktemp("media"), 4)
    values = {"method": "dtd", "workers": 1, "dtype": "float32", "tokens_dtype": "exact"}
    compress(CompressRecipe(inputs=[str(folder)], output=str(folder / "cache"), **values))
    return folder


def written(folder: Path, items: list[EncodedItem], manifest: Manifest) -> Path:
    with CacheWriter(folder, manifest) as writer:
        for item in items:
            writer.write(item)
        writer.finish([item.id for item in items])
    return folder


def test_sources_that_changed_or_are_gone_are_named(media: Path, tmp_path: Path) -> None:
    opened = open_cache(media / "cache")
    moved = tmp_path / "moved"
    shutil.copytree(media, moved)
    items = []
    for item_id in opened.ids():
        item = opened[item_id]
        items.append(replace(item, path=str(moved / Path(item.path).name)))
    cache = written(tmp_path / "cache", items, opened.manifest)
    gone, changed, *same = (Path(item.path) for item in items)
    gone.unlink()
    with changed.open("ab") as file:
        file.write(b"x")
    report = verify_deep(cache, sample=10)
    assert report.exact and report.reasons == () and report.wrong == []
    by_id = {item.id: (item.outcome, item.detail) for item in report.items}
    assert by_id[items[0].id] == ("gone", f"{gone} cannot be read")
    assert by_id[items[1].id] == ("changed", f"{changed} holds something else now")
    assert [by_id[item.id][0] for item in items[2:]] == ["equal"] * len(same)
    for path in same:
        path.unlink()
    nothing = verify_deep(cache, sample=10)
    assert nothing.wrong == [] and {item.outcome for item in nothing.items} == {"gone", "changed"}


def test_other_versions_are_told_and_allow_a_little(media: Path, tmp_path: Path) -> None:
    opened = open_cache(media / "cache")
    information = dict(opened.manifest.information)
    information["versions"] = {**information["versions"], "torch": "1.0"}
    items = [opened[item_id] for item_id in opened.ids()]
    moved = [replace(item, kept=replace(item.kept, tokens=item.kept.tokens * (1 + 1e-6))) for item in items]
    off = replace(items[-1], kept=replace(items[-1].kept, tokens=items[-1].kept.tokens * 1.01))
    manifest = Manifest(opened.manifest.configuration, information)
    report = verify_deep(written(tmp_path / "cache", [*moved[:-1], off], manifest), sample=10)
    assert not report.exact and report.tolerance == 1e-4
    assert any(reason.startswith("torch was 1.0, is ") for reason in report.reasons)
    outcomes = {item.id: item.outcome for item in report.items}
    assert [item.id for item in report.wrong] == [off.id]
    assert outcomes[off.id] == "different"
    assert all(outcomes[item.id] == "close" for item in moved[:-1])


def test_codes_of_a_byte_have_a_tolerance_of_their_own(media: Path, tmp_path: Path) -> None:
    """The default codec: the same bit for bit on the same machine, else within a tenth of the norm."""
    values = {"method": "dtd", "workers": 1, "dtype": "float32"}
    compress(CompressRecipe(inputs=[str(media)], output=str(tmp_path / "cache"), **values))
    opened = open_cache(tmp_path / "cache")
    assert opened.manifest.configuration["tokens_dtype"] == "int8"
    same = verify_deep(opened.path, sample=10)
    assert same.exact and [item.outcome for item in same.items] == ["equal"] * 4
    information = dict(opened.manifest.information)
    information["versions"] = {**information["versions"], "torch": "1.0"}
    manifest = Manifest(opened.manifest.configuration, information)
    items = [opened[item_id] for item_id in opened.ids()]
    scaled = [
        replace(item, kept=replace(item.kept, tokens=item.kept.tokens * factor))
        for item, factor in zip(items, (1.0, 1.02, 1.2, 0.5), strict=True)
    ]
    report = verify_deep(written(tmp_path / "other", scaled, manifest), sample=10)
    assert (report.exact, report.tolerance) == (False, 0.1)
    outcomes = {item.id: item.outcome for item in report.items}
    assert [outcomes[item.id] for item in items] == ["equal", "close", "different", "different"]


def test_another_model_of_that_name(media: Path, tmp_path: Path) -> None:
    opened = open_cache(media / "cache")
    model = {**opened.manifest.configuration["model"], "fingerprint": "0" * 64}
    manifest = Manifest({**opened.manifest.configuration, "model": model}, opened.manifest.information)
    cache = written(tmp_path / "cache", [opened[0]], manifest)
    with pytest.raises(CacheConflictError, match=r"cannot be made again here:\n  model\.fingerprint"):
        verify_deep(cache)
    rounded = Manifest({**opened.manifest.configuration, "method_dtype": "float16"}, opened.manifest.information)
    with pytest.raises(UsageError, match="was derived from"):
        verify_deep(written(tmp_path / "rounded", [opened[0]], rounded))


def test_what_is_compared(media: Path) -> None:
    item = open_cache(media / "cache")[0]
    kept = item.kept

    def outcome(other: EncodedItem, exact: bool = False) -> str:
        return compare(item, other, "float32", exact=exact).outcome

    assert outcome(item) == "equal"
    assert outcome(replace(item, times=item.times + 1e-9)) == "different"
    assert outcome(replace(item, source_tokens=item.source_tokens + 1)) == "different"
    one = torch.zeros_like(kept.tokens)
    one[0, 0] = torch.finfo(torch.float32).eps
    assert outcome(replace(item, kept=replace(kept, tokens=kept.tokens + one))) in ("close", "equal")
    assert outcome(replace(item, kept=replace(kept, mass=kept.mass * 2))) == "different"
    assert outcome(replace(item, kept=replace(kept, tokens=kept.tokens.double().float() * 1.001))) == "different"
    few = slice(0, len(kept) // 2)
    half = replace(
        kept, tokens=kept.tokens[few], coords=kept.coords[few], mass=kept.mass[few], source=kept.source[few], stats={}
    )
    found = compare(item, replace(item, kept=half), "float32", exact=False)
    assert found.outcome == "different" and "of the rows are the same" in found.detail
    near = compare(item, replace(item, kept=replace(kept, tokens=kept.tokens * (1 + 1e-6))), "float32", exact=True)
    assert near.outcome == "close" and "would do between versions, but these are the same" in near.detail


def test_tokens_of_an_accelerator_need_not_be_those_of_the_cpu_beside_it() -> None:
    """Else a cache made on Apple's GPU would be held against the CPU of the same machine bit for bit."""
    cpu, mps = (machine_of(torch.device(name)) for name in ("cpu", "mps"))
    assert cpu != mps and mps["device"].startswith("mps")
