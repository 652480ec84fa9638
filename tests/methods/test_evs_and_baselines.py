"""evs beyond its authors' code, and the baselines by hand."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from method_items import anyres, drifting, video

from tokcli.methods import resolve
from tokcli.types import TokenSet, VisualTokens


def compress(spec: str, visual: VisualTokens, item: str = "item", **arguments: object) -> TokenSet:
    return resolve(spec, **arguments).compress(visual, item)  # type: ignore[arg-type]


def test_evs_gives_the_share_that_was_asked_for() -> None:
    visual = drifting((40, 1, 1))
    assert len(compress("evs", visual, keep=0.1)) == 4
    official = {"variant": "official", "pruning_rate": 0.9}
    # 1 - 0.9 is a little less than 0.1, so that the authors' expression loses a token.
    assert len(compress("evs", visual, options=official)) == 3
    assert len(compress("evs", visual, options={"pruning_rate": 0.9})) == 4
    assert len(compress("evs", visual, keep=0.1, options={"variant": "official"})) == int(40 * (1 - (1 - 0.1)))


def test_evs_defaults_to_the_rate_that_models_were_trained_with() -> None:
    visual = drifting((10, 2, 5))
    assert len(compress("evs", visual)) == 30
    assert resolve("evs") == resolve("evs", options={"pruning_rate": 0.7})


def test_evs_rounds_the_rate_as_it_was_written() -> None:
    # 0.3 of 15 is 4.5, half to even 4; in floating point 1 - 0.7 is a little more than 0.3.
    assert len(compress("evs", drifting((15, 1, 1)), options={"pruning_rate": 0.7})) == 4


def test_evs_keeps_the_first_step_and_then_what_changed_most() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 0, 30, 30, 30, 90, 100, 100]))
    visual = video(torch.stack([angles.cos(), angles.sin()], 1), (8, 1, 1))
    for count, expected in ((1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (4, [0, 2, 5, 6])):
        assert compress("evs", visual, max_tokens=count).source.tolist() == expected


def test_evs_ties_go_to_the_earlier_token() -> None:
    visual = video(torch.eye(6), (6, 1, 1))
    assert compress("evs", visual, max_tokens=3).source.tolist() == [0, 1, 2]


def test_evs_keeps_views_of_a_single_step_whole() -> None:
    kept = compress("evs", anyres(), keep=0.01)
    assert torch.bincount(kept.coords[:, 0]).tolist() == [15, 8 + 2, 12]


@pytest.mark.parametrize(("count", "total"), [(1, 7), (3, 7), (5, 12), (12, 12)])
def test_uniform_takes_floor_i_n_over_k(count: int, total: int) -> None:
    kept = compress("uniform", video(torch.randn(total, 2), (total, 1, 1)), max_tokens=count)
    assert kept.source.tolist() == [i * total // count for i in range(count)]


def test_random_is_a_draw_by_seed_and_item() -> None:
    visual = drifting((5, 4, 5))
    kept = compress("random", visual, "clips/a.mp4", keep=0.2, seed=7)
    expected = np.random.Generator(np.random.PCG64(7 ^ zlib.crc32(b"clips/a.mp4"))).choice(100, 20, replace=False)
    assert kept.source.tolist() == sorted(expected.tolist())
    others = [
        compress("random", visual, "clips/b.mp4", keep=0.2, seed=7),
        compress("random", visual, "clips/a.mp4", keep=0.2),
    ]
    assert all(other.source.tolist() != kept.source.tolist() for other in others)


def test_pool2d_is_average_pooling_where_the_sizes_divide() -> None:
    visual = drifting((3, 6, 8))
    kept = compress("pool2d", visual, keep=0.25)
    maps = visual.tokens.view(3, 6, 8, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.avg_pool2d(maps, 2).permute(0, 2, 3, 1).reshape(36, -1)
    torch.testing.assert_close(kept.tokens, expected)
    assert kept.mass.tolist() == [4.0] * 36
    assert kept.coords[:4].tolist() == [[0, 0, 0, 0], [0, 0, 0, 2], [0, 0, 0, 4], [0, 0, 0, 6]]


def test_pool2d_counts_each_token_once_on_any_grid() -> None:
    visual = drifting((2, 5, 7))
    kept = compress("pool2d", visual, max_tokens=14)
    # 7 tokens a frame: round(sqrt(7 * 5 / 7)) = 2 rows of 3, from bands of 3 + 2 rows and 3 + 2 + 2 columns.
    assert kept.mass.tolist() == [9.0, 6, 6, 6, 4, 4] * 2
    assert kept.coords[:6, 2:].tolist() == [[1, 1], [1, 3], [1, 5], [3, 1], [3, 3], [3, 5]]
    assert kept.assignment is not None
    cell = visual.tokens[kept.assignment == 0]
    torch.testing.assert_close(kept.tokens[0], cell.mean(0))
    assert len(cell) == 9


def test_pool2d_shares_a_ceiling_among_views_and_never_exceeds_it() -> None:
    visual = anyres()
    for ceiling in range(9, 90):
        kept = compress("pool2d", visual, max_tokens=ceiling)
        assert len(kept) <= ceiling
        assert kept.mass.sum() == len(visual)


def test_downsample_shrinks_the_frames_and_nothing_else() -> None:
    compressor = resolve("downsample", keep=0.25)
    assert compressor.pixel_scale == 0.25
    assert compressor.streaming
    visual = drifting((2, 3, 4))
    assert torch.equal(compressor.compress(visual, "item").tokens, visual.tokens)
    assert resolve("downsample,dtd", options={"downsample.keep": 0.5}).pixel_scale == 0.5
    assert resolve("dtd").pixel_scale == 1.0
