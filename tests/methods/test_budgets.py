"""Options and budgets: what is allowed, what a share means, and what the messages say."""

from __future__ import annotations

from typing import Any

import pytest
from method_items import anyres, drifting

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.methods.budget import share_count


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.1, 10, 1),
        (0.25, 10, 2),  # 2.5: halves go to the even number
        (0.35, 10, 4),  # 3.5
        (0.29, 50, 14),  # 14.5, which is 14.499999999999998 in binary
        (0.15, 10, 2),
        (1.0, 7, 7),
        (0.001, 10, 1),  # never nothing
        (1e-12, 10**6, 1),
    ],
)
def test_a_share_is_rounded_as_it_was_written(share: float, count: int, expected: int) -> None:
    assert share_count(share, count) == expected


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("evs", {"keep": 0}, "'evs': keep=0 is not allowed; keep must be a number above 0 and at most 1$"),
        ("evs", {"keep": 2}, "keep=2 is not allowed"),
        ("evs", {"keep": float("nan")}, "keep=nan is not allowed"),
        ("uniform", {"max_tokens": 0}, "max_tokens=0 is not allowed; max_tokens must be a whole number at least 1$"),
        ("uniform", {"keep": 0.5, "max_tokens": 3}, "keep and max_tokens cannot both be given"),
        ("uniform", {}, "needs a budget; give one of keep, max_tokens$"),
        ("downsample", {}, "needs a budget; give one of keep$"),
        (
            "dtd",
            {"max_tokens": 9},
            "cannot be given max_tokens: it takes keep, threshold; `tokcli methods` shows which take max",
        ),
        ("dtd", {"keep": 0.5, "threshold": 0.5}, "keep and threshold cannot both be given"),
        (
            "none",
            {"keep": 0.5},
            "'none' cannot be given keep: it takes no budget; `tokcli methods` shows which take keep",
        ),
        ("dtd,none", {"keep": 0.5}, "'none' cannot be given keep"),
        ("dtd", {"threshold": 1.5}, "threshold must be a number at least -1 and at most 1$"),
        ("dtd", {"threshold": -0.5, "options": {"criterion": "pixel"}}, "threshold=-0.5 is not allowed here"),
        ("dtd", {"threshold": -0.5, "options": {"absolute": "false"}}, "threshold=-0.5 is not allowed here"),
        ("dtd", {"options": {"criterion": "pixels"}}, "criterion='pixels' is not allowed; .* 'feature' or 'pixel'$"),
        ("dtd", {"options": {"criterion": "pixel", "reference": "kept"}}, "needs criterion='feature'"),
        ("dtd", {"options": {"thresold": "1"}}, "unknown option 'thresold' .* did you mean 'threshold'\\?$"),
        ("dtd", {"keep": 0.5, "options": {"keep": "0.3"}}, "keep of method 'dtd' is given twice"),
        ("dtd", {"options": {"evs.keep": "0.3"}}, "'evs.keep' is for method 'evs', which is not one of dtd$"),
        ("dtd,evs", {"options": {"variant": "fixed"}}, "several methods; write dtd.variant or evs.variant$"),
        ("dtd,evs", {"options": {"variety": "fixed"}}, "unknown option 'variety'; options: dtd.keep, dtd.variant"),
        ("dtd,dtd", {}, "stands twice"),
        ("dtd,", {}, "unknown method ''"),
        ("evs", {"keep": 0.5, "options": {"pruning_rate": "0.5"}}, "keep and pruning_rate cannot both be given"),
        ("random", {"keep": 0.5, "seed": -1}, "seed=-1 is not allowed; seed must be a whole number at least 0$"),
    ],
)
def test_refusals_say_what_is_allowed(spec: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as error:
        resolve(spec, **arguments)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_text_from_a_command_line_becomes_values() -> None:
    options = {"absolute": "false", "threshold": "0.25", "trigger_below": "none"}
    stored = resolve("dtd", options=options).to_json()["methods"][0]["options"]
    assert (stored["absolute"], stored["threshold"], stored["trigger_below"]) == (False, 0.25, None)


def test_the_threshold_that_holds_is_stored() -> None:
    def threshold(**arguments: Any) -> Any:
        return resolve("dtd", **arguments).to_json()["methods"][0]["options"]["threshold"]

    assert threshold() == 0.5
    assert threshold(options={"criterion": "pixel"}) == 0.1
    assert threshold(keep=0.3) is None
    assert resolve("dtd") == resolve("dtd", threshold=0.5)


def test_a_ceiling_counts_structural_rows_and_a_share_does_not() -> None:
    visual = anyres()
    assert int(visual.structural.sum()) == 2
    assert len(resolve("uniform", max_tokens=20).compress(visual, "item")) == 20
    assert len(resolve("uniform", keep=20 / 83).compress(visual, "item")) == 20 + 2


@pytest.mark.parametrize(
    ("spec", "max_tokens", "floor"), [("evs", 36, 37), ("pool2d", 8, 9), ("uniform", 2, 3), ("random", 1, 3)]
)
def test_a_ceiling_that_an_item_cannot_meet_is_refused(spec: str, max_tokens: int, floor: int) -> None:
    visual = anyres()
    with pytest.raises(MethodError, match=f"{floor} tokens of this item, over max_tokens={max_tokens}"):
        resolve(spec, max_tokens=max_tokens).compress(visual, "item")
    assert len(resolve(spec, max_tokens=floor).compress(visual, "item")) == floor


def test_a_ceiling_above_the_item_keeps_everything() -> None:
    visual = drifting((2, 2, 3))
    for name in ("uniform", "random", "evs", "pool2d"):
        assert len(resolve(name, max_tokens=10**6).compress(visual, "item")) == len(visual)
