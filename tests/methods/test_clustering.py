"""What is particular to the methods that cluster, beyond the golden cases and the shared properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_items import anyres, drifting, video

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.methods.ktv import keyframes
from tokcli.ops.directions import Directions, cosine_kmeans, farthest_first, plus_plus
from tokcli.ops.kmeans import Points, kmeans
from tokcli.ops.medoids import farthest_points, k_medoids, pairwise_distances
from tokcli.ops.selection import evenly_spread
from tokcli.ops.thumbnail import thumbnail, tile_grid
from tokcli.types import TokenSet


def points(count: int, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def scenes(lengths: list[int], dim: int = 16) -> torch.Tensor:
    """Descriptors of frames that stay near the middle of their scene."""
    middles = 10 * points(len(lengths), dim)
    return middles.repeat_interleave(torch.tensor(lengths), dim=0) + points(sum(lengths), dim, seed=1)


def test_farthest_first_by_definition() -> None:
    rows = 3 * points(60)
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    chosen = farthest_first(Directions(rows), 12).tolist()
    assert chosen[0] == int((unit @ unit.sum(dim=0)).argmax())
    for index in range(1, 12):
        nearest = torch.cdist(unit, unit[chosen[:index]]).amin(dim=1)
        assert chosen[index] == int(nearest.argmax())
    assert farthest_first(Directions(rows), 5).tolist() == chosen[:5]


def test_starts_are_different_rows_even_if_all_are_equal() -> None:
    assert farthest_first(Directions(torch.ones(7, 3)), 7).sort().values.tolist() == list(range(7))
    assert farthest_points(torch.zeros(7, 7), 7, 2).tolist() == [2, 0, 1, 3, 4, 5, 6]


def test_plus_plus_prefers_what_is_far() -> None:
    rows = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(1000, 1), torch.tensor([[0.0, 1.0]])])
    drawn = [plus_plus(Directions(rows), 2, np.random.default_rng(seed)).tolist() for seed in range(50)]
    assert sum(1000 in pair for pair in drawn) > 45, "one of a thousand, but nearly all of the squared distance"


def test_cosine_kmeans_ends_where_every_row_is_with_its_mean() -> None:
    rows = points(200) * torch.rand(200, 1)
    directions = Directions(rows)
    start = directions.at(farthest_first(directions, 6))
    centroids, groups = cosine_kmeans(directions, start, max_iterations=100, tolerance=1e-6)
    unit = torch.nn.functional.normalize(rows, dim=1)
    means = torch.stack([unit[groups.labels == group].mean(dim=0) for group in range(6)])
    torch.testing.assert_close(centroids, means, atol=1e-5, rtol=0)
    assert torch.equal(groups.labels, (unit @ torch.nn.functional.normalize(means, dim=1).T).argmax(dim=1))
    spread = float((unit - means[groups.labels]).square().sum())
    assert groups.distortion(centroids) == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_codes_have_the_length_of_their_tokens(share: float) -> None:
    visual = drifting((8, 4, 6))
    kept = resolve("vqtoken", keep=share).compress(visual, "item")
    assert kept.assignment is not None
    lengths = torch.linalg.vector_norm(visual.tokens, dim=1)
    means = torch.bincount(kept.assignment, weights=lengths) / kept.mass
    torch.testing.assert_close(torch.linalg.vector_norm(kept.tokens, dim=1), means.float(), rtol=1e-5, atol=0)
    alone = kept.mass == 1
    assert torch.equal(kept.tokens[alone], visual.tokens[kept.source[alone]])
    short = resolve("vqtoken", keep=share, options={"rescale": "none"}).compress(visual, "item")
    assert torch.equal(short.source, kept.source)
    assert bool((torch.linalg.vector_norm(short.tokens, dim=1) < 1 + 1e-6).all())


def test_codes_that_no_token_chose() -> None:
    visual = video(points(3, 4).repeat(10, 1), (1, 5, 6))
    assert len(resolve("vqtoken", max_tokens=8).compress(visual, "item")) == 8
    official = resolve("vqtoken", max_tokens=8, options={"variant": "official"}).compress(visual, "item")
    assert len(official) <= 8 and official.mass.sum() == 30


def test_the_number_of_codes_is_found() -> None:
    rows = 5 * torch.eye(18).repeat(6, 1) + 0.05 * points(108, 18)
    fixed, official = (
        resolve("vqtoken", options={"variant": variant}).compress(video(rows, (3, 6, 6)), "item")
        for variant in ("fixed", "official")
    )
    assert len(fixed) == 18
    assert len(official) == max(12, 18 - 9), "nine too few"
    assert len(resolve("vqtoken").compress(video(points(13), (1, 1, 13)), "item")) == 12
    assert len(resolve("vqtoken").compress(video(points(9), (1, 3, 3)), "item")) == 9


def test_kmeans_does_not_lose_a_scene() -> None:
    lengths = [20, 7, 40, 3, 30]
    chosen = keyframes(scenes(lengths), 5)
    ends = np.cumsum(lengths)
    assert np.searchsorted(ends, chosen.numpy(), side="right").tolist() == [0, 1, 2, 3, 4]


def test_kmeans_ends_where_every_point_is_with_its_mean() -> None:
    cloud = Points(points(300))
    centroids = kmeans(cloud, 4, restarts=10, seed=0)
    labels = cloud.nearest(centroids[None])[0][0]
    means = torch.stack([cloud.values[labels == group].mean(dim=0) for group in range(4)])
    # The end by tolerance: a little before the means stand still.
    assert float((means - centroids).square().sum()) < 100 * cloud.tolerance


def test_keyframes_of_equal_frames_are_different_ones() -> None:
    descriptors = scenes([5, 5])[[0, 0, 0, 0, 5, 5, 5]]
    assert len(set(keyframes(descriptors, 4).tolist())) == 4
    assert keyframes(descriptors, 4, "official").tolist() == [0, 1, 3, 5]


def test_keyframes_of_more_frames_than_are_looked_at() -> None:
    chosen = keyframes(scenes([3000, 2500, 500], dim=4), 3)
    assert np.searchsorted([3000, 5500, 6000], chosen.numpy(), side="right").tolist() == [0, 1, 2]


def frames_of(kept: TokenSet) -> list[int]:
    """How many tokens are kept of each frame that any is kept of."""
    sizes: list[int] = torch.unique(kept.coords[:, 1], return_counts=True)[1].tolist()
    return sizes


def test_tokens_of_keyframes() -> None:
    visual = drifting((20, 4, 6))
    assert frames_of(resolve("ktv").compress(visual, "item")) == [24] * 6, "156 of each, where there are as many"
    assert frames_of(resolve("ktv", max_tokens=100).compress(visual, "item")) == [17, 17, 17, 17, 16, 16]
    official = {"variant": "official"}
    assert frames_of(resolve("ktv", max_tokens=100, options=official).compress(visual, "item")) == [16] * 6
    assert frames_of(resolve("ktv", max_tokens=4).compress(visual, "item")) == [1] * 4
    more = frames_of(resolve("ktv", max_tokens=300).compress(visual, "item"))
    assert sum(more) == 300 and len(more) == 13, "six keyframes have too few tokens"


def test_single_pictures_count_as_chosen() -> None:
    visual = anyres()
    kept = resolve("ktv", options={"keyframes": 2}).compress(visual, "item")
    views = torch.bincount(kept.coords[:, 0])
    assert views.tolist() == [15, 8 + 2, 2 * 12], "thumbnail, crop with its newlines, two of five frames"


def test_distances_by_definition() -> None:
    rows = points(30).double()
    expected = (rows[:, None] - rows).square().sum(dim=2).sqrt()
    torch.testing.assert_close(pairwise_distances(rows, "euclidean"), expected)
    unit = torch.nn.functional.normalize(rows, dim=1)
    torch.testing.assert_close(pairwise_distances(rows, "cosine"), 1 - unit @ unit.T, atol=1e-5, rtol=0)
    equal = pairwise_distances(torch.cat([rows, rows]).float(), "euclidean")
    assert torch.equal(equal[:30, :30], equal[30:, 30:]) and torch.equal(equal, equal.T)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_medoids_are_the_middles_of_their_clusters(distance: str) -> None:
    rows = points(80)
    distances = pairwise_distances(rows, "cosine" if distance == "cosine" else "euclidean")
    medoids, labels = k_medoids(rows, distances, farthest_points(distances, 9, 0), max_iterations=100, threshold=1e-5)
    assert medoids.tolist() == sorted(set(medoids.tolist()))
    assert torch.equal(labels[medoids], torch.arange(9))
    assert torch.equal(labels, distances[medoids].argmin(dim=0))
    for cluster, medoid in enumerate(medoids.tolist()):
        members = torch.nonzero(labels == cluster).flatten()
        costs = distances[members][:, members].sum(dim=1)
        assert medoid == members[costs.argmin()]


def test_segments_do_not_mix() -> None:
    visual = drifting((7, 4, 6))
    kept = resolve("centerclip", options={"frames_per_segment": 3}).compress(visual, "item")
    assert kept.assignment is not None
    segment = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    rows = segment[visual.coords[:, 1].long()]
    assert torch.equal(rows, rows[kept.source][kept.assignment.long()])
    assert torch.bincount(rows[kept.source]).tolist() == [24, 24, 24]
    assert torch.equal(kept.tokens, visual.tokens[kept.source]), "medoids are tokens"


def test_a_large_frame_is_divided() -> None:
    visual = video(points(5000, 2), (1, 50, 100))
    kept = resolve("centerclip", keep=0.002).compress(visual, "item")
    assert kept.assignment is not None and len(kept) == 10
    assert int(kept.assignment[:2500].max()) < int(kept.assignment[2500:].min())


def test_pooling_averages_over_the_frames_of_a_segment() -> None:
    visual = drifting((4, 4, 6))
    kept = resolve("centerclip", options={"algorithm": "pooling"}).compress(visual, "item")
    expected = visual.tokens.view(2, 2, 24, -1).mean(dim=1).flatten(0, 1)
    torch.testing.assert_close(kept.tokens, expected)
    assert sorted(set(kept.coords[:, 1].tolist())) == [0, 2]
    with pytest.raises(MethodError, match="set frames_per_segment and no budget"):
        resolve("centerclip", keep=0.5, options={"algorithm": "pooling"})


def test_less_than_a_token_of_every_segment() -> None:
    visual = drifting((8, 4, 6))
    assert len(resolve("centerclip", keep=0.005).compress(visual, "item")) == 4
    with pytest.raises(MethodError, match="a token of every segment"):
        resolve("centerclip", max_tokens=3).compress(visual, "item")


def test_spectral_finds_rings() -> None:
    # Two rings around each other, which no middle tells apart.
    angle = torch.linspace(0, 2 * np.pi, 61)[:-1]
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    rows = torch.cat([ring, 6 * ring])
    options = {"algorithm": "spectral", "sigma": 0.5, "frames_per_segment": 1}
    kept = resolve("centerclip", max_tokens=2, options=options).compress(video(rows, (1, 2, 60)), "item")
    assert kept.assignment is not None
    assert kept.assignment.tolist() == [0] * 60 + [1] * 60


def test_evenly_spread_is_what_torch_rounds() -> None:
    for count, k in [(28800, 1728), (144000, 2880), (200704, 2880), (17, 15), (5, 5), (5, 1), (0, 0)]:
        chosen = evenly_spread(count, k)
        assert torch.equal(chosen, torch.linspace(0, max(0, count - 1), k).round().long())
        assert len(set(chosen.tolist())) == k


def test_ts_llava_takes_what_there_is() -> None:
    visual = drifting((20, 12, 13))
    kept = resolve("ts_llava").compress(visual, "item")
    assert len(kept) == 2880 and kept.source[0] == 0 and kept.source[-1] == 20 * 12 * 13 - 1
    assert len(resolve("ts_llava").compress(drifting((2, 3, 4)), "item")) == 24


def test_thumbnail_tiles_in_the_order_of_time() -> None:
    frames = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 8, 8, 3) * 60
    picture = thumbnail(frames, 4, 8, 8)
    assert picture.shape == (3, 8, 8)
    assert (picture[0, [0, 0, 4, 4], [0, 4, 0, 4]] * 255).round().tolist() == [0, 60, 120, 180]
    assert thumbnail(frames[:1], 6, 9, 9).shape == (3, 9, 9), "no more frames than there are"
    assert [tile_grid(count) for count in (1, 4, 6, 7, 12)] == [(1, 1), (2, 2), (3, 2), (7, 1), (4, 3)]
