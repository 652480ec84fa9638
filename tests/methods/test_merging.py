"""What the methods that merge tokens of stills promise beyond the shared tests and the authors' outputs."""

from __future__ import annotations

import pytest
import torch
from method_items import anyres, check_token_set, drifting, video

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.methods.ppe import last_members
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.pooling import group_means
from tokcli.ops.resizing import bilinear
from tokcli.types import VisualTokens


@pytest.mark.parametrize("name", ["visionzip", "folder", "ppe", "expedit", "cluster_merge"])
def test_a_budget_below_the_number_of_steps_leaves_some_steps_without(name: str) -> None:
    signals = {"received_attention": torch.rand(5 * 6), "head_mean_keys": torch.randn(5 * 6, 3)}
    visual = video(torch.randn(5 * 6, 4), (5, 2, 3), **signals)
    session = resolve(name, max_tokens=1).start("item", visual.views)
    kept = []
    for step in range(5):
        rows = slice(6 * step, 6 * step + 6)
        chunk = VisualTokens(
            visual.tokens[rows],
            visual.coords[rows],
            visual.views,
            visual.structural[rows],
            {key: values[rows] for key, values in signals.items()},
            1.0,
        )
        kept.append(session.push(chunk))
    assert [len(part) for part in kept] == [1, 0, 0, 0, 0]
    assert all(part.assignment is not None and part.assignment.tolist() == [-1] * 6 for part in kept[1:])


@pytest.mark.parametrize("protected", [0, 1, 2])
@pytest.mark.parametrize("length", [2, 3, 4, 9, 16])
def test_protected_tokens_neither_merge_nor_receive(length: int, protected: int) -> None:
    # The protected tokens are like all others, so that they would be the first to merge.
    metric = torch.ones(1, length, 3)
    matching = bipartite_matching(metric, length, protected=protected)
    assert matching.merged.shape[1] == max(0, (length - protected) // 2)
    left = Merging.start(metric).apply(matching, matching.official_order())
    assert left.sizes[0, :protected].tolist() == [1.0] * protected
    assert left.anchors[0, :protected].tolist() == list(range(protected))
    assert left.sizes.sum() == length


def test_a_penalty_comes_off_the_similarity_of_sources() -> None:
    metric = torch.tensor([[[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.1], [1, 0.1]]])
    assert bipartite_matching(metric, 1).merged.tolist() == [[4]]
    penalty = torch.tensor([[0.0, 9, 0, 9, 0.5]])
    assert bipartite_matching(metric, 1, penalty=penalty).merged.tolist() == [[2]]


@pytest.mark.parametrize(("grid", "shape"), [((24, 24), (9, 7)), ((5, 8), (5, 8)), ((3, 4), (1, 1)), ((7, 2), (3, 2))])
def test_bilinear_samples_are_those_of_interpolate(grid: tuple[int, int], shape: tuple[int, int]) -> None:
    picture = torch.randn(6, *grid)
    samples = bilinear(grid, shape)
    expected = torch.nn.functional.interpolate(picture[None], shape, mode="bilinear", align_corners=False)[0]
    values = (picture.flatten(1)[:, samples.places] * samples.weights).sum(dim=1)
    torch.testing.assert_close(values.view(6, *shape), expected, atol=1e-5, rtol=0)


def test_pool2d_samples_what_interpolate_does() -> None:
    visual = drifting((2, 10, 6))
    kept = resolve("pool2d", keep=0.25, options={"resize": "bilinear"}).compress(visual, "item")
    maps = visual.tokens.view(2, 10, 6, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(maps, (5, 3), mode="bilinear", align_corners=False)
    torch.testing.assert_close(kept.tokens, expected.permute(0, 2, 3, 1).reshape(30, -1), atol=1e-5, rtol=0)
    assert kept.mass.sum() == len(visual), "halving averages over four places"
    check_token_set(kept, visual, "merge")


def test_pool2d_drops_what_no_sample_looks_at() -> None:
    kept = resolve("pool2d", max_tokens=1, options={"resize": "bilinear"}).compress(drifting((1, 8, 8)), "item")
    assert kept.assignment is not None
    assert torch.nonzero(kept.assignment.view(8, 8) == 0).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]


@pytest.mark.parametrize("resize", ["mean", "bilinear"])
def test_pool2d_by_windows(resize: str) -> None:
    visual = drifting((2, 5, 7))
    for pad, count, mass in (("partial", 3 * 3, 35), ("crop", 2 * 2, 24)):
        options = {"window": 2, "window_columns": 3, "pad": pad, "resize": resize}
        kept = resolve("pool2d", options=options).compress(visual, "item")
        assert len(kept) == 2 * count
        check_token_set(kept, visual, "merge")
        if resize == "mean":
            assert kept.mass.sum() == 2 * mass
            first = visual.tokens.view(2, 5, 7, -1)[0, :2, :3].reshape(6, -1).mean(dim=0)
            torch.testing.assert_close(kept.tokens[0], first)
    assert len(resolve("pool2d", options={"window": 9, "pad": "crop"}).compress(visual, "item")) == 2


def test_pool2d_samples_around_gaps() -> None:
    visual = drifting((2, 6, 6))
    kept = resolve("uniform,pool2d", options={"uniform.keep": 0.4, "pool2d.keep": 0.1, "pool2d.resize": "bilinear"})
    found = kept.compress(visual, "item")
    assert 0 < len(found) <= 8
    assert bool(torch.isfinite(found.tokens).all())


def test_pool2d_needs_one_budget() -> None:
    for options, reason in (
        ({"window": 2, "keep": 0.5}, "keep and window cannot both be given"),
        ({"window_columns": 2, "keep": 0.5}, "window_columns goes with window"),
        ({}, "it needs a budget"),
    ):
        with pytest.raises(MethodError, match=reason):
            resolve("pool2d", options=options)


def test_llavolta_by_stride_and_by_budget() -> None:
    visual = video(torch.arange(70.0).view(70, 1), (2, 5, 7))
    kept = resolve("llavolta").compress(visual, "item")
    assert kept.tokens[:5, 0].tolist() == [3.5, 11.5, 19.5, 27.5, 33.0]
    assert kept.source[:5].tolist() == [3, 11, 19, 27, 33]
    assert kept.mass.sum() == 70
    official = resolve("llavolta", options={"variant": "official"}).compress(visual, "item")
    assert official.tokens[:4, 0].tolist() == [3.5, 11.5, 19.5, 27.5] and official.mass.sum() == 64
    # 70 tokens within 17: runs of 5 leave 14, runs of 4 would leave 18.
    assert len(resolve("llavolta", max_tokens=17).compress(visual, "item")) == 14


def test_visionzip_shares_each_picture_between_dominant_and_contextual() -> None:
    visual = anyres()
    kept = resolve("visionzip", keep=0.5, options={"contextual_share": 0.25}).compress(visual, "item")
    pictures = kept.coords[~visual.structural[kept.source], :2].unique(dim=0, return_counts=True)[1].tolist()
    assert pictures == [8, 4, *[6] * 5]
    assert kept.mass.sum() == len(visual), "what is not dominant is merged"
    assert int((kept.mass > 1).sum()) <= 2 + 1 + 5 * 2
    none = resolve("visionzip", keep=0.5, options={"contextual_share": 0.0}).compress(visual, "item")
    assert none.mass.max() == 1 and torch.equal(none.tokens, visual.tokens[none.source])


def test_ppe_stores_places_of_members_from_the_last_back() -> None:
    lists, labels = torch.arange(6).unsqueeze(1), torch.tensor([1, 0, 1, 1, 0, 2])
    assert last_members(lists, labels, 3, 4).tolist() == [[4, 1, 4, 1], [3, 2, 0, 3], [5, 5, 5, 5]]
    # A later stage takes the list of the last member as it is.
    assert last_members(torch.arange(12).view(6, 2), labels, 3, 2).tolist() == [[8, 9], [6, 7], [10, 11]]


@pytest.mark.parametrize("stages", [1, 2])
def test_ppe_places_are_members_of_their_cluster(stages: int) -> None:
    visual = anyres()
    kept = resolve("ppe", keep=0.3, options={"positions": 4, "stages": stages}).compress(visual, "item")
    places = torch.from_numpy(kept.stats["ppe_positions"]).view(len(kept), 4)
    # Places count those of the grids alone: rows 19 and 24 are newlines.
    row_of = torch.nonzero(~visual.structural).flatten()
    own = ~visual.structural[kept.source]
    assert kept.assignment is not None
    assert torch.equal(kept.assignment[row_of[places[own]]], torch.nonzero(own).to(torch.int32).expand(-1, 4)), (
        "every place stored with a token went into it"
    )
    assert kept.mass.sum() == len(visual)


def test_ppe_means_are_those_of_all_tokens_after_several_stages() -> None:
    visual = drifting((2, 6, 6))
    kept = resolve("ppe", keep=0.1, options={"stages": 3}).compress(visual, "item")
    assert kept.assignment is not None
    means, _ = group_means(visual.tokens, kept.assignment.long(), len(kept))
    torch.testing.assert_close(kept.tokens, means, atol=1e-5, rtol=0)


def blobs() -> tuple[VisualTokens, torch.Tensor]:
    """A 6 x 6 picture of four quarters of different directions, with the quarter of each place."""
    y, x = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    quarter = (y // 3 * 2 + x // 3).flatten()
    tokens = 5 * torch.eye(4)[quarter] + 0.1 * torch.randn(36, 4, generator=torch.Generator().manual_seed(0))
    return video(tokens, (1, 6, 6), received_attention=torch.arange(36.0)), quarter


@pytest.mark.parametrize("clusters", ["kmeans", "dpc-knn", "grid"])
@pytest.mark.parametrize("aggregate", ["mean", "importance", "medoid"])
def test_cluster_merge_finds_quarters(clusters: str, aggregate: str) -> None:
    visual, quarter = blobs()
    options = {"clusters": clusters, "aggregate": aggregate}
    kept = resolve("cluster_merge", max_tokens=4, options=options).compress(visual, "item")
    assert kept.assignment is not None
    assert torch.equal(quarter[kept.source][kept.assignment.long()], quarter)
    for row, token in enumerate(kept.tokens):
        members = torch.nonzero(kept.assignment == row).flatten()
        mean = visual.tokens[members].mean(dim=0)
        if aggregate == "mean":
            torch.testing.assert_close(token, mean)
            assert kept.coords[row, 2:].tolist() == visual.coords[members, 2:].float().mean(dim=0).tolist()
        elif aggregate == "importance":
            weights = members.float().unsqueeze(1)
            torch.testing.assert_close(token, (visual.tokens[members] * weights).sum(dim=0) / weights.sum())
        else:
            likeness = torch.nn.functional.cosine_similarity(visual.tokens[members], mean[None])
            assert kept.source[row] == members[likeness.argmax()]
            assert torch.equal(token, visual.tokens[kept.source[row]])


def test_cluster_merge_has_no_empty_cluster_where_tokens_are_alike() -> None:
    visual = video(torch.ones(20, 3), (1, 4, 5))
    kept = resolve("cluster_merge", max_tokens=7).compress(visual, "item")
    assert len(kept) == 7 and kept.mass.sum() == 20


def test_expedit_leaves_out_places_without_tokens() -> None:
    visual, quarter = blobs()
    options = {"expedit.keep": 4 / 36, "expedit.temperature": 1.0}
    whole = resolve("expedit", keep=4 / 36, options={"temperature": 1.0}).compress(visual, "item")
    assert whole.mass.tolist() == [9.0] * 4
    kept = resolve("random,expedit", options={"random.keep": 0.6, **options}).compress(visual, "item")
    assert kept.assignment is not None
    present = kept.assignment >= 0
    assert int(present.sum()) == 22 and kept.mass.sum() == 22
    assert torch.equal(quarter[kept.source][kept.assignment[present].long()], quarter[present])
    # Shared softly, but not with quarters as far away as these.
    for row, token in enumerate(kept.tokens):
        torch.testing.assert_close(token, visual.tokens[kept.assignment == row].mean(dim=0), atol=1e-4, rtol=0)
