"""Scenes are the same for the same seed, keep to their canvas, and favour no answer."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from tokcli.errors import UsageError
from tokcli.synthetic import CHARACTERS, COLORS, MOTIONS, PLACES, SHAPES, Scene, SceneObject, make_scene, scene_kinds
from tokcli.synthetic.glyphs import DOTS
from tokcli.synthetic.placement import place_of

CHOICES = {"color": set(COLORS), "shape": set(SHAPES), "motion": set(MOTIONS)}
SECONDS = {
    "static": (8, 48),
    "short": (4, 12),
    "pan": (4, 12),
    "shake": (4, 12),
    "noisy": (4, 12),
    "small": (4, 12),
    "drift": (15, 45),
    "needle": (12, 120),
    "counter": (6, 36),
    "cut": (4, 22),
    "fade": (4, 24),
    "return": (9, 18),
}


def scenes(kind: str, count: int) -> Iterable[Scene]:
    return (make_scene(kind, seed) for seed in range(count))


def test_same_seed_same_scene() -> None:
    for kind in scene_kinds():
        assert make_scene(kind, 5) == make_scene(kind, 5)
        assert make_scene(kind, 5) != make_scene(kind, 6)
    assert make_scene("short", 5).objects != make_scene("still", 5).objects


def test_unknown_kind_names_the_known_and_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown kind of scene 'statik'; known kinds: static, short, still.*mean 'static'"
    ):
        make_scene("statik", 0)


def test_clips_are_4_to_12_seconds_at_8_to_12_frames_a_second() -> None:
    for scene in scenes("short", 200):
        assert not scene.still
        assert 3.9 < scene.duration_seconds <= 12.1
        assert 8 <= scene.fps <= 12
        assert scene.num_frames == pytest.approx(scene.duration_seconds * scene.fps)


@pytest.mark.parametrize("kind", SECONDS)
def test_clips_last_as_long_as_their_kind_says(kind: str) -> None:
    durations = [scene.duration_seconds for scene in scenes(kind, 150)]
    low, high = SECONDS[kind]
    assert low - 0.2 <= min(durations) <= max(durations) <= high + 0.2
    assert max(durations) > low + 0.7 * (high - low)
    for scene in scenes(kind, 30):
        assert scene.num_frames == pytest.approx(scene.duration_seconds * scene.fps)


def test_stills_have_one_frame_and_nothing_that_moves() -> None:
    for scene in scenes("still", 50):
        assert (scene.still, scene.num_frames, scene.duration_seconds) == (True, 1, 0)
        assert {item.motion for item in scene.objects} == {"still"}


def test_canvases_are_even_and_of_many_shapes() -> None:
    sizes = [(scene.width, scene.height) for scene in scenes("short", 300)]
    assert all(side % 2 == 0 and 112 <= side <= 256 for size in sizes for side in size)
    assert sum(width > 1.3 * height for width, height in sizes) > 30
    assert sum(height > 1.3 * width for width, height in sizes) > 30
    assert sum(width % 28 != 0 or height % 28 != 0 for width, height in sizes) > 150


@pytest.mark.parametrize("kind", ["short", "static", "small", "pan"])
def test_objects_stay_inside_and_never_meet(kind: str) -> None:
    for scene in scenes(kind, 150):
        for seconds in np.linspace(0, scene.duration_seconds, 80):
            centers = [item.center(seconds) for item in scene.objects]
            for index, (item, (x, y)) in enumerate(zip(scene.objects, centers)):
                assert item.radius + 1.9 <= x <= scene.width - item.radius - 1.9
                assert item.radius + 1.9 <= y <= scene.height - item.radius - 1.9
                for other, (other_x, other_y) in zip(scene.objects[:index], centers):
                    assert max(abs(x - other_x), abs(y - other_y)) > item.radius + other.radius


def test_colors_and_shapes_name_one_object_each() -> None:
    for scene in scenes("short", 300):
        assert len({item.color for item in scene.objects}) == len(scene.objects)
        assert len({item.shape for item in scene.objects}) == len(scene.objects)


def test_motion_shows_at_one_frame_a_second() -> None:
    speeds = [item.speed for scene in scenes("short", 300) for item in scene.objects if item.motion != "still"]
    assert min(speeds) >= 6


def test_the_words_of_a_question_do_not_give_the_answer_away() -> None:
    by_object: dict[tuple[str, str], Counter[str]] = {}
    for scene in scenes("short", 2500):
        for item in scene.objects:
            by_object.setdefault(("color", item.shape), Counter())[item.color] += 1
            by_object.setdefault(("shape", item.color), Counter())[item.shape] += 1
            by_object.setdefault(("motion", item.shape), Counter())[item.motion] += 1
    for (name, _), counter in by_object.items():
        assert max(counter.values()) / counter.total() < 1.3 / len(CHOICES[name])


def test_before_a_camera_that_stands_still_objects_move_for_some_seconds() -> None:
    seen = set()
    for scene in scenes("static", 150):
        for item in scene.objects:
            begin, end = item.moving
            length = min(end, scene.duration_seconds) - begin
            assert 3.9 < length <= 8.3
            (x0, y0), (x1, y1) = item.center(0.0), item.center(scene.duration_seconds)
            assert (item.center(begin), item.center(end)) == ((x0, y0), (x1, y1))
            right, down = MOTIONS[item.motion]
            assert (x1 - x0, y1 - y0) == pytest.approx((right * item.speed * length, down * item.speed * length))
            seen.add(item.motion)
    assert seen == set(MOTIONS)


def test_what_two_moments_show_of_a_motion() -> None:
    item = SceneObject("ring", "red", "left", (220, 40, 40), 10.0, 90.0, 50.0, 8.0, moving=(4.0, 9.0))
    assert [item.motion_between(t, t + 1) for t in (0.0, 3.0, 4.0, 8.0, 8.2, 8.5, 9.0)] == [
        "still",
        "still",
        "left",
        "left",
        "left",
        None,
        "still",
    ]


@pytest.mark.parametrize("kind", ["cut", "fade", "return"])
def test_shots_follow_one_another_long_enough_to_be_sampled_once_a_second(kind: str) -> None:
    for scene in scenes(kind, 100):
        starts = [shot.start for shot in scene.shots] + [scene.duration_seconds]
        assert starts[0] == 0
        for shot, start, stop in zip(scene.shots, starts, starts[1:]):
            (item,) = shot.objects
            assert (item.start, item.stop) == (start, stop)
            assert stop - start >= 2.4 + scene.fade_seconds / 2
            assert scene.shot_at((start + stop) / 2) == [(shot, 1.0)]


def test_what_comes_back_is_nearly_the_same_shot() -> None:
    returns = [scene for scene in scenes("return", 60) if scene.objects[0].shape == scene.objects[2].shape]
    assert 15 < len(returns) < 45
    for scene in returns:
        first, _, last = scene.shots
        assert first.background == last.background
        moved = abs(first.objects[0].x - last.objects[0].x), abs(first.objects[0].y - last.objects[0].y)
        assert 0 < max(moved) <= 3


def test_a_flash_lasts_03_seconds_and_is_on_display_at_a_whole_second() -> None:
    for scene in scenes("needle", 200):
        (flash,) = scene.glyphs
        assert flash.stop - flash.start == pytest.approx(0.3, abs=0.07)
        assert 0 < flash.start < flash.stop < scene.duration_seconds
        ticks = [tick for tick in range(math.ceil(scene.duration_seconds)) if flash.shown(tick + 1e-9)]
        assert len(ticks) == 1
        seen = [index for index in range(scene.num_frames) if flash.shown(index / scene.fps + 1e-9)]
        assert len(seen) == round(0.3 * scene.fps)


def test_a_counter_shows_one_digit_at_a_time_for_two_seconds_or_more() -> None:
    for scene in scenes("counter", 60):
        assert 3 <= len(scene.glyphs) <= 6
        for index in range(scene.num_frames):
            assert sum(glyph.shown((index + 0.5) / scene.fps) for glyph in scene.glyphs) == 1
        assert all(glyph.stop - glyph.start > 1.9 for glyph in scene.glyphs)


def test_drift_is_slow() -> None:
    for scene in scenes("drift", 100):
        (item,) = scene.objects
        assert item.speed < 8
        assert item.end_rgb is None or np.abs(np.subtract(item.end_rgb, item.rgb)).max() / scene.duration_seconds < 17


def test_characters_are_on_the_canvas_and_all_used() -> None:
    used = set()
    for kind in ("needle", "text", "counter"):
        for scene in scenes(kind, 150):
            for glyph in scene.glyphs:
                width, height = glyph.size
                assert glyph.x - width / 2 >= 1 and glyph.x + width / 2 <= scene.width - 1
                assert glyph.y - height / 2 >= 1 and glyph.y + height / 2 <= scene.height - 1
                used.add(glyph.character)
    assert used == set(CHARACTERS)


def test_characters_differ_in_four_dots_at_least() -> None:
    for number, one in enumerate(CHARACTERS):
        assert DOTS[one].shape == (7, 5)
        assert all((DOTS[one] != DOTS[other]).sum() >= 3 for other in CHARACTERS[:number]), one


def test_quarters_and_the_band_between_them() -> None:
    corners = [place_of(x, y, 100, 100) for y in (10, 90) for x in (10, 90)]
    assert corners == list(PLACES)
    assert place_of(54, 10, 100, 100) is None
    assert place_of(10, 46, 100, 100) is None
