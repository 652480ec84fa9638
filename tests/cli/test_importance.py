"""`--importance` and `--keep-signals`: short for options of the methods, and refused where they mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokcli.cache import open_cache
from tokcli.methods import METHODS, method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.output import select
from tokcli.ops.selection import top_k_mask
from tokcli.pipeline.restore import visual_tokens
from tokcli.types import TokenSet, VisualTokens

Tokcli = Callable[..., Any]


class LookedOptions(ImportanceOptions, SizeBudget):
    pass


@method("looked", options=LookedOptions, kind="select", count="exact", needs_from=importance_signals)
def looked(visual: VisualTokens, options: LookedOptions) -> TokenSet:
    """Keep what matters most."""
    return select(visual, top_k_mask(importance_of(visual, options), rows_to_keep("looked", options, visual)))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_loaded", {**METHODS.loaded(), "looked": looked})


@pytest.fixture
def clip(clips: Path) -> Path:
    return next(clips.glob("*.mp4"))


def methods_of(cache: Path) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = open_cache(cache).manifest.configuration["method"]["methods"]
    return stages


@pytest.mark.parametrize("importance", ["recv", "anticos"])
def test_compress_ranks_by_what_was_asked_for(tokcli: Tokcli, clip: Path, tmp_path: Path, importance: str) -> None:
    full, kept = tmp_path / "full", tmp_path / "kept"
    signals = ("--method", "none", "--keep-signals", "received_attention,meanq")
    assert tokcli("compress", clip, "-o", full, *signals, "--num-workers", 1).code == 0
    ranked = ("--method", "looked", "--keep", 0.25, "--importance", importance)
    assert tokcli("compress", clip, "-o", kept, *ranked, "--num-workers", 1).code == 0
    assert methods_of(kept)[0]["options"]["importance"] == importance
    item_id = open_cache(full).ids()[0]
    visual = visual_tokens(open_cache(full)[item_id])
    options = looked.parse({"importance": importance, "keep": 0.25})
    expected = looked.run(visual, options, item_id)
    assert torch.equal(open_cache(kept)[item_id].kept.source, expected.source)


def test_it_goes_to_every_method_that_has_it_and_set_wins(tokcli: Tokcli, clip: Path, tmp_path: Path) -> None:
    both = ("compress", clip, "-o", tmp_path / "a", "--method", "dtd,looked", "--keep", 0.2, "--num-workers", 1)
    assert tokcli(*both, "--importance", "recv", "--set", "looked.importance=meanq").code == 0
    assert methods_of(tmp_path / "a")[1]["options"]["importance"] == "meanq"
    again = tokcli(*both, "--importance", "meanq", "--json")
    assert again.code == 0 and again.document["skipped"] == 1


def test_eval_and_tune_take_it_too(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    shared = (clips, "--methods", "dtd,looked,looked:importance=anticos", "--keep", 0.5, "--importance", "cls")
    for command in (("eval", "--against", "full"), ("tune", "--sample", 2)):
        result = tokcli(command[0], *shared, *command[1:], "--prompt", "what?", "-o", tmp_path / command[0])
        # 'cls' reached the method: the default model has no [CLS].
        assert result.code == 2 and "needs the signal cls_attention, which nano does not give" in result.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "dtd", "--importance", "recv"], ["rank tokens by attention", "dtd does not", "looked"]),
        (["--method", "looked", "--importance", "most"], ["importance='most'", "'cls' or 'recv'"]),
        (["--method", "looked", "--importance", "cls"], ["cls_attention", "nano does not give"]),
        (["--method", "nothing", "--importance", "recv"], ["unknown method 'nothing'"]),
        (["--method", "auto", "--importance", "recv"], ["auto", "leave --importance out"]),
        (["--keep-signals", "meanq"], ["--method none", "not with dtd"]),
        (["--method", "none,dtd", "--keep-signals", "meanq"], ["not with none,dtd"]),
        (["--method", "none", "--keep-signals", "depth"], ["signal depth", "nano does not give"]),
        (["--method", "none", "--keep-signals", "keys", "--set", "signals=meanq"], ["leave one out"]),
    ],
)
def test_refused_before_any_work(
    tokcli: Tokcli, clip: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    result = tokcli("compress", clip, "-o", tmp_path / "cache", *arguments)
    assert result.code == 2
    assert all(word in result.error for word in words), result.error
    assert not (tmp_path / "cache").exists()


def test_kept_signals_stand_beside_the_tokens(tokcli: Tokcli, clip: Path, tmp_path: Path) -> None:
    """With a row for each token, float32, and the tokens are those of a cache without them."""
    plain, cache = tmp_path / "plain", tmp_path / "cache"
    names = {"received_attention": (), "meanq": (), "keys": (128,), "pre_projector": (128,), "pixel_change": ()}
    assert tokcli("compress", clip, "-o", plain, "--method", "none", "--num-workers", 1).code == 0
    asked = ("--method", "none", "--keep-signals", ",".join(names))
    assert tokcli("compress", clip, "-o", cache, *asked, "--num-workers", 1).code == 0
    item_id = open_cache(cache).ids()[0]
    visual = visual_tokens(open_cache(cache)[item_id])
    assert torch.equal(visual.tokens, open_cache(plain)[item_id].kept.tokens)
    assert {name: tuple(values.shape[1:]) for name, values in visual.signals.items()} == names
    assert all(values.dtype == torch.float32 and len(values) == len(visual) for values in visual.signals.values())
    steps = visual.views[0].grid[0]
    assert torch.allclose(visual.signals["meanq"].view(steps, -1).sum(dim=1), torch.ones(steps))
