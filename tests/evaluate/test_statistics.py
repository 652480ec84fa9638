"""Statistics of caches against arithmetic by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tokcli.evaluate.statistics import (
    effective_rank,
    item_statistics,
    kept_timeline,
    sample_statistics,
    scene_cuts,
    table_statistics,
    third_counts,
    tok_dense,
)
from tokcli.types import EncodedItem, TokenSet, View


def make_item(
    places: list[tuple[int, int, int]], grid: tuple[int, int, int] = (4, 3, 2), **changes: Any
) -> EncodedItem:
    """A video of 8 frames and 4 seconds, of whose grid the given (t, y, x) are kept."""
    count = len(places)
    coords = torch.tensor([(0, *place) for place in places], dtype=torch.int32).reshape(count, 4)
    kept = TokenSet(
        tokens=changes.pop("tokens", torch.ones(count, 2)),
        coords=coords,
        mass=torch.ones(count),
        source=torch.arange(count),
        stats=changes.pop("stats", {}),
    )
    values: dict[str, Any] = {
        "id": "a",
        "path": "a",
        "kind": "video",
        "kept": kept,
        "views": (View("frames", grid),),
        "source_tokens": grid[0] * grid[1] * grid[2],
        "times": np.arange(8) / 2,
        "indices": np.arange(8),
        "frame_size": (84, 56),
        "source_size": (84, 56),
        "duration_seconds": 4.0,
        "source_fps": 2.0,
        "sample_fps": 2.0,
        "seconds_per_step": 1.0,
        "codec": "h264",
        "decoder": "pyav",
        "source_bytes": 1,
        "source_modified_ns": 1,
        "source_hash": "0" * 64,
    }
    return EncodedItem(**values | changes)


def whole_step(step: int, grid: tuple[int, int, int] = (4, 3, 2)) -> list[tuple[int, int, int]]:
    return [(step, y, x) for y in range(grid[1]) for x in range(grid[2])]


class TestTimeline:
    def test_counts_each_step(self) -> None:
        timeline = kept_timeline(make_item([*whole_step(0), (1, 0, 0), (3, 0, 0), (3, 2, 1), (3, 2, 0)]))
        assert timeline is not None
        assert timeline.seconds.tolist() == [0.0, 1.0, 2.0, 3.0]  # two frames a step
        np.testing.assert_allclose(timeline.kept_share, [1, 1 / 6, 0, 3 / 6])
        np.testing.assert_allclose(timeline.drop_ratio, [0, 5 / 6, 1, 3 / 6])

    def test_the_last_step_may_hold_one_frame(self) -> None:
        timeline = kept_timeline(make_item(whole_step(0), times=np.arange(7) / 2, indices=np.arange(7)))
        assert timeline is not None
        assert timeline.seconds.tolist() == [0.0, 1.0, 2.0, 3.0]

    def test_smaller_frames_count_as_dropped(self) -> None:
        # 96 tokens before, frames of a quarter of the area: all 24 that were encoded are kept.
        item = make_item([place for step in range(4) for place in whole_step(step)], source_tokens=96)
        timeline = kept_timeline(item)
        assert timeline is not None
        np.testing.assert_allclose(timeline.kept_share, 0.25)

    def test_stills_have_none(self) -> None:
        still = make_item([(0, 0, 0)], (1, 3, 2), kind="image", views=(View("image", (1, 3, 2)),), duration_seconds=0.0)
        assert kept_timeline(still) is None
        assert item_statistics(still)["timeline"] is None
        assert item_statistics(still)["tokens_per_second"] is None

    def test_agrees_with_what_dtd_stored(self) -> None:
        from tokcli.methods import resolve
        from tokcli.types import VisualTokens

        generator = torch.Generator().manual_seed(0)
        grid = (6, 4, 5)
        coords = torch.cartesian_prod(*(torch.arange(size) for size in (1, *grid))).int()
        visual = VisualTokens(
            tokens=torch.randn(120, 3, generator=generator),
            coords=coords,
            views=(View("frames", grid),),
            structural=torch.zeros(120, dtype=torch.bool),
            seconds_per_step=1.0,
        )
        kept = resolve("dtd").compress(visual, "a")
        item = make_item([], grid, kept=kept, times=np.arange(6.0), indices=np.arange(6))
        timeline = kept_timeline(item)
        assert timeline is not None
        assert 0 < timeline.drop_ratio[1:].mean() < 1
        np.testing.assert_allclose(timeline.drop_ratio[1:], kept.stats["drop_ratio"], atol=1e-6)


class TestSceneCuts:
    def test_a_step_that_keeps_more_than_those_around_it(self) -> None:
        shares = [1.0, 0.1, 0.1, 0.9, 0.1, 0.0, 0.1, 0.1]
        assert scene_cuts(np.array(shares)).tolist() == [3]

    def test_the_margin_is_a_fifth_of_a_step_and_the_factor_three(self) -> None:
        def second_of_five(share: float, usual: float) -> list[int]:
            return scene_cuts(np.array([1.0, usual, share, usual, usual])).tolist()

        assert second_of_five(0.2, 0.0) == [2]
        assert second_of_five(0.19, 0.0) == []
        assert second_of_five(0.9, 0.3) == [2]
        assert second_of_five(0.89, 0.3) == []

    def test_of_consecutive_steps_the_first(self) -> None:
        assert scene_cuts(np.array([1.0, 0, 0, 0, 0.8, 0.7, 0, 0, 0])).tolist() == [4]

    @pytest.mark.parametrize("shares", [[], [1.0], [1.0, 1.0], [1.0, 0.5, 0.5, 0.5, 0.5], [1.0, 0, 0, 0]])
    def test_even_and_short_ones_have_none(self, shares: list[float]) -> None:
        assert scene_cuts(np.array(shares)).tolist() == []


class TestEffectiveRank:
    def test_of_a_diagonal_matrix(self) -> None:
        # Singular values 4, 2, 1, 1: weights 1/2, 1/4, 1/8, 1/8, whose entropy is 1.75 bits.
        assert effective_rank(torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))) == pytest.approx(2**1.75)

    @pytest.mark.parametrize("shape", [(3, 8), (8, 3)])
    def test_of_directions_that_weigh_the_same(self, shape: tuple[int, int]) -> None:
        assert effective_rank(7 * torch.eye(*shape)) == pytest.approx(3)

    def test_is_not_centred(self) -> None:
        # Centred, these rows would be nothing at all.
        assert effective_rank(torch.ones(50, 4, dtype=torch.bfloat16)) == pytest.approx(1)

    def test_against_the_formula(self) -> None:
        tokens = torch.randn(40, 17, generator=torch.Generator().manual_seed(1))
        singular = np.linalg.svd(tokens.double().numpy(), compute_uv=False)
        weights = singular / singular.sum()
        assert effective_rank(tokens) == pytest.approx(math.exp(-(weights * np.log(weights)).sum()))

    def test_takes_rows_evenly(self) -> None:
        # Of rows 0 to 6 three: 0, 3 and 6, which are the same; the others differ.
        tokens = torch.eye(7)
        tokens[[3, 6]] = tokens[0].clone()
        assert effective_rank(tokens, max_rows=3) == pytest.approx(1)

    def test_of_nothing(self) -> None:
        assert effective_rank(torch.zeros(0, 4)) == 0
        assert effective_rank(torch.zeros(3, 4)) == 0


class TestCoverage:
    def test_thirds_of_a_grid_that_three_does_not_divide(self) -> None:
        # Rows 0 to 4 are in thirds 0 0 1 1 2: floor(3 y / 5).
        item = make_item([(0, 0, 0), (0, 1, 1), (1, 1, 0), (1, 3, 0), (3, 4, 0), (3, 4, 1)], (4, 5, 2))
        kept, places = third_counts(item)
        assert kept.tolist() == [3, 1, 2]
        assert places.tolist() == [16, 16, 8]
        coverage = item_statistics(item)["coverage"]
        assert coverage["top"] == {"share": pytest.approx(3 / 6), "even": pytest.approx(16 / 40)}
        assert coverage["bottom"] == {"share": pytest.approx(2 / 6), "even": pytest.approx(8 / 40)}

    def test_crops_are_left_out(self) -> None:
        views = (View("thumbnail", (1, 3, 1)), View("crop", (1, 3, 1)))
        item = make_item([(0, 2, 0), (0, 0, 0)], kind="image", views=views, source_tokens=6)
        item.kept.coords[1, 0] = 1
        kept, places = third_counts(item)
        assert (kept.tolist(), places.tolist()) == ([0, 0, 1], [1, 1, 1])


def test_tok_dense_is_points_for_a_token() -> None:
    assert tok_dense(0.93, 31) == pytest.approx(3.0)
    assert tok_dense(0.93, 0) is None


def make_table(rows: list[dict[str, Any]]) -> pa.Table:
    stat = pa.struct([("name", pa.string()), ("dtype", pa.string()), ("values", pa.list_(pa.float64()))])
    schema = pa.schema(
        [
            ("kept_tokens", pa.int64()),
            ("source_tokens", pa.int64()),
            ("duration_seconds", pa.float64()),
            ("stats", pa.list_(stat)),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


class TestTable:
    def test_by_hand(self) -> None:
        def stats(ratios: list[float], triggers: list[float]) -> list[dict[str, Any]]:
            return [
                {"name": "drop_ratio", "dtype": "float32", "values": ratios},
                {"name": "trigger_seconds", "dtype": "float64", "values": triggers},
            ]

        table = make_table(
            [
                {"kept_tokens": 30, "source_tokens": 100, "duration_seconds": 4.0, "stats": stats([0.9, 0.6], [2.0])},
                {"kept_tokens": 20, "source_tokens": 200, "duration_seconds": 6.0, "stats": stats([0.3], [])},
                {"kept_tokens": 50, "source_tokens": 50, "duration_seconds": 0.0, "stats": stats([], [])},
            ]
        )
        found = table_statistics(table, accuracy=0.8)
        assert found["tokens_per_second"] == {"kept": 5.0, "source": 30.0}  # the still is no part of a second
        assert found["tokens_per_item"] == pytest.approx(100 / 3)
        assert found["kept_share"] == pytest.approx({"min": 0.1, "median": 0.3, "max": 1.0})
        assert found["drop_ratio"] == pytest.approx(0.6)
        assert found["triggers"] == 1
        assert found["tok_dense"] == pytest.approx(80 / (100 / 3))

    def test_what_it_cannot_tell_is_null(self) -> None:
        still = {"kept_tokens": 5, "source_tokens": 10, "duration_seconds": 0.0, "stats": None}
        for rows in ([], [still]):
            found = table_statistics(make_table(rows), accuracy=None)
            for name in ("tokens_per_second", "drop_ratio", "triggers", "tok_dense"):
                assert found[name] is None, name
        assert table_statistics(make_table([]), accuracy=0.5)["tok_dense"] is None


def test_sample_pools_steps_and_tokens() -> None:
    # Two videos of 4 and 10 steps: step t of n falls into tenth floor(10 t / n).
    short = make_item([*whole_step(0), *whole_step(2)])
    long = make_item(whole_step(0), (10, 3, 2), times=np.arange(10.0), indices=np.arange(10), duration_seconds=56.0)
    found = sample_statistics([short, long])
    assert found["items"] == 2
    assert found["drop_ratio_by_tenth"] == [0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert (found["scene_cuts"], found["scene_cuts_per_minute"]) == (1, 1.0)
    assert found["effective_rank"] == pytest.approx(1)
    assert found["rank_tokens"] == 9
    assert found["coverage"]["middle"] == {"share": pytest.approx(1 / 3), "even": pytest.approx(1 / 3)}
    assert sample_statistics([])["effective_rank"] is None
