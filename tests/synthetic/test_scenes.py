"""Scenes are the same for the same seed, keep to their canvas, and favour no answer."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from tokcli.errors import UsageError
from tokcli.synthetic import COLORS, MOTIONS, SHAPES, Scene, make_scene, questions, scene_kinds

CHOICES = {"color": set(COLORS), "shape": set(SHAPES), "motion": set(MOTIONS), "count": {"1", "2", "3", "4"}}


def scenes(kind: str, count: int) -> Iterable[Scene]:
    return (make_scene(kind, seed) for seed in range(count))


def test_same_seed_same_scene() -> None:
    for kind in scene_kinds():
        assert make_scene(kind, 5) == make_scene(kind, 5)
        assert make_scene(kind, 5) != make_scene(kind, 6)
    assert make_scene("static", 5).objects != make_scene("still", 5).objects


def test_unknown_kind_names_the_known_and_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown kind of scene 'statik'; known kinds: static, still.*mean 'static'"):
        make_scene("statik", 0)


def test_clips_are_4_to_12_seconds_at_8_to_12_frames_a_second() -> None:
    for scene in scenes("static", 200):
        assert not scene.still
        assert 3.9 < scene.duration_seconds <= 12.1
        assert 8 <= scene.fps <= 12
        assert scene.num_frames == pytest.approx(scene.duration_seconds * scene.fps)


def test_stills_have_one_frame_and_nothing_that_moves() -> None:
    for scene in scenes("still", 50):
        assert (scene.still, scene.num_frames, scene.duration_seconds) == (True, 1, 0)
        assert {item.motion for item in scene.objects} == {"still"}


def test_canvases_are_even_and_of_many_shapes() -> None:
    sizes = [(scene.width, scene.height) for scene in scenes("static", 300)]
    assert all(side % 2 == 0 and 112 <= side <= 256 for size in sizes for side in size)
    assert sum(width > 1.3 * height for width, height in sizes) > 30
    assert sum(height > 1.3 * width for width, height in sizes) > 30
    assert sum(width % 28 != 0 or height % 28 != 0 for width, height in sizes) > 150


def test_objects_stay_inside_and_never_meet() -> None:
    for scene in scenes("static", 300):
        for seconds in np.linspace(0, scene.duration_seconds, 50):
            centers = [item.center(seconds) for item in scene.objects]
            for index, (item, (x, y)) in enumerate(zip(scene.objects, centers)):
                assert item.radius + 1.9 <= x <= scene.width - item.radius - 1.9
                assert item.radius + 1.9 <= y <= scene.height - item.radius - 1.9
                for other, (other_x, other_y) in zip(scene.objects[:index], centers):
                    assert max(abs(x - other_x), abs(y - other_y)) > item.radius + other.radius


def test_colors_and_shapes_name_one_object_each() -> None:
    for scene in scenes("static", 300):
        assert len({item.color for item in scene.objects}) == len(scene.objects)
        assert len({item.shape for item in scene.objects}) == len(scene.objects)


def test_motion_shows_at_one_frame_a_second() -> None:
    speeds = [item.speed for scene in scenes("static", 300) for item in scene.objects if item.motion != "still"]
    assert min(speeds) >= 6


@pytest.mark.parametrize("kind", ["static", "still"])
def test_no_answer_is_much_likelier_than_another(kind: str) -> None:
    answers: dict[str, Counter[str]] = {name: Counter() for name in CHOICES}
    for scene in scenes(kind, 2500):
        for question in questions(scene):
            answers[question.kind][question.answer] += 1
    if kind == "still":
        assert not answers.pop("motion")
    for name, counter in answers.items():
        assert set(counter) == CHOICES[name]
        chance = 1 / len(CHOICES[name])
        best_guess = max(counter.values()) / counter.total()
        assert best_guess < 1.12 * chance, f"always guessing {counter.most_common(1)} is right {best_guess:.3f} times"


def test_the_words_of_a_question_do_not_give_the_answer_away() -> None:
    by_object: dict[tuple[str, str], Counter[str]] = {}
    for scene in scenes("static", 2500):
        for item in scene.objects:
            by_object.setdefault(("color", item.shape), Counter())[item.color] += 1
            by_object.setdefault(("shape", item.color), Counter())[item.shape] += 1
            by_object.setdefault(("motion", item.shape), Counter())[item.motion] += 1
    for (name, _), counter in by_object.items():
        assert max(counter.values()) / counter.total() < 1.3 / len(CHOICES[name])
