"""What is drawn of the rows, by hand."""

from __future__ import annotations

import math

import pytest
from report_rows import make_row, make_rows

from tokcli.report.points import Point, as_point, curves, kept_share, pareto_front, references, settings


def test_shares_and_intervals_of_a_point() -> None:
    row = make_row("dtd", 0.25, None, 0.9, ci=[0.88, 0.93], cache_bytes=500, source_bytes=2000, kept_tokens=25)
    assert as_point(row | {"source_tokens": 100}, "tokens") == Point("dtd", 0.25, 0.9, 0.88, 0.93)
    assert as_point(row, "bytes") == Point("dtd", 0.25, 0.9, 0.88, 0.93)
    # An interval of a mean can miss it by rounding: a bar never has a negative length.
    assert as_point(row | {"ci": [0.91, 0.92]}, "bytes") == Point("dtd", 0.25, 0.9, 0.9, 0.92)
    assert as_point(row | {"ci": None}, "bytes") == Point("dtd", 0.25, 0.9, 0.9, 0.9)


@pytest.mark.parametrize(
    "change", [{"accuracy": None}, {"accuracy": math.nan}, {"source_bytes": None}, {"source_bytes": 0}]
)
def test_what_is_unknown_is_not_drawn(change: dict[str, float | None]) -> None:
    row = make_row("dtd", 0.25, None, 0.9) | change
    assert as_point(row, "bytes") is None
    assert curves([row], "bytes") == {}


def test_references_are_no_curves() -> None:
    rows = make_rows({"dtd": 0.02})
    assert list(curves(rows, "tokens")) == ["dtd"]
    assert references(rows) == pytest.approx({"full": 0.965, "blind": 0.30, "guess": 0.28, "chance": 0.27})
    assert references([make_row("dtd", 0.1, None, 0.9, chance=None)]) == {}


def test_curves_go_from_left_to_right_and_only_over_all_kinds() -> None:
    points = curves(make_rows({"uniform": 0.05, "dtd": 0.02}), "tokens")
    assert list(points) == ["dtd", "uniform"]
    assert [point.share for point in points["dtd"]] == [0.05, 0.1, 0.25, 0.5, 1.0]


def test_a_baseline_at_the_same_count_as_its_own_budget_is_drawn_once() -> None:
    rows = [
        make_row("uniform", None, None, 0.7, kept_tokens=25_100, matches="dtd 0.25"),
        make_row("uniform", 0.25, None, 0.8),
        make_row("uniform", None, None, 0.6, kept_tokens=17_000, matches="dtd"),
    ]
    chosen = settings(rows)
    assert [(row["accuracy"], kept_share(row)) for row in chosen] == [(0.8, 0.25), (0.6, 0.17)]
    assert [point.matched for point in curves(rows, "tokens")["uniform"]] == [True, False]


def test_a_setting_that_could_not_be_met_is_left_out() -> None:
    failed = make_row("evs", 0.05, None, 0.0) | {"accuracy": None, "ci": None, "kept_tokens": None, "cache_bytes": None}
    assert settings([failed]) == []


def test_pareto_front_of_six_points() -> None:
    def at(share: float, accuracy: float) -> Point:
        return Point("m", share, accuracy, accuracy, accuracy)

    points = [at(0.5, 0.9), at(0.25, 0.9), at(0.1, 0.6), at(0.1, 0.7), at(0.05, 0.5), at(1.0, 0.95)]
    assert pareto_front(points) == [at(0.05, 0.5), at(0.1, 0.7), at(0.25, 0.9), at(1.0, 0.95)]
