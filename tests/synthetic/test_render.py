"""The pixels show what the scene says: checked by arithmetic on the pixels alone."""

import numpy as np
import pytest

from tokcli.synthetic import (
    CHARACTERS,
    MOTIONS,
    Background,
    Scene,
    SceneObject,
    Shot,
    coverage,
    make_scene,
    plate_of,
    render_at,
    render_frames,
)
from tokcli.synthetic.glyphs import DOTS
from tokcli.synthetic.render import shake
from tokcli.synthetic.scene import Camera

CLIPS = [make_scene("short", seed) for seed in range(60)]

BRIGHT = 160
"""No background has a channel this bright (135 at most, and 12 of grain); every object has."""


def inside(item: SceneObject, seconds: float) -> tuple[int, int]:
    """Row and column of a pixel that the object surely covers: its centre, or beside it for a ring's hole."""
    x, y = item.center(seconds)
    return int(y), int(x + (0.74 * item.radius if item.shape == "ring" else 0))


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Coordinates (n, 2) of each group of neighbouring pixels, by flood fill."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    groups = []
    while left:
        queue, group = [left.pop()], []
        while queue:
            row, column = queue.pop()
            group.append((row, column))
            near = {(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
        groups.append(np.array(group))
    return groups


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_color_is_where_the_scene_says(share: float) -> None:
    for scene in CLIPS:
        seconds = share * scene.duration_seconds
        frame = render_at(scene, seconds)
        assert (frame.shape, frame.dtype) == ((scene.height, scene.width, 3), np.uint8)
        for item in scene.objects:
            assert np.abs(frame[inside(item, seconds)].astype(int) - item.rgb).max() <= 1


def test_as_many_objects_as_the_scene_says() -> None:
    for scene in CLIPS:
        frame = render_at(scene, scene.duration_seconds / 3)
        assert len(components(frame.max(2) >= BRIGHT)) == len(scene.objects)


def test_objects_go_where_the_scene_says_and_as_far() -> None:
    seen = set()
    for seed in range(200):
        scene = make_scene("short", seed)
        if len(scene.objects) > 1:
            continue
        (item,) = scene.objects
        first, last = (
            np.argwhere(render_at(scene, seconds).max(2) >= BRIGHT).mean(0) for seconds in (0, scene.duration_seconds)
        )
        down, right = (last - first) / scene.duration_seconds
        expected = item.speed * np.array(MOTIONS[item.motion])
        assert (right, down) == pytest.approx(expected, abs=0.15)
        seen.add(item.motion)
    assert seen == set(MOTIONS)


def test_shapes_differ_as_their_names_say() -> None:
    """Shares of the square around an object that it covers, by geometry: pi r^2 / 4 r^2 and so on."""
    expected = {
        "circle": np.pi / 4,
        "square": 0.88**2,
        "triangle": 1.75 * 0.95 / 4,
        "cross": 2 * 0.34 - 0.34**2,
        "ring": np.pi / 4 * (1 - 0.48**2),
    }
    seen = set()
    for scene in CLIPS:
        for item in scene.objects:
            _, _, alpha = coverage(scene, item, 0)
            assert alpha.sum() / (2 * item.radius) ** 2 == pytest.approx(expected[item.shape], rel=0.03)
            seen.add(item.shape)
    assert seen == set(expected)


def test_a_triangle_points_up_and_a_ring_has_a_hole() -> None:
    for scene in CLIPS:
        frame = render_at(scene, 0)
        for item in scene.objects:
            _, _, alpha = coverage(scene, item, 0)
            if item.shape == "triangle":
                assert alpha[: len(alpha) // 2].sum() < 0.7 * alpha[len(alpha) // 2 :].sum()
            if item.shape == "ring":
                assert frame[int(item.y), int(item.x)].max() < BRIGHT


def test_nothing_else_moves() -> None:
    for scene in CLIPS[:20]:
        first, last = render_at(scene, 0), render_at(scene, scene.duration_seconds)
        touched = np.zeros(first.shape[:2], bool)
        for item in scene.objects:
            for seconds in (0, scene.duration_seconds):
                rows, columns, _ = coverage(scene, item, seconds)
                touched[rows, columns] = True
        assert np.array_equal(first[~touched], last[~touched])
        assert (~touched).mean() > 0.2


def test_frames_are_those_at_their_times_and_repeatable() -> None:
    scene = CLIPS[1]
    frames = list(render_frames(scene))
    assert len(frames) == scene.num_frames
    for index in (0, 7, scene.num_frames - 1):
        assert np.array_equal(frames[index], render_at(scene, index / scene.fps))
    assert all(np.array_equal(one, other) for one, other in zip(frames, render_frames(scene)))


def test_a_still_is_one_frame() -> None:
    scene: Scene = make_scene("still", 2)
    (frame,) = render_frames(scene)
    assert np.array_equal(frame, render_at(scene, 0))


def test_every_background_style_is_used_and_none_is_flat() -> None:
    styles = {}
    for scene in CLIPS:
        background = scene.shots[0].background
        bare = Scene(scene.kind, scene.seed, 128, 112, 1.0, 0.0, (Shot(0.0, background, ()),), still=True)
        styles.setdefault(background.style, []).append(render_at(bare, 0).std())
        assert render_at(bare, 0).max() < BRIGHT
    assert set(styles) == {"gradient", "noise", "stripes", "tiles"}
    assert all(max(deviations) > 3 for deviations in styles.values())


def plain(camera: Camera, style: str = "noise", duration: float = 4.0) -> Scene:
    """A background alone, with enough structure to see it move."""
    background = Background(style, 7, (20, 20, 20), (115, 115, 115), 0.3, 16, 0)
    return Scene("pan", 3, 128, 112, 10.0, duration, (Shot(0.0, background, ()),), camera=camera)


@pytest.mark.parametrize("speed", [(10.0, 0.0), (-10.0, 0.0), (0.0, 10.0), (5.0, -10.0)])
def test_a_pan_moves_the_background_by_its_speed(speed: tuple[float, float]) -> None:
    scene = plain(Camera(pan=speed))
    before, after = render_at(scene, 1.0), render_at(scene, 3.0)
    right, down = (round(2 * part) for part in speed)
    here = before[max(0, down) : 112 + min(0, down), max(0, right) : 128 + min(0, right)]
    there = after[max(0, -down) : 112 + min(0, -down), max(0, -right) : 128 + min(0, -right)]
    assert np.array_equal(here, there)
    assert not np.array_equal(before, after)


def test_a_shaking_camera_moves_the_whole_picture() -> None:
    moves = set()
    for seed in range(10):
        scene = make_scene("shake", seed)
        for seconds in (0.5, 1.5, 2.5):
            moves.add(shake(scene, seconds))
            for item in scene.objects:
                row, column = inside(item, seconds)
                right, down = shake(scene, seconds)
                pixel = render_at(scene, seconds)[row + down, column + right]
                assert np.abs(pixel.astype(int) - item.rgb).max() <= 1
    assert len(moves) > 8
    assert max(max(map(abs, move)) for move in moves) <= 4


def test_noise_is_new_in_every_frame_and_the_same_every_time() -> None:
    noisy, clean = plain(Camera(noise=10)), plain(Camera())
    first, second = render_at(noisy, 1.0), render_at(noisy, 1.1)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, render_at(noisy, 1.0))
    difference = first.astype(int) - render_at(clean, 1.0)
    assert abs(difference).max() == 10
    assert abs(difference.mean()) < 0.2


def test_a_cut_is_sudden_and_a_fade_is_the_mean_at_its_middle() -> None:
    seen = 0
    for kind in ("cut", "fade"):
        for seed in range(20):
            scene = make_scene(kind, seed)
            for shot in scene.shots[1:]:
                half = scene.fade_seconds / 2
                before, after = render_at(scene, shot.start - half - 0.01), render_at(scene, shot.start + half + 0.01)
                assert np.abs(before.astype(int) - after).mean() > 3
                if half:
                    middle = render_at(scene, shot.start).astype(float)
                    assert np.abs(middle - (before.astype(float) + after) / 2).max() <= 1
                seen += 1
    assert seen > 30


@pytest.mark.parametrize("kind", ["text", "counter", "needle"])
def test_characters_can_be_read_off_the_pixels(kind: str) -> None:
    """Each plate's dots, sampled at their centres, are those of one character alone."""
    read = 0
    for seed in range(25):
        scene = make_scene(kind, seed)
        for glyph in scene.glyphs:
            seconds = 0.0 if scene.still else (glyph.start + min(glyph.stop, scene.duration_seconds)) / 2
            rows, columns = plate_of(glyph)
            plate = render_at(scene, seconds)[rows, columns]
            middle = glyph.scale // 2
            dots = plate[middle :: glyph.scale, middle :: glyph.scale].min(2)[1:8, 1:6] > 128
            assert [name for name in CHARACTERS if np.array_equal(DOTS[name], dots)] == [glyph.character]
            read += 1
    assert read >= 25


def test_a_flash_is_seen_while_it_lasts_and_not_before_or_after() -> None:
    scene = make_scene("needle", 3)
    (flash,) = scene.glyphs
    rows, columns = plate_of(flash)
    frames = [render_at(scene, seconds)[rows, columns] for seconds in (flash.start - 0.05, flash.start, flash.stop)]
    assert frames[1].max() > 220 > 200 > frames[0].max()
    assert np.array_equal(frames[0], frames[2])


def test_a_slow_change_of_color_and_size_is_linear() -> None:
    seen = set()
    for seed in range(40):
        scene = make_scene("drift", seed)
        (item,) = scene.objects
        middle = scene.duration_seconds / 2
        if item.end_rgb:
            expected = (np.array(item.rgb) + item.end_rgb) / 2
            assert np.abs(render_at(scene, middle)[inside(item, middle)] - expected).max() <= 1.5
            seen.add("color")
        if item.end_radius:
            areas = [coverage(scene, item, seconds)[2].sum() for seconds in (0.0, middle, scene.duration_seconds)]
            roots = np.sqrt(areas)
            assert roots[1] == pytest.approx((roots[0] + roots[2]) / 2, rel=0.03)
            seen.add("size")
    assert seen == {"color", "size"}
