"""The pixels show what the scene says: checked by arithmetic on the pixels alone."""

import numpy as np
import pytest

from tokcli.synthetic import MOTIONS, Scene, SceneObject, coverage, make_scene, render_at, render_frames

CLIPS = [make_scene("static", seed) for seed in range(60)]

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
        scene = make_scene("static", seed)
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
        bare = Scene(scene.kind, scene.seed, 128, 112, 1.0, 0.0, scene.background, (), still=True)
        styles.setdefault(scene.background.style, []).append(render_at(bare, 0).std())
        assert render_at(bare, 0).max() < BRIGHT
    assert set(styles) == {"gradient", "noise", "stripes", "tiles"}
    assert all(max(deviations) > 3 for deviations in styles.values())
