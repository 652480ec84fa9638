"""The lines behind a run, without one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokcli.cli.display import ProgressDisplay, _parts
from tokcli.cli.summary import print_summary
from tokcli.pipeline.progress import CompressSummary, OverBudget, Progress

SUMMARY = CompressSummary(
    items=3,
    done=1,
    failed=0,
    skipped=2,
    source_tokens=100,
    kept_tokens=25,
    token_bytes=400,
    source_bytes=1000,
    cache_bytes=100,
    media_seconds=6.0,
    seconds=2.0,
    output="cache",
    method={"methods": []},
    model="nano",
)


def test_inputs_that_are_gone_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(SUMMARY, quiet=False, as_json=False)
    assert "--prune" not in capsys.readouterr().out
    gone = replace(SUMMARY, removed=("a.mp4", "b[1].mp4"))
    print_summary(gone, quiet=False, as_json=False)
    told = "2 in the cache, no longer among the inputs (--prune drops them): a.mp4, b[1].mp4"
    assert told in capsys.readouterr().out
    many = tuple(f"{number}.mp4" for number in range(9))
    print_summary(replace(gone, removed=many, pruned=True), quiet=False, as_json=False)
    assert "9 dropped: 0.mp4, 1.mp4, 2.mp4, 3.mp4, 4.mp4, ..." in capsys.readouterr().out
    print_summary(gone, quiet=False, as_json=True)
    assert '"removed": ["a.mp4", "b[1].mp4"], "pruned": false' in capsys.readouterr().out
    print_summary(gone, quiet=True, as_json=False)
    assert capsys.readouterr().out == ""


def test_a_shard_tells_what_others_have_to_bring(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(replace(SUMMARY, shard="3/8", missing=120), quiet=False, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cache, shard 3/8: 3 of 3 items")
    assert lines[1].endswith("cache 100 B: 120 inputs of other shards not there yet")
    print_summary(replace(SUMMARY, shard="3/8"), quiet=False, as_json=False)
    assert capsys.readouterr().out.splitlines()[1].endswith("cache 100 B: all inputs are there")


def test_a_budget_that_is_not_met_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    over = replace(SUMMARY, over_budget=OverBudget(2, 0.1, 0.8333, "a[1].mp4"))
    print_summary(over, quiet=False, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "  2 items over the budget: the method kept more than --keep 0.1 asks for, up to 83.3% (a[1].mp4)"
    )
    print_summary(over, quiet=False, as_json=True)
    told = '"over_budget": {"items": 2, "keep": 0.1, "largest_share": 0.8333, "worst": "a[1].mp4"}'
    assert told in capsys.readouterr().out


def test_one_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(replace(SUMMARY, items=1, done=1, skipped=0), quiet=False, as_json=False)
    assert capsys.readouterr().out.startswith("cache: 1 of 1 item (1 new")


def test_the_size_of_a_cache_with_other_items_is_no_share_of_these(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(SUMMARY, quiet=False, as_json=False)
    assert "cache 100 B: 25.0% of all tokens (400 B), 10.0% of the source files" in capsys.readouterr().out
    print_summary(replace(SUMMARY, others=1), quiet=False, as_json=False)
    line = capsys.readouterr().out.splitlines()[1]
    assert line == "  tokens 100 -> 25 (25.0% kept)   cache 100 B, with 1 item that is not among these inputs"
    print_summary(replace(SUMMARY, others=7), quiet=False, as_json=False)
    assert "cache 100 B, with 7 items that are not among these inputs" in capsys.readouterr().out


def test_a_run_that_did_nothing_claims_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(replace(SUMMARY, done=0, skipped=3), quiet=False, as_json=False)
    assert capsys.readouterr().out.splitlines()[0] == "cache: 3 of 3 items (0 new, 3 before, 0 failed), 6.0s of media"


def test_what_failed_before_is_counted_and_can_be_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    display = ProgressDisplay(quiet=False)
    display.begin(Progress(items=22, skipped=7, failed=15), [])
    assert "22 inputs: 7 already in the cache, 15 failed, 0 to do" in capsys.readouterr().err
    display.begin(Progress(items=7, skipped=7), [])
    assert "7 inputs: 7 already in the cache, 0 to do" in capsys.readouterr().err
    print_summary(replace(SUMMARY, failed=1), quiet=False, as_json=False)
    told = "1 failed: `tokcli inspect cache --errors` says why, --retry-errors tries again"
    assert told in capsys.readouterr().out


def test_thousands_of_items_are_parted_alike_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    counts, _ = _parts(Progress(items=40000, skipped=10000, done=2345, failed=1400))
    assert counts[:2] == ["13,745/40,000 items", "1,400 failed"]
    gone = replace(SUMMARY, items=40000, done=30000, skipped=8600, failed=1400, removed=("a.mp4",) * 2000)
    print_summary(gone, quiet=False, as_json=False)
    out = capsys.readouterr().out
    assert "cache: 38,600 of 40,000 items (30,000 new, 8,600 before, 1,400 failed)" in out
    assert "2,000 in the cache, no longer among" in out and "1,400 failed: " in out
