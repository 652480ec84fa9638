"""Questions have one right answer each, say what they ask about, and come in more than one wording."""

from tokcli.synthetic import Question, make_scene, questions


def test_a_clip_has_three_questions_an_object_and_one_of_count() -> None:
    for seed in range(50):
        scene = make_scene("static", seed)
        kinds = [question.kind for question in questions(scene)]
        count = len(scene.objects)
        assert [kinds.count(kind) for kind in ("color", "shape", "motion", "count")] == [count, count, count, 1]


def test_a_still_is_not_asked_about_motion() -> None:
    assert {question.kind for question in questions(make_scene("still", 3))} == {"color", "shape", "count"}


def test_answers_are_what_the_scene_says() -> None:
    for seed in range(50):
        scene = make_scene("static", seed)
        for question in questions(scene, seed):
            if question.kind == "count":
                assert question.answer == str(len(scene.objects))
                continue
            named = [
                item for item in scene.objects if item.shape in question.question or item.color in question.question
            ]
            assert len(named) == 1, question
            assert question.answer == getattr(named[0], question.kind)
            assert question.answer not in question.question.split()


def test_wording_depends_on_the_seed_alone() -> None:
    scene = make_scene("static", 4)
    assert questions(scene, 1) == questions(scene, 1)
    wordings = {
        question.question for seed in range(40) for question in questions(scene, seed) if question.kind == "count"
    }
    assert len(wordings) > 2


def test_a_question_is_plain_data() -> None:
    assert Question("color", "What color is the ring?", "red").answer == "red"
