"""Layouts of question files, and where their faults are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokcli.errors import UsageError
from tokcli.evaluate.matching import by_item
from tokcli.evaluate.questions import Question, general_questions, read_questions


def read(path: Path, *rows: dict[str, Any], labelled: bool = True) -> list[Question]:
    file = path / "qa.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(file, labelled=labelled)


def test_a_row_ends_where_the_file_has_a_line(tmp_path: Path) -> None:
    told = "One\u2028two\x85three"
    file = tmp_path / "qa.jsonl"
    row = {"id": "a.mp4", "question": told, "answer": told}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (question,) = read_questions(file, labelled=True)
    assert (question.text, question.answers) == (told, (told,))


def test_rendered_rows(tmp_path: Path) -> None:
    row = {"id": "pan-1.mp4", "kind": "count", "scene": "pan", "question": "How many? ", "answer": "3", "chance": 0.2}
    (question,) = read(tmp_path, row)
    assert question == Question(0, "How many?", ("pan-1.mp4",), ("3",), kind="count", chance=0.2)


@pytest.mark.parametrize(
    ("row", "options", "correct", "kind"),
    [
        # As Video-MME, MVBench, EgoSchema, NExT-QA and others lay them out.
        (
            {"video_id": "v", "options": ["A. A dog.", "B. A cat."], "answer": "B", "task_type": "Recognition"},
            ("A dog.", "A cat."),
            1,
            "Recognition",
        ),
        ({"video": "v", "candidates": ["left", "right"], "answer": "right"}, ("left", "right"), 1, None),
        ({"video_path": "v", "options": ["x", "y", "z"], "answer": 2, "category": "c"}, ("x", "y", "z"), 2, "c"),
        ({"image": "v", "options": {"A": "one", "B": "two"}, "answer": "(A)"}, ("one", "two"), 0, None),
        ({"path": "v", "choices": ["yes", "no"], "answer": ["no"]}, ("yes", "no"), 1, None),
        ({"id": "v", "options": ["4", "2"], "answer": 2}, ("4", "2"), 1, None),  # its text, before its number
        ({"id": "v", "options": ["(A) up", "(B) down"], "answer": "B. down"}, ("up", "down"), 1, None),
    ],
)
def test_multiple_choice(
    tmp_path: Path, row: dict[str, Any], options: tuple[str, ...], correct: int, kind: str | None
) -> None:
    (question,) = read(tmp_path, {"question": "Which?", **row})
    assert (question.options, question.correct, question.kind) == (options, correct, kind)
    assert question.answers == (options[correct],)
    assert question.chance == 1 / len(options)
    assert question.items == ("v",)


def test_open_answers_may_be_several_and_numbers(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "?", "answers": ["x", "y", "x"]}, {"id": "a", "question": "?", "answer": 7}]
    assert [question.answers for question in read(tmp_path, *rows)] == [("x", "y"), ("7",)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"id": "a", "answer": "x"}', "needs a non-empty 'question'"),
        ('{"question": "?", "answer": "x"}', "needs the item"),
        ('{"id": "a", "question": "?"}', "--against full"),
        ('{"id": "a", "question": "?", "options": ["x", "y"], "answer": "z"}', "none of the options 'x', 'y'"),
        ('{"id": "a", "question": "?", "options": ["x"], "answer": "x"}', "at least two"),
        ('{"id": "a", "question": "?", "answer": {"x": 1}}', "must be text"),
        ('{"id": "a", "question": "?", "answer": "x", "chance": 2}', "from 0 to 1"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "qa.jsonl"
    file.write_text('{"id": "a", "question": "?", "answer": "x"}\n\n' + line + "\n")
    with pytest.raises(UsageError) as caught:
        read_questions(file, labelled=True)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert words in str(caught.value)


def test_rows_without_answers_are_for_comparisons(tmp_path: Path) -> None:
    (question,) = read(tmp_path, {"id": "a", "question": "?"}, labelled=False)
    assert question.answers == ()


def ask(*items: str) -> Question:
    return Question(0, "?", items, ("x",))


def test_items_are_found_by_id_by_end_and_by_stem() -> None:
    ids = ["clips/a.mp4", "clips/b.webm", "other/b.mkv"]
    for name in ("clips/a.mp4", "a.mp4", "a", "/data/clips/a.mp4"):
        asked, missing = by_item([ask(name)], ids)
        assert (list(asked), missing) == (["clips/a.mp4"], [])
    # A question's own id beside the video's name: the name that is known decides.
    assert list(by_item([ask("q-17", "a.mp4")], ids)[0]) == ["clips/a.mp4"]
    asked, missing = by_item([ask("a"), ask("b")], ids)
    assert (list(asked), missing) == (["clips/a.mp4"], ["b"])


@pytest.mark.parametrize("name", ["test/001", "test/001.mp4", "test/001.webm"])
def test_a_folder_in_a_name_must_be_the_items(name: str) -> None:
    asked, missing = by_item([ask(name), ask("val/001")], ["set/val/001.mp4"])
    assert (list(asked), missing) == (["set/val/001.mp4"], [name])


def test_prompts_go_to_every_item_and_no_match_is_refused() -> None:
    asked, _ = by_item(general_questions(["What?", "Where?"], first=3), ["a", "b"])
    assert {item: [question.number for question in questions] for item, questions in asked.items()} == {
        "a": [3, 4],
        "b": [3, 4],
    }
    with pytest.raises(UsageError, match="none of the 1 questions"):
        by_item([ask("z.mp4")], ["a.mp4"])
