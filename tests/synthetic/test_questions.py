"""Questions have one right answer each, say what they ask about, and come in more than one wording."""

from collections import Counter, defaultdict

import pytest

from tokcli.synthetic import PHRASES, QUESTION_KINDS, Question, make_scene, questions, scene_kinds

ASKED_OF = {
    "static": {"color", "shape", "motion", "count", "place", "compare"},
    "short": {"color", "shape", "motion", "count", "place", "compare"},
    "still": {"color", "shape", "count", "place", "compare"},
    "small": {"color", "shape", "motion", "count", "place"},
    "cut": {"color", "shape", "order", "change", "time", "place"},
    "return": {"color", "shape", "order", "change"},
    "drift": {"color", "shape", "place", "compare", "change"},
    "needle": {"color", "shape", "place", "compare", "needle", "time"},
    "text": {"read", "place"},
    "counter": {"color", "shape", "place", "read"},
}


def test_a_clip_has_three_questions_an_object_and_one_of_count() -> None:
    for seed in range(50):
        scene = make_scene("short", seed)
        kinds = [question.kind for question in questions(scene)]
        count = len(scene.objects)
        assert [kinds.count(kind) for kind in ("color", "shape", "motion", "count")] == [count, count, count, 1]


@pytest.mark.parametrize("kind", ASKED_OF)
def test_what_is_asked_of_a_kind(kind: str) -> None:
    assert {question.kind for seed in range(60) for question in questions(make_scene(kind, seed))} == ASKED_OF[kind]


def test_every_form_is_asked_and_no_other() -> None:
    asked = {q.form for kind in scene_kinds() for seed in range(60) for q in questions(make_scene(kind, seed))}
    assert asked == set(PHRASES)
    assert {form.partition(".")[0] for form in asked} == set(QUESTION_KINDS)
    assert len(QUESTION_KINDS) == 11


def test_answers_about_objects_are_what_the_scene_says() -> None:
    for seed in range(50):
        scene = make_scene("short", seed)
        for question in questions(scene, seed):
            if question.kind == "count":
                assert question.answer == str(len(scene.objects))
            if question.kind not in ("color", "shape", "motion"):
                continue
            named = [
                item for item in scene.objects if item.shape in question.question or item.color in question.question
            ]
            assert len(named) == 1, question
            assert question.answer == getattr(named[0], question.kind)
            assert question.answer not in question.question.split()


def test_answers_about_shots_follow_their_order() -> None:
    for seed in range(80):
        scene = make_scene("cut", seed)
        items, asked = scene.objects, {q.form: q for q in questions(scene)}
        assert asked["change.count"].answer == str(len(scene.shots) - 1)
        if len(items) > 1:
            assert asked["order.color_first"].answer == items[0].color
            assert asked["order.shape_last"].answer == items[-1].shape
            # The last one asked of its form is about the last pair.
            assert items[-2].shape in asked["order.after"].question
            assert asked["order.after"].answer == items[-1].shape
            assert items[-1].shape in asked["order.before"].question
            assert asked["order.before"].answer == items[-2].shape


def test_what_comes_back() -> None:
    for seed in range(40):
        scene = make_scene("return", seed)
        asked = {q.form: q.answer for q in questions(scene)}
        first, _, last = scene.objects
        assert asked["change.back"] == ("yes" if first.shape == last.shape else "no")
        assert asked.get("order.color_twice") == (first.color if first.shape == last.shape else None)


def test_a_drift_is_asked_about_at_both_ends() -> None:
    seen = set()
    for seed in range(60):
        scene = make_scene("drift", seed)
        (item,) = scene.objects
        asked = {q.form: q.answer for q in questions(scene)}
        if item.speed:
            x, y = item.center(scene.duration_seconds)
            expected = ("bottom" if y > scene.height / 2 else "top", "right" if x > scene.width / 2 else "left")
            assert asked["place.end"] == " ".join(expected) != asked["place.start"]
        elif item.end_radius:
            assert asked["compare.size"] == ("larger" if item.end_radius > item.radius else "smaller")
        else:
            assert asked["change.color"] == ("yes" if item.end_color else "no")
            assert asked.get("color.end") == (item.end_color or None)
        seen |= {form for form in asked if "." in form}
    assert seen == {"place.start", "place.end", "compare.size", "change.color", "color.start", "color.end"}


def test_flash_and_counter_are_read_off_the_characters() -> None:
    for seed in range(40):
        scene = make_scene("needle", seed)
        asked = {q.kind: q for q in questions(scene)}
        assert asked["needle"].answer == scene.glyphs[0].character
        share = scene.glyphs[0].start / scene.duration_seconds
        if "time" in asked:
            assert asked["time"].answer == ("beginning" if share < 1 / 3 else "middle" if share < 2 / 3 else "end")
        shown = [int(glyph.character) for glyph in make_scene("counter", seed).glyphs]
        asked_of_counter = {q.form: q.answer for q in questions(make_scene("counter", seed))}
        assert (asked_of_counter["read.start"], asked_of_counter["read.end"]) == (str(shown[0]), str(shown[-1]))
        assert asked_of_counter["read.direction"] == ("up" if (shown[1] - shown[0]) % 10 == 1 else "down")


def test_codes_are_read_from_left_to_right() -> None:
    codes = 0
    for seed in range(60):
        scene = make_scene("text", seed)
        for question in questions(scene):
            if question.form == "read.code":
                one, other = sorted(scene.glyphs, key=lambda glyph: glyph.x)
                assert question.answer == one.character + other.character
                codes += 1
    assert 10 < codes < 50


@pytest.mark.parametrize(
    ("kind", "scenes"),
    [
        ("text", 900),  # of its codes there are hundreds, of which few say little
        *((kind, 300) for kind in scene_kinds() if kind != "text"),
        *(pytest.param(kind, 900, marks=pytest.mark.long) for kind in scene_kinds() if kind != "text"),
    ],
)
def test_no_answer_is_much_likelier_than_another(kind: str, scenes: int) -> None:
    """For every form of question with few answers, always giving the most frequent one hardly beats chance."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    chance: dict[str, float] = {}
    for seed in range(scenes):
        for question in questions(make_scene(kind, seed)):
            answers[question.form][question.answer] += 1
            chance[question.form] = question.chance
            assert question.answer in question.answers
    for form, counter in answers.items():
        if form.startswith("compare.") and form != "compare.size":
            continue  # by words, below
        total, p = counter.total(), chance[form]
        # Four standard deviations of a fair draw; the answers to one scene's questions are not independent.
        allowed = p + 4 * (2 * p * (1 - p) / total) ** 0.5
        assert max(counter.values()) / total <= allowed, f"{form}: {counter.most_common(3)} of {total}"


def test_the_order_of_two_shapes_does_not_tell_which_is_larger() -> None:
    first = Counter[bool]()
    for seed in range(800):
        for question in questions(make_scene("short", seed)):
            if question.kind == "compare":
                words = question.question.rstrip("?").split()
                first[words[-4] == question.answer] += 1
    assert abs(first[True] / first.total() - 0.5) < 0.06


def test_wording_depends_on_the_seed_alone() -> None:
    scene = make_scene("short", 4)
    assert questions(scene, 1) == questions(scene, 1)
    wordings = {
        question.question for seed in range(40) for question in questions(scene, seed) if question.kind == "count"
    }
    assert len(wordings) > 2


def test_a_question_is_plain_data() -> None:
    assert Question("color", "What color is the ring?", "red").answer == "red"
    assert Question("compare", "Which?", "a", ("a", "b")).chance == 0.5
