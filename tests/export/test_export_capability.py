"""The facts that decide what engines can take, against what the adapters do; and the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_tiny import make_family
from llava_tiny import EXACT, make_llava
from test_family_contract import FAMILIES as TINY
from tiny_checkpoints import encode_item, make_checkpoint, make_info

from tokcli.models import load_prompt_layout, load_tower
from tokcli.models.families import FAMILIES
from tokcli.models.positions import Block, Text
from tokcli.pipeline.export.capability import ENGINES, FILES, TOKENS, capability_table, verdict
from tokcli.pipeline.export.facts import Facts, facts_of
from tokcli.pipeline.export.run import verdict_of


def make(family: str, folder: Path) -> Path:
    if family == "llava":
        return make_llava(folder, EXACT)
    return make_family(folder, TINY[family]) if family in TINY else make_checkpoint(folder, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_are_what_adapters_do(family: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path / family)
    tower, layout = load_tower(str(folder), device="cpu"), load_prompt_layout(str(folder))
    adapter, config = layout.family, layout.config
    items = {
        kind: replace(encode_item(tower, make_info(kind, frames=5), name=kind), indices=np.arange(5) * 13 + 2)
        for kind in ("image", "video")
    }

    def has_text(item: Any) -> bool:
        pieces = adapter.expand(item, config, layout.tokenizer)
        return any(not isinstance(piece, Block) for piece in pieces) or adapter.around(item) != ("", "")

    def interval(seconds: float) -> Any:
        (piece, *_) = adapter.expand(replace(items["video"], seconds_per_step=seconds), config, layout.tokenizer)
        return piece.interval if isinstance(piece, Block) else 1.0

    ids = torch.zeros(1, 1, dtype=torch.long)
    assert facts_of(family) == Facts(
        family=family,
        mrope=adapter.positions([Text(1)], torch.tensor([0]), "original").dim() == 2,
        levels=items["image"].kept.levels > 0,
        both_ways=bool(adapter.further_inputs(ids, config)),
        separators=any(len(item.kept) != sum(view.num_tokens for view in item.views) for item in items.values()),
        timed=interval(1.0) != interval(2.0),
        text_between=frozenset(kind for kind, item in items.items() if has_text(item)),
        video_token=adapter.placeholder(config, "image") != adapter.placeholder(config, "video"),
    )


def test_the_table_has_every_case_and_says_why() -> None:
    cases = capability_table()
    assert {case.family for case in cases} == set(FAMILIES)
    assert {case.tokens for case in cases} == set(TOKENS)
    for case in cases:
        assert set(case.verdicts) == {*FILES, *ENGINES}
        for name, cell in case.verdicts.items():
            assert (cell.form is None) == (cell.word == "refused" or name in FILES)
            assert bool(cell.why) == (cell.word != "exact")
            assert bool(cell.remedy) == (cell.word == "refused" or cell.asked)
            # Models with M-RoPE never get other positions than theirs unless that is asked for.
            assert cell.asked == (cell.word == "compact" and facts_of(case.family).mrope)
            if cell.form in ("grid", "encoder"):
                assert case.tokens == "all"


def test_selecting_and_merging_are_the_same_to_engines() -> None:
    for family in FAMILIES:
        for kind in ("image", "video"):
            for engine in ENGINES:
                some = [verdict(facts_of(family), kind, tokens, engine, seconds=1.0) for tokens in TOKENS[1:]]
                assert some[0] == some[1]


def row(**changes: Any) -> dict[str, Any]:
    views = [{"t": 1, "h": 4, "w": 4}]
    values = {"kind": "image", "kept_tokens": 16, "source_tokens": 16, "views": views, "seconds_per_step": None}
    return values | changes


def test_a_smaller_frame_is_whole_by_its_grid_but_not_to_who_counts_from_the_picture() -> None:
    facts = facts_of("qwen2_vl")
    smaller = row(source_tokens=64)
    assert verdict_of(smaller, facts, "vllm").word == "exact"
    assert verdict_of(smaller, facts, "ec-connector").word == "refused"
    assert verdict_of(row(), facts, "ec-connector").word == "exact"
    assert verdict_of(row(kept_tokens=15), facts, "vllm").asked
    assert verdict_of(row(kept_tokens=0), facts, "vllm").word == "refused"


def test_newlines_count_though_the_grid_does_not_tell_them() -> None:
    facts = facts_of("llava_next")
    assert verdict_of(row(kept_tokens=20, source_tokens=20), facts, "vllm").word == "exact"
    assert verdict_of(row(kept_tokens=16, source_tokens=20), facts, "vllm").word == "compact"
