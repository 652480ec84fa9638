"""Questions to a cache: which items, which tokens of them, how many turns, and what stands in the rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import open_cache
from tokcli.errors import CacheConflictError, MethodError, TokcliError, UsageError
from tokcli.models import LanguageModel, Request, answering, load_language_model, problem_of
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.pipeline.infer import InferSummary, infer
from tokcli.recipe import CompressRecipe, DeriveRecipe, InferRecipe

PROMPTS = ["What color is the circle?", "How many objects are there?", "Which way does the square move?"]
SCHEMA = {
    "type": "object",
    "properties": {
        "color": {"enum": ["red", "blue", "green"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["color", "count"],
    "additionalProperties": False,
}
TIMES = ("seconds",)


@pytest.fixture(scope="module")
def cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips with all tokens; their labels are cat, dog, cat and none at all."""
    folder = tmp_path_factory.mktemp("infer")
    paths = sorted(path for path in clips.iterdir() if path.suffix != ".jsonl")[:4]
    rows = [{"path": str(path), "id": path.stem, "year": 2000 + i} for i, path in enumerate(paths)]
    for row, label in zip(rows, ("cat", "dog", "cat")):
        row["label"] = label
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = CompressRecipe(
        inputs=[str(manifest)], output=str(folder / "cache"), method="none", id_col="id", dtype="float32", workers=1
    )
    assert compress(recipe).failed == 0
    return folder / "cache"


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    return load_language_model("nano", dtype="float32", device="cpu")


def ask(cache: Path, **settings: Any) -> list[dict[str, Any]]:
    return run(cache, **settings)[0]


def run(cache: Path, **settings: Any) -> tuple[list[dict[str, Any]], InferSummary]:
    rows: list[dict[str, Any]] = []
    given = {"prompt": PROMPTS[:1]} | settings if "prompts" not in settings else settings
    summary = infer(InferRecipe(cache=str(cache), dtype="float32", device="cpu", **given), on_row=rows.append)
    return sorted(rows, key=lambda row: row["id"]), summary


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    kept = [{key: value for key, value in row.items() if key not in (*TIMES, *names)} for row in rows]
    return sorted(kept, key=lambda row: (row["id"], row["prompt"]))


def test_items_computed_once_give_the_same_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = []
    whole = answering.asking.ask

    def counted(language: Any, requests: Any, **options: Any) -> Any:
        shared.append(len(requests))
        return whole(language, requests, **options)

    monkeypatch.setattr(answering.asking, "ask", counted)
    monkeypatch.setattr(answering, "SHARED_TOKENS", 10**9)
    alone = ask(cache, prompt=PROMPTS)
    assert shared == []
    monkeypatch.setattr(answering, "SHARED_TOKENS", 0)
    together = ask(cache, prompt=PROMPTS, batch_size=2)
    assert shared == [3] * 4
    assert without(together) == without(alone)
    assert len({row["answer"] for row in alone}) > 2


@pytest.mark.parametrize("budget", [{"method": "evs", "keep": 0.4}, {"keep": 0.1}, {"method": "dtd", "threshold": 0.3}])
def test_a_budget_when_reading_is_that_of_a_derived_cache(cache: Path, tmp_path: Path, budget: dict[str, Any]) -> None:
    small = tmp_path / "small"
    derive(DeriveRecipe(cache=str(cache), output=str(small), **{"method": "uniform", **budget}))
    read, derived = ask(cache, prompt=PROMPTS, **budget), ask(small, prompt=PROMPTS)
    aside = ("settings", "cache_fingerprint")
    assert without(read, *aside) == without(derived, *aside)
    assert all(0 < row["visual_tokens"] < row["source_tokens"] for row in read)
    # And again: behind the method that the smaller cache was made with.
    twice = tmp_path / "twice"
    derive(DeriveRecipe(cache=str(small), output=str(twice), method="random", keep=0.05))
    again = ask(small, prompt=PROMPTS, method="random", keep=0.05)
    assert without(again, *aside) == without(ask(twice, prompt=PROMPTS), *aside)


def test_a_selector_keeps_for_each_prompt_what_is_like_it(cache: Path, language: LanguageModel) -> None:
    import torch

    rows = ask(cache, prompt=PROMPTS, select="text_cosine", keep=0.2, limit=2)
    items = {item.id: item for item in open_cache(cache)}
    for row in rows:
        item = items[row["id"]]
        words = language.text_embeddings(row["prompt"])
        count = len(language.tokenizer(row["prompt"], add_special_tokens=False).input_ids)
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
        expected = language.generate([Request([replace(item, kept=kept)], row["prompt"])], max_new_tokens=64)[0]
        assert row["answer"] == expected.text
    both = ask(cache, select="text_cosine", keep=0.1, method="evs", options={"evs.pruning_rate": "0.5"}, limit=1)
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
def test_impossible_settings_are_refused_at_once(cache: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(cache, **settings)


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["id"].rsplit("-", 1)[1]) for row in rows]


def test_conditions_samples_and_ids_leave_items_out(cache: Path, tmp_path: Path) -> None:
    assert ids(ask(cache, where="label = 'cat' and duration_s > 0")) == [0, 2]
    assert ids(ask(cache, where="meta_year >= 2001 and year < 2003")) == [1, 2]
    names = open_cache(cache).ids()
    assert [row["id"] for row in ask(cache, where="true", limit=1)] == names[:1]
    assert ids(ask(cache, where="label is null or kind = 'image'")) == [3]
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{names[3]}\n\n{names[1]}\n")
    assert {row["id"] for row in ask(cache, ids=[str(listed)])} == {names[1], names[3]}
    assert {row["id"] for row in ask(cache, ids=[f"{names[0]}, {names[2]}"])} == {names[0], names[2]}
    drawn = ids(ask(cache, sample=2, seed=1))
    assert len(drawn) == 2
    assert drawn == ids(ask(cache, sample=2, seed=1))
    assert set(drawn) < set(ids(ask(cache, sample=3, seed=1)))
    for settings, message in (
        ({"where": "lable = 'cat'"}, "--where .*Referenced column .*lable"),
        ({"where": "label ="}, "--where .*Parser Error"),
        ({"where": "label = 'cow'"}, "no item to ask"),
        ({"where": "id in (select content from read_text('/etc/hostname'))"}, "Permission Error"),
        ({"ids": ["nobody"]}, "no item 'nobody'"),
        ({"group_by": "lable"}, "no such column.*did you mean 'label'"),
    ):
        with pytest.raises(TokcliError, match=message) as caught:
            ask(cache, **settings)
        assert "\n" not in str(caught.value)


def test_fields_are_filled_in_and_one_without_value_is_a_row_with_its_error(cache: Path, tmp_path: Path) -> None:
    prompt = 'Is there a {label} of {year}? Say {{label}} or {"a": {"b": 1}}.'
    path = tmp_path / "answers.jsonl"
    rows, summary = run(cache, prompt=[prompt], output=str(path))
    assert [row["prompt"] for row in rows[:3]] == [
        f'Is there a {label} of {year}? Say {{label}} or {{"a": {{"b": 1}}}}.'
        for label, year in (("cat", 2000), ("dog", 2001), ("cat", 2002))
    ]
    assert (rows[3]["prompt"], rows[3]["answer"]) == (prompt, None)
    assert rows[3]["error"] == "it has no value for 'label', which the prompt asks for"
    assert (summary.answered, summary.failed) == (3, 1)
    rows, summary = run(cache, prompt=[prompt], output=str(path))
    assert (len(rows), summary.skipped, summary.failed) == (0, 4, 1)
    rows, summary = run(cache, prompt=[prompt], output=str(path), retry_errors=True)
    assert (len(rows), summary.skipped, summary.failed) == (1, 3, 1)
    assert len(path.read_text().splitlines()) == 4
    with pytest.raises(UsageError, match=r"no field 'lable'; it has .*label.*did you mean 'label'\?; write \{\{lable"):
        ask(cache, prompt=["Is there a {lable}?"])


def test_an_item_that_cannot_meet_the_budget_costs_no_other_its_answer(cache: Path) -> None:
    sizes = {item.id: item.views[0].num_tokens // item.views[0].grid[0] for item in open_cache(cache)}
    least = max(sizes.values()) - 1
    rows, summary = run(cache, method="evs", max_tokens=least)
    assert summary.failed == sum(size > least for size in sizes.values()) > 0
    for row in rows:
        assert (row["error"] is None) == (sizes[row["id"]] <= least)
        assert row["error"] is None or "keeps at least the first step whole" in row["error"]


def test_answers_keep_to_a_schema(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    rows = ask(cache, prompt=PROMPTS[:2], schema_file=str(path))
    assert [problem_of(row["answer"], SCHEMA) for row in rows] == [None] * 8
    assert {row["error"] for row in rows} == {None}
    rows, summary = run(cache, schema_file=str(path), max_new_tokens=4, limit=1)
    assert rows[0]["error"] == "the answer was cut after 4 tokens, inside its JSON; raise --max-new-tokens"
    assert (rows[0]["answer"] is not None, summary.failed) == (True, 1)
    path.write_text('{"type": "objekt"}')
    with pytest.raises(UsageError, match=r"schema\.json: the schema is no JSON Schema: type"):
        ask(cache, schema_file=str(path))
    path.write_text('{"not": {"type": "string"}}')
    with pytest.raises(UsageError, match="can't be held while an answer is written"):
        ask(cache, schema_file=str(path))
    with pytest.raises(UsageError, match=r"none\.json: cannot read the schema"):
        ask(cache, schema_file=str(tmp_path / "none.json"))


def test_a_stopped_run_draws_what_a_whole_one_does(cache: Path, tmp_path: Path) -> None:
    drawn = {"temperature": 3.0, "top_k": 50, "seed": 7, "max_new_tokens": 8}
    whole = ask(cache, prompt=PROMPTS, **drawn)
    path = tmp_path / "answers.jsonl"
    ask(cache, prompt=PROMPTS, output=str(path), limit=2, batch_size=1, **drawn)
    rest = ask(cache, prompt=PROMPTS, output=str(path), **drawn)
    assert len(rest) == 6
    assert without([json.loads(line) for line in path.read_text().splitlines()]) == without(whole)
    assert without(ask(cache, prompt=PROMPTS, **{**drawn, "seed": 8}), "settings") != without(whole, "settings")
    for other in ({"seed": 8}, {"keep": 0.5}, {"system": "be short"}, {"max_new_tokens": 9}):
        with pytest.raises(CacheConflictError, match=r"holds answers with settings .*top_k=50.*--overwrite"):
            ask(cache, prompt=PROMPTS, output=str(path), **{**drawn, **other})


def test_items_of_a_group_are_in_one_prompt(cache: Path, language: LanguageModel) -> None:
    rows = ask(cache, prompt=["Which {label} is it? {year}"], group_by="label")
    cats = [item for item in open_cache(cache) if item.metadata["label"] == "cat"]
    assert [row["id"] for row in rows] == ["cat", "dog"]
    assert rows[0]["items"] == [item.id for item in cats]
    assert rows[0]["prompt"] == f"Which cat is it? {cats[0].metadata['year']}, {cats[1].metadata['year']}"
    assert rows[0]["visual_tokens"] == sum(len(item.kept) for item in cats)
    alone = language.generate([Request(cats, rows[0]["prompt"])], max_new_tokens=64)[0]
    assert (rows[0]["answer"], rows[0]["prompt_tokens"]) == (alone.text, alone.prompt_tokens)


def test_conversations_go_turn_by_turn(cache: Path, language: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    first = open_cache(cache).ids()[0]
    chats = [
        {"messages": [{"role": "user", "content": text} for text in PROMPTS]},
        {
            "id": first,
            "kind": "given",
            "conversations": [
                {"from": "system", "value": "be short"},
                {"from": "human", "value": "<image>\n" + PROMPTS[0]},
                {"from": "gpt", "value": "mauve"},
                {"from": "human", "value": PROMPTS[2]},
            ],
        },
        {"prompt": PROMPTS[2]},
    ]
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    output = tmp_path / "answers.jsonl"
    rows = ask(cache, prompts=str(path), output=str(output))
    assert len(rows) == 9
    item = open_cache(cache)[first]
    history: tuple[tuple[str, str], ...] = ()
    for text in PROMPTS:
        reply = language.generate([Request([item], text, history=history)], max_new_tokens=64)[0].text
        history += ((text, reply),)
    of_first = {row.get("kind"): row for row in rows if row["id"] == first and "messages" in row}
    said = [text for turn in history for text in turn]
    assert [message["content"] for message in of_first[None]["messages"]] == said
    assert [message["role"] for message in of_first[None]["messages"]] == ["user", "assistant"] * 3
    given = Request([item], PROMPTS[2], "be short", ((PROMPTS[0], "mauve"),))
    assert of_first["given"]["answer"] == language.generate([given], max_new_tokens=64)[0].text
    assert ask(cache, prompts=str(path), output=str(output)) == []
    whole = tmp_path / "chat.json"
    whole.write_text(json.dumps(chats[0]["messages"]))
    aside = ("kind",)
    assert without(ask(cache, prompts=str(whole), limit=1), *aside) == without([of_first[None]], *aside)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "needs a non-empty"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "last message must be a question"),
        ([{"role": "assistant", "content": "b"}], "no question stands before"),
        ([{"role": "robot", "content": "b"}], "unknown role 'robot'; allowed: user"),
        ([{"role": "user", "content": ["a"]}], "message 1 needs a text"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "must be the first"),
    ],
)
def test_bad_conversations_are_named(cache: Path, tmp_path: Path, messages: list[Any], message: str) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    with pytest.raises(UsageError, match=message) as caught:
        ask(cache, prompts=str(path))
    assert "chat.jsonl:1" in str(caught.value)


def test_methods_that_need_a_signal_say_how_to_store_it(cache: Path) -> None:
    for name in ("holitom", "fastvid"):
        with pytest.raises(MethodError, match=r"needs the signal .* does not hold .*--keep-signals"):
            ask(cache, method=name, keep=0.5)
