"""Prompt files and the matching of questions to items."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tokcli.errors import UsageError
from tokcli.pipeline.prompts import ItemNames, Prompt, load_prompts, questions
from tokcli.recipe import InferRecipe


def load(path: Path) -> list[Prompt]:
    return load_prompts(InferRecipe(cache="c", prompts=str(path)))


def test_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("What is it?\n  Where is it? \n")
    assert [prompt.text for prompt in load(path)] == ["What is it?", "Where is it?"]


def test_jsonl_carries_item_and_extra_keys(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_text('{"id": "a.mp4", "question": "What?", "answer": "red", "kind": "color"}\n')
    assert load(path) == [Prompt("What?", "a.mp4", {"answer": "red", "kind": "color"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "One?\n\nTwo?\n", r"p\.txt:2: empty line"),
        ("p.txt", "", "no prompts"),
        ("p.jsonl", '{"question": "a"}\n\n', r"p\.jsonl:2: empty line"),
        ("p.jsonl", "nonsense\n", r"p\.jsonl:1: not a JSON object"),
        ("p.jsonl", '{"question": " "}\n', "needs a non-empty"),
        ("p.jsonl", '{"id": "x"}\n', "needs a non-empty"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.txt: cannot read the prompts"):
        load(tmp_path / "none.txt")


def test_questions_pair_items_and_prompts() -> None:
    ids = ["clips/a.mp4", "clips/b.mp4"]
    prompts = [Prompt("all?"), Prompt("only a?", "a.mp4"), Prompt("only b?", "clips/b.mp4"), Prompt("lost?", "c.mp4")]
    asked, missing = questions(prompts, ids)
    assert [question.key for question in asked] == [
        ("clips/a.mp4", "all?"),
        ("clips/a.mp4", "only a?"),
        ("clips/b.mp4", "all?"),
        ("clips/b.mp4", "only b?"),
    ]
    assert missing == ["c.mp4"]


def test_many_items_whose_files_have_the_same_name_are_found_at_once() -> None:
    ids = [f"data/{number:05d}/clip.mp4" for number in range(8000)]
    prompts = [Prompt("What?", item=item_id.removeprefix("data/")) for item_id in ids]
    started = time.monotonic()
    asked, missing = questions(prompts, ids)
    assert time.monotonic() - started < 5, "in a moment, not each name by a look at all"
    assert [question.item_id for question in asked] == ids and not missing


def test_a_name_is_the_end_of_an_id_or_an_id_the_end_of_a_name() -> None:
    names = ItemNames(["a/b/clip.mp4", "b/other.mp4", "lone.mp4"])
    assert names.find("b/clip.mp4") == names.find("clip.mp4") == "a/b/clip.mp4"
    assert names.find("/data/b/other.mp4") == "b/other.mp4"
    assert names.find("anywhere/lone.mp4") == "lone.mp4"
    assert names.find("c/clip.mp4") is names.find("ip.mp4") is names.find("xb/clip.mp4") is None


def test_a_line_ends_where_a_file_has_it_and_at_no_other_sign(tmp_path: Path) -> None:
    told = "One\u2028two\x0bthree\x85four"
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": told}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    (tmp_path / "p.txt").write_text(f"{told}\nWhat?\n", encoding="utf-8")
    assert [prompt.text for prompt in load(tmp_path / "p.jsonl")] == [told]
    assert [prompt.text for prompt in load(tmp_path / "p.txt")] == [told, "What?"]


def test_a_name_that_fits_two_items_is_not_guessed() -> None:
    asked, missing = questions([Prompt("?", "a.mp4")], ["x/a.mp4", "y/a.mp4"])
    assert asked == []
    assert missing == ["a.mp4"]


def test_the_same_question_is_asked_once() -> None:
    asked, _ = questions([Prompt("what?"), Prompt("what?")], ["a"])
    assert len(asked) == 1
