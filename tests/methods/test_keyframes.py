"""Which frames keyframes chooses, by tokens and by what else describes a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from method_items import anyres, drifting, video

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.ops.frames import by_clusters, by_cuts, evenly, farthest_first, thumbnails
from tokcli.types import View, VisualTokens

PLACES = 12


def shots(*lengths: int, noise: float = 0.02) -> VisualTokens:
    """A clip of shots, each a scene of its own with a little noise."""
    generator = torch.Generator().manual_seed(0)
    frames = []
    for length in lengths:
        scene = torch.randn(PLACES, 16, generator=generator)
        frames += [scene + noise * torch.randn(PLACES, 16, generator=generator) for _ in range(length)]
    return video(torch.stack(frames), (len(frames), 3, 4))


def kept_steps(visual: VisualTokens, **options: object) -> list[int]:
    kept = resolve("keyframes", options=options).compress(visual, "item")
    steps, counts = torch.unique(kept.coords[:, 1], return_counts=True)
    assert (counts == PLACES).all()
    return steps.tolist()


def shots_of(steps: list[int], *lengths: int) -> list[int]:
    return np.searchsorted(np.cumsum(lengths), steps, side="right").tolist()


@pytest.mark.parametrize("mode", ["cluster", "cuts"])
@pytest.mark.parametrize("lengths", [(5, 5, 5, 5), (14, 1, 4, 1), (1, 1, 1, 17)])
def test_every_scene_gets_a_frame_however_short_it_is(mode: str, lengths: tuple[int, ...]) -> None:
    assert shots_of(kept_steps(shots(*lengths), frames=4, mode=mode), *lengths) == [0, 1, 2, 3]


def test_a_scene_that_comes_back_is_one_cluster_but_two_scenes_between_cuts() -> None:
    visual = shots(4, 4)
    again = video(torch.cat([visual.tokens, visual.tokens[: 4 * PLACES]]), (12, 3, 4))
    by_cluster = kept_steps(again, frames=2)
    assert (by_cluster[0] < 4) != (by_cluster[1] >= 8) and any(4 <= step < 8 for step in by_cluster)
    assert shots_of(kept_steps(again, mode="cuts", threshold=0.5), 4, 4, 4) == [0, 1, 2]


def test_uniform_takes_the_middles_of_equal_parts() -> None:
    assert kept_steps(shots(3, 5), frames=4, mode="uniform") == [1, 3, 5, 7]
    assert evenly(9, 3).tolist() == [1, 4, 7] and evenly(2, 2).tolist() == [0, 1]


def test_a_threshold_keeps_as_many_scenes_as_there_are() -> None:
    assert shots_of(kept_steps(shots(3, 1, 6), mode="cuts", threshold=0.3), 3, 1, 6) == [0, 1, 2]
    assert len(kept_steps(shots(10), mode="cuts", threshold=0.3)) == 1


@pytest.mark.parametrize("mode", ["cluster", "cuts", "uniform"])
@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"keep": 0.5}, 5),
        ({"keep": 0.01}, 1),
        ({"max_tokens": 40}, 3),
        ({"frames": 7}, 7),
        ({"frames": 99}, 10),
        ({}, 2),
    ],
)
def test_whole_steps_within_the_budget(mode: str, budget: dict[str, float], steps: int) -> None:
    assert len(kept_steps(shots(3, 5, 2), mode=mode, **budget)) == steps


def test_what_is_no_frame_of_a_video_is_kept() -> None:
    visual = anyres()
    kept = resolve("keyframes", options={"frames": 2}).compress(visual, "item")
    assert torch.bincount(kept.coords[:, 0]).tolist() == [15, 10, 24]
    kept = resolve("keyframes", keep=0.6).compress(visual, "item")
    assert len(kept) <= round(0.6 * 83) + 2


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(MethodError, match="keeps at least a step: 12 tokens"):
        resolve("keyframes", max_tokens=11).compress(shots(4), "item")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"threshold": "0.5"}, "threshold needs mode='cuts', not mode='cluster'"),
        ({"frames": "3", "keep": "0.5"}, "keep and frames cannot both be given"),
        ({"threshold": "0.5", "keep": "0.5", "mode": "cuts"}, "keep and threshold cannot both be given"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, str], reason: str) -> None:
    with pytest.raises(MethodError, match=reason):
        resolve("keyframes", options=options)


def test_what_chooses_before_the_tower_refuses_tokens_and_must_come_first() -> None:
    compressor = resolve("keyframes,dtd", options={"features": "pixels", "frames": "3"})
    assert compressor.frame_choice is not None and compressor.frame_choice.features == "pixels"
    assert compressor.on_tokens == resolve("dtd")
    assert [stage["name"] for stage in compressor.before_tokens] == ["keyframes"]
    with pytest.raises(MethodError, match="chooses before the encoder, and these are tokens"):
        compressor.compress(drifting((8, 4, 6)), "item")
    with pytest.raises(MethodError, match="must come first, not after 'dtd'"):
        resolve("dtd,keyframes", options={"features": "pixels"})
    assert resolve("dtd,keyframes").frame_choice is None


@pytest.mark.parametrize(
    ("options", "steps"), [({"keep": "0.3"}, 3), ({"max_tokens": "30"}, 2), ({"frames": "4"}, 4), ({"keep": "0.01"}, 1)]
)
def test_the_same_budgets_before_the_tower(options: dict[str, str], steps: int) -> None:
    choice = resolve("keyframes", options={**options, "features": "pixels"}).frame_choice
    assert choice is not None
    features = np.random.default_rng(0).random((10, 8), dtype=np.float32)
    chosen = choice.choose(features, View("frames", (10, 3, 4)))
    assert len(chosen) == steps and (np.diff(chosen) > 0).all()


def random_features(seed: int, count: int = 60) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((5, 12)) * 3
    return (centres[generator.integers(0, 5, count)] + generator.standard_normal((count, 12))).astype(np.float32)


@pytest.mark.parametrize("k", [1, 2, 5, 17, 59, 60])
def test_clusters_give_that_many_frames_each_time(k: int) -> None:
    features = random_features(k)
    chosen = by_clusters(features, k)
    assert len(chosen) == k and (np.diff(chosen) > 0).all()
    assert np.array_equal(by_clusters(features, k), chosen)


@pytest.mark.parametrize("features", [np.zeros((9, 4), np.float32), np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)])
def test_equal_frames_do_not_lose_a_place(features: npt.NDArray[np.float32]) -> None:
    for k in (1, 3, 5, 9):
        assert len(np.unique(by_clusters(features, k))) == k
        assert len(np.unique(by_cuts(features, k))) == k


def test_clusters_are_found_where_they_are_plain() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 2, 1, 0])
    features = np.eye(3, dtype=np.float32)[labels] + 0.01 * random_features(0, 9)[:, :3]
    assert sorted(labels[by_clusters(features, 3)]) == [0, 1, 2]


def test_farthest_first_goes_on_from_what_is_chosen() -> None:
    line = np.array([[0.0], [1], [2], [10], [11]], dtype=np.float32)
    assert farthest_first(line, 3).tolist() == [0, 4, 2]
    assert farthest_first(line, 3, np.array([1])).tolist() == [1, 4, 0]
    assert farthest_first(line, 2, np.array([1, 3])).tolist() == [1, 3]


def test_thumbnails_measure_the_change_of_pixels() -> None:
    black = np.zeros((1, 30, 50, 3), dtype=np.uint8)
    small = thumbnails(np.concatenate([black, black + 255, black + 51]))
    assert small.shape == (3, 16 * 16 * 3)
    assert np.linalg.norm(small[1] - small[0]) == pytest.approx(1.0)
    assert np.linalg.norm(small[2] - small[0]) == pytest.approx(0.2)
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    cells = noise.reshape(1, 16, 2, 16, 2, 3).mean(axis=(2, 4)).reshape(1, -1) / 255 / np.sqrt(768)
    np.testing.assert_allclose(thumbnails(noise), cells, rtol=1e-5)
