"""Several caches from one run: each as if it were made alone, each resumable by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cache_sameness import assert_same_caches

from tokcli.cache import open_cache
from tokcli.errors import CacheConflictError, MethodError, UsageError
from tokcli.pipeline import session
from tokcli.pipeline.compress import MAX_ENCODER_FAILURES_IN_A_ROW, compress
from tokcli.pipeline.ledger import GivenUpError
from tokcli.pipeline.progress import CompressSummary
from tokcli.pipeline.spool import TokenSpool
from tokcli.pipeline.targets import parse_also
from tokcli.recipe import CompressRecipe


def run(media: Path, output: Path, **more: Any) -> CompressSummary:
    return compress(CompressRecipe(inputs=[str(media)], output=str(output), **{"workers": 1, **more}))


@pytest.fixture(scope="module")
def media(copied: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips and a file that is none."""
    return copied(tmp_path_factory.mktemp("media"), 2, bad=True)


def test_each_cache_is_the_one_that_is_made_alone(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    class Counted(session.ItemSession):
        def __init__(self, item: Any, *rest: Any) -> None:
            encoded.append(Path(item.id).name)
            super().__init__(item, *rest)

    monkeypatch.setattr("tokcli.pipeline.compress.ItemSession", Counted)
    run(media, tmp_path / "dtd", method="dtd", keep=0.3, limit=2)  # holds one clip and the failure
    encoded.clear()
    also = [f"evs@0.2={tmp_path / 'evs'}", f"none:signals=pixel_change={tmp_path / 'all'}"]
    summary = run(media, tmp_path / "dtd", method="dtd", keep=0.3, also=also)
    assert sorted(encoded) == sorted(path.name for path in media.iterdir() if path.name != "bad.mp4")
    assert (summary.done, summary.skipped, summary.failed) == (1, 1, 1)
    assert [(one.done, one.skipped, one.failed) for one in summary.also] == [(2, 0, 1)] * 2
    assert [one.output for one in summary.also] == [str(tmp_path / "evs"), str(tmp_path / "all")]
    encoded.clear()
    again = run(media, tmp_path / "dtd", method="dtd", keep=0.3, also=also)
    assert encoded == []
    assert [one.skipped for one in (again, *again.also)] == [2, 2, 2]
    for name, options in (("dtd", {"keep": 0.3}), ("evs", {"keep": 0.2})):
        run(media, tmp_path / "alone" / name, method=name, **options)
        assert_same_caches(tmp_path / name, tmp_path / "alone" / name)


def test_a_method_that_fails_takes_no_other_along(media: Path, tmp_path: Path) -> None:
    summary = run(media, tmp_path / "dtd", method="dtd", also=[f"pool2d@1={tmp_path / 'pool'}"])
    assert (summary.done, summary.failed) == (2, 1)
    assert (summary.also[0].done, summary.also[0].failed) == (0, 3)
    stages = sorted(row["stage"] for row in open_cache(tmp_path / "pool").errors().to_pylist())
    assert stages == ["method", "method", "open"]
    assert open_cache(tmp_path / "dtd").complete and open_cache(tmp_path / "pool").complete
    again = run(media, tmp_path / "dtd", method="dtd", also=[f"pool2d@1={tmp_path / 'pool'}"])
    assert (again.skipped, again.failed, again.also[0].failed) == (2, 1, 3)


def test_one_item_that_many_methods_fail_on_ends_no_run(media: Path, tmp_path: Path) -> None:
    """Ten items in a row would: then the fault is not theirs."""
    also = [f"pool2d@1={tmp_path / str(number)}" for number in range(MAX_ENCODER_FAILURES_IN_A_ROW)]
    summary = run(media, tmp_path / "dtd", method="dtd", also=also)
    assert (summary.done, summary.failed) == (2, 1)
    assert [one.failed for one in summary.also] == [3] * len(also)


def test_many_items_in_a_row_that_fail_in_the_encoder_end_the_run(media: Path, tmp_path: Path) -> None:
    clip = next(path for path in media.iterdir() if path.name != "bad.mp4")
    (tmp_path / "many").mkdir()
    for number in range(MAX_ENCODER_FAILURES_IN_A_ROW + 1):
        (tmp_path / "many" / f"{number:02d}{clip.suffix}").write_bytes(clip.read_bytes())
    with pytest.raises(GivenUpError, match=rf"^{MAX_ENCODER_FAILURES_IN_A_ROW} items in a row failed in the encoder"):
        run(tmp_path / "many", tmp_path / "pool", method="pool2d", max_tokens=1)


def test_streaming_methods_hold_no_item_whole(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(TokenSpool):
        def append(self, tokens: Any) -> None:
            raise AssertionError("the item was collected")

    monkeypatch.setattr("tokcli.pipeline.session.TokenSpool", Closed)
    summary = run(media, tmp_path / "a", method="dtd", also=[f"none={tmp_path / 'b'}", f"dtd@0.2={tmp_path / 'c'}"])
    assert [one.done for one in (summary, *summary.also)] == [2, 2, 2]


def test_what_cannot_work_is_refused_before_anything_is_touched(media: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for also, message in (
        (f"downsample@0.5={there}", "'downsample' of .*there works before there are tokens"),
        (f"evs@0.5={here}", "stands twice as an output"),
        (f"evs@7.0={there}", "keep"),
        (f"evss@0.5={there}", "evss"),
    ):
        with pytest.raises(UsageError, match=message):
            run(media, here, method="dtd", also=[also])
        assert not here.exists() and not there.exists()
    run(media, here, method="dtd")
    run(media, there, method="evs", keep=0.5)
    with pytest.raises(CacheConflictError, match=r"keep: 0\.5 in the cache, 0\.4 asked for"):
        run(media, here, method="dtd", also=[f"evs@0.4={there}"])
    assert open_cache(here).complete, "a cache that is not concerned stays as it was"


@pytest.mark.parametrize(
    ("text", "folder", "stages"),
    [
        ("dtd@0.1=out", "out", [("dtd", {"keep": 0.1})]),
        ("dtd@1.0=a/b=c:d", "a/b=c:d", [("dtd", {"keep": 1.0})]),
        ("evs@256=out", "out", [("evs", {"max_tokens": 256})]),
        ("uniform@1=out", "out", [("uniform", {"max_tokens": 1})]),
        ("evs@1e-1=out", "out", [("evs", {"keep": 0.1})]),
        ("none=out", "out", [("none", {})]),
        ("none:signals=a,b=out", "out", [("none", {"signals": "a,b"})]),
        (
            "dtd@0.2:reference=kept,variant=official=out",
            "out",
            [("dtd", {"keep": 0.2, "reference": "kept", "variant": "official"})],
        ),
        ("dtd,uniform@0.2:dtd.threshold=0.4=out", "out", [("dtd", {"threshold": 0.4}), ("uniform", {"keep": 0.2})]),
    ],
)
def test_what_is_asked_for_is_read(text: str, folder: str, stages: list[tuple[str, dict[str, Any]]]) -> None:
    found, compressor = parse_also(text, seed=0)
    assert found == Path(folder)
    described = compressor.to_json()["methods"]
    assert [entry["name"] for entry in described] == [name for name, _ in stages]
    for entry, (_, options) in zip(described, stages):
        assert options.items() <= entry["options"].items()


@pytest.mark.parametrize(
    "text", ["dtd", "dtd@0.1", "=out", "dtd@0.1=", "dtd@x=out", "dtd:threshold=out", "dtd:a,b=c=o"]
)
def test_what_is_no_method_and_folder_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--also '"):
        parse_also(text, seed=0)


def test_options_of_other_methods_are_refused() -> None:
    with pytest.raises(MethodError, match="unknown option"):
        parse_also("evs@0.1:reference=kept=out", seed=0)
