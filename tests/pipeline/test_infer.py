"""Questions to a cache: which items, which tokens of them, and what stands in the rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from infer_rows import PROMPTS, ask, run, without

from tokcli.cache import open_cache
from tokcli.errors import CacheConflictError, MethodError, TokcliError, UsageError
from tokcli.models import LanguageModel, Request, answering, problem_of
from tokcli.pipeline.derive import derive
from tokcli.recipe import DeriveRecipe

SCHEMA = {
    "type": "object",
    "properties": {
        "color": {"enum": ["red", "blue", "green"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["color", "count"],
    "additionalProperties": False,
}


def test_items_computed_once_give_the_same_answers(labelled_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = []
    whole = answering.asking.ask

    def counted(language: Any, requests: Any, **options: Any) -> Any:
        shared.append(len(requests))
        return whole(language, requests, **options)

    monkeypatch.setattr(answering.asking, "ask", counted)
    monkeypatch.setattr(answering, "SHARED_TOKENS", 10**9)
    alone = ask(labelled_cache, prompt=PROMPTS)
    assert shared == []
    monkeypatch.setattr(answering, "SHARED_TOKENS", 0)
    together = ask(labelled_cache, prompt=PROMPTS, batch_size=2)
    assert shared == [3] * 4
    assert without(together) == without(alone)
    assert len({row["answer"] for row in alone}) > 2


@pytest.mark.parametrize("budget", [{"method": "evs", "keep": 0.4}, {"keep": 0.1}, {"method": "dtd", "threshold": 0.3}])
def test_a_budget_when_reading_is_that_of_a_derived_cache(
    labelled_cache: Path, tmp_path: Path, budget: dict[str, Any]
) -> None:
    small = tmp_path / "small"
    # Tokens that are chosen when asking are rounded by nothing.
    values = {"method": "uniform", "tokens_dtype": "exact", **budget}
    derive(DeriveRecipe(cache=str(labelled_cache), output=str(small), **values))
    read, derived = ask(labelled_cache, prompt=PROMPTS, **budget), ask(small, prompt=PROMPTS)
    aside = ("settings", "cache_fingerprint")
    assert without(read, *aside) == without(derived, *aside)
    assert all(0 < row["visual_tokens"] < row["source_tokens"] for row in read)
    # And again: behind the method that the smaller cache was made with.
    twice = tmp_path / "twice"
    derive(DeriveRecipe(cache=str(small), output=str(twice), method="random", keep=0.05, tokens_dtype="exact"))
    again = ask(small, prompt=PROMPTS, method="random", keep=0.05)
    assert without(again, *aside) == without(ask(twice, prompt=PROMPTS), *aside)


def test_a_selector_keeps_for_each_prompt_what_is_like_it(labelled_cache: Path, nano: LanguageModel) -> None:
    import torch

    rows = ask(labelled_cache, prompt=PROMPTS, select="text_cosine", keep=0.2, limit=2)
    items = {item.id: item for item in open_cache(labelled_cache)}
    for row in rows:
        item = items[row["id"]]
        words = nano.text_embeddings(row["prompt"])
        count = len(nano.tokenizer(row["prompt"], add_special_tokens=False).input_ids)
        assert words.shape == (count, item.kept.tokens.shape[1])
        cosines = torch.nn.functional.cosine_similarity(item.kept.tokens.float()[:, None], words[None], dim=-1).mean(
            dim=1
        )
        count = row["visual_tokens"]
        assert count == round(0.2 * item.source_tokens)
        best = torch.sort(cosines, descending=True, stable=True).indices[:count].sort().values
        kept = replace(
            item.kept,
            tokens=item.kept.tokens[best],
            coords=item.kept.coords[best],
            mass=item.kept.mass[best],
            source=best,
        )
        expected = nano.generate([Request([replace(item, kept=kept)], row["prompt"])], max_new_tokens=64)[0]
        assert row["answer"] == expected.text
    both = ask(
        labelled_cache, select="text_cosine", keep=0.1, method="evs", options={"evs.pruning_rate": "0.5"}, limit=1
    )
    assert both[0]["visual_tokens"] == round(0.1 * both[0]["source_tokens"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "downsample", "keep": 0.5}, "works before there are tokens"),
        ({"method": "nothing"}, "unknown method 'nothing'"),
        ({"select": "nothing", "keep": 0.1}, "unknown selector 'nothing'; known: text_cosine"),
        ({"select": "text_cosine"}, "needs a budget"),
        ({"select": "text_cosine", "keep": 2.0}, "keep=2.0 is not allowed"),
        ({"select": "text_cosine", "keep": 0.1, "options": {"evs.variant": "official"}}, "add --method"),
        ({"options": {"variant": "official"}}, "add --method or --select"),
        ({"top_p": 0.5}, "temperature 0 draws nothing"),
    ],
)
def test_impossible_settings_are_refused_at_once(labelled_cache: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(labelled_cache, **settings)


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["id"].rsplit("-", 1)[1]) for row in rows]


def test_conditions_samples_and_ids_leave_items_out(labelled_cache: Path, tmp_path: Path) -> None:
    assert ids(ask(labelled_cache, where="label = 'cat' and duration_s > 0")) == [0, 2]
    assert ids(ask(labelled_cache, where="meta_year >= 2001 and year < 2003")) == [1, 2]
    names = open_cache(labelled_cache).ids()
    assert [row["id"] for row in ask(labelled_cache, where="true", limit=1)] == names[:1]
    assert ids(ask(labelled_cache, where="label is null or kind = 'image'")) == [3]
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{names[3]}\n\n{names[1]}\n")
    assert {row["id"] for row in ask(labelled_cache, ids=[str(listed)])} == {names[1], names[3]}
    assert {row["id"] for row in ask(labelled_cache, ids=[f"{names[0]}, {names[2]}"])} == {names[0], names[2]}
    drawn = ids(ask(labelled_cache, sample=2, seed=1))
    assert len(drawn) == 2
    assert drawn == ids(ask(labelled_cache, sample=2, seed=1))
    assert set(drawn) < set(ids(ask(labelled_cache, sample=3, seed=1)))
    for settings, message in (
        ({"where": "lable = 'cat'"}, "--where .*Referenced column .*lable"),
        ({"where": "label ="}, "--where .*Parser Error"),
        ({"where": "label = 'cow'"}, "no item to ask: none passes --where .*cow.*--items` lists them"),
        ({"where": "id in (select content from read_text('/etc/hostname'))"}, "Permission Error"),
        ({"ids": ["nobody"]}, "no item 'nobody'"),
        ({"group_by": "lable"}, "no such column.*did you mean 'label'"),
    ):
        with pytest.raises(TokcliError, match=message) as caught:
            ask(labelled_cache, **settings)
        assert "\n" not in str(caught.value)


def test_an_item_that_cannot_meet_the_budget_costs_no_other_its_answer(labelled_cache: Path) -> None:
    sizes = {item.id: item.views[0].num_tokens // item.views[0].grid[0] for item in open_cache(labelled_cache)}
    least = max(sizes.values()) - 1
    rows, summary = run(labelled_cache, method="evs", max_tokens=least)
    assert summary.failed == sum(size > least for size in sizes.values()) > 0
    for row in rows:
        assert (row["error"] is None) == (sizes[row["id"]] <= least)
        assert row["error"] is None or "keeps at least the first step whole" in row["error"]


def test_answers_keep_to_a_schema(labelled_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    rows = ask(labelled_cache, prompt=PROMPTS[:2], schema_file=str(path))
    assert [problem_of(row["answer"], SCHEMA) for row in rows] == [None] * 8
    assert {row["error"] for row in rows} == {None}
    rows, summary = run(labelled_cache, schema_file=str(path), max_new_tokens=4, limit=1)
    assert rows[0]["error"] == "the answer was cut after 4 tokens, inside its JSON; raise --max-new-tokens"
    assert (rows[0]["answer"] is not None, summary.failed) == (True, 1)
    path.write_text('{"type": "objekt"}')
    with pytest.raises(UsageError, match=r"schema\.json: the schema is no JSON Schema: type"):
        ask(labelled_cache, schema_file=str(path))
    path.write_text('{"not": {"type": "string"}}')
    with pytest.raises(UsageError, match="can't be held while an answer is written"):
        ask(labelled_cache, schema_file=str(path))
    with pytest.raises(UsageError, match=r"none\.json: cannot read the schema"):
        ask(labelled_cache, schema_file=str(tmp_path / "none.json"))


def test_a_stopped_run_draws_what_a_whole_one_does(labelled_cache: Path, tmp_path: Path) -> None:
    drawn = {"temperature": 3.0, "top_k": 50, "seed": 7, "max_new_tokens": 8}
    whole = ask(labelled_cache, prompt=PROMPTS, **drawn)
    path = tmp_path / "answers.jsonl"
    ask(labelled_cache, prompt=PROMPTS, output=str(path), limit=2, batch_size=1, **drawn)
    rest = ask(labelled_cache, prompt=PROMPTS, output=str(path), **drawn)
    assert len(rest) == 6
    assert without([json.loads(line) for line in path.read_text().splitlines()]) == without(whole)
    assert without(ask(labelled_cache, prompt=PROMPTS, **{**drawn, "seed": 8}), "settings") != without(
        whole, "settings"
    )
    for other in ({"seed": 8}, {"keep": 0.5}, {"system": "be short"}, {"max_new_tokens": 9}):
        with pytest.raises(CacheConflictError, match=r"holds answers with settings .*top_k=50.*--overwrite"):
            ask(labelled_cache, prompt=PROMPTS, output=str(path), **{**drawn, **other})


def test_methods_that_need_a_signal_say_how_to_store_it(labelled_cache: Path) -> None:
    for name in ("holitom", "fastvid"):
        with pytest.raises(MethodError, match=r"needs the signal .* does not hold .*--keep-signals"):
            ask(labelled_cache, method=name, keep=0.5)
