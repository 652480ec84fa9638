"""What prompts become: fields of the items, several items in one prompt, and turns of a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from infer_rows import PROMPTS, ask, run, without

from tokcli.cache import open_cache
from tokcli.errors import UsageError
from tokcli.models import LanguageModel, Request


def test_fields_are_filled_in_and_one_without_value_is_a_row_with_its_error(
    labelled_cache: Path, tmp_path: Path
) -> None:
    prompt = 'Is there a {label} of {year}? Say {{label}} or {"a": {"b": 1}}.'
    path = tmp_path / "answers.jsonl"
    rows, summary = run(labelled_cache, prompt=[prompt], output=str(path))
    assert [row["prompt"] for row in rows[:3]] == [
        f'Is there a {label} of {year}? Say {{label}} or {{"a": {{"b": 1}}}}.'
        for label, year in (("cat", 2000), ("dog", 2001), ("cat", 2002))
    ]
    assert (rows[3]["prompt"], rows[3]["answer"]) == (prompt, None)
    assert rows[3]["error"] == "it has no value for 'label', which the prompt asks for"
    assert (summary.answered, summary.failed) == (3, 1)
    rows, summary = run(labelled_cache, prompt=[prompt], output=str(path))
    assert (len(rows), summary.skipped, summary.failed) == (0, 4, 1)
    rows, summary = run(labelled_cache, prompt=[prompt], output=str(path), retry_errors=True)
    assert (len(rows), summary.skipped, summary.failed) == (1, 3, 1)
    assert len(path.read_text().splitlines()) == 4
    with pytest.raises(UsageError, match=r"no field 'lable'; it has .*label.*did you mean 'label'\?; write \{\{lable"):
        ask(labelled_cache, prompt=["Is there a {lable}?"])


def test_items_of_a_group_are_in_one_prompt(labelled_cache: Path, nano: LanguageModel) -> None:
    rows = ask(labelled_cache, prompt=["Which {label} is it? {year}"], group_by="label")
    cats = [item for item in open_cache(labelled_cache) if item.metadata["label"] == "cat"]
    assert [row["id"] for row in rows] == ["cat", "dog"]
    assert rows[0]["items"] == [item.id for item in cats]
    assert rows[0]["prompt"] == f"Which cat is it? {cats[0].metadata['year']}, {cats[1].metadata['year']}"
    assert rows[0]["visual_tokens"] == sum(len(item.kept) for item in cats)
    alone = nano.generate([Request(cats, rows[0]["prompt"])], max_new_tokens=64)[0]
    assert (rows[0]["answer"], rows[0]["prompt_tokens"]) == (alone.text, alone.prompt_tokens)


def test_conversations_go_turn_by_turn(labelled_cache: Path, nano: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    first = open_cache(labelled_cache).ids()[0]
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
    rows = ask(labelled_cache, prompts=str(path), output=str(output))
    assert len(rows) == 9
    item = open_cache(labelled_cache)[first]
    history: tuple[tuple[str, str], ...] = ()
    for text in PROMPTS:
        reply = nano.generate([Request([item], text, history=history)], max_new_tokens=64)[0].text
        history += ((text, reply),)
    of_first = {row.get("kind"): row for row in rows if row["id"] == first and "messages" in row}
    said = [text for turn in history for text in turn]
    assert [message["content"] for message in of_first[None]["messages"]] == said
    assert [message["role"] for message in of_first[None]["messages"]] == ["user", "assistant"] * 3
    given = Request([item], PROMPTS[2], "be short", ((PROMPTS[0], "mauve"),))
    assert of_first["given"]["answer"] == nano.generate([given], max_new_tokens=64)[0].text
    assert ask(labelled_cache, prompts=str(path), output=str(output)) == []
    whole = tmp_path / "chat.json"
    whole.write_text(json.dumps(chats[0]["messages"]))
    aside = ("kind",)
    assert without(ask(labelled_cache, prompts=str(whole), limit=1), *aside) == without([of_first[None]], *aside)


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
def test_bad_conversations_are_named(labelled_cache: Path, tmp_path: Path, messages: list[Any], message: str) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    with pytest.raises(UsageError, match=message) as caught:
        ask(labelled_cache, prompts=str(path))
    assert "chat.jsonl:1" in str(caught.value)
