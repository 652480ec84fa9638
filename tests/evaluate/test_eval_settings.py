"""From methods and budgets to settings; what is refused before anything is decoded."""

from __future__ import annotations

import pytest

from tokcli.errors import UsageError
from tokcli.evaluate.baselines import matched_settings
from tokcli.evaluate.runner import Outcome
from tokcli.evaluate.settings import Setting, method_settings, parse_entry, signals_of

BASELINES = ["random", "uniform", "pool2d", "downsample"]


def names(settings: list[Setting]) -> list[str]:
    return [setting.name for setting in settings]


def test_baselines_and_references_cannot_be_left_out() -> None:
    found = method_settings(["dtd"], [0.5, 0.1], {}, 0)
    expected = ["full@1", *(f"{name}@{keep}" for name in ("dtd", *BASELINES) for keep in ("0.5", "0.1")), "blind"]
    assert names(found) == expected
    assert names(method_settings(["uniform", "dtd"], [0.5], {}, 0)).count("uniform@0.5") == 1


def test_a_budget_of_its_own_is_not_crossed() -> None:
    found = method_settings(["dtd:threshold=0.4", "evs:keep=0.3", "evs:pruning_rate=0.8"], [0.5, 0.1], {}, 0)
    own = [setting for setting in found if setting.label not in ("full", "blind", *BASELINES)]
    assert [(setting.label, setting.keep) for setting in own] == [
        ("dtd:threshold=0.4", None),
        ("evs:keep=0.3", 0.3),
        ("evs:pruning_rate=0.8", None),
    ]
    assert own[0].method is not None
    assert own[0].method.to_json()["methods"][0]["options"]["threshold"] == 0.4


def test_options_of_an_entry_win_over_those_for_all() -> None:
    settings = {"dtd.reference": "kept", "evs.variant": "official"}
    assert parse_entry("dtd", settings).options == {"dtd.reference": "kept"}
    assert parse_entry("dtd:reference=previous", settings).options == {"reference": "previous"}
    composed = parse_entry("dtd+uniform:dtd.threshold=0.6;seed=1", {})
    assert (composed.spec, composed.options) == ("dtd,uniform", {"dtd.threshold": "0.6", "seed": "1"})


def test_signals_that_methods_need() -> None:
    assert signals_of(method_settings(["dtd"], [0.5], {}, 0)) == []
    assert signals_of(method_settings(["dtd:criterion=pixel"], [0.5], {}, 0)) == ["pixel_change"]


def test_smaller_frames_need_a_cache_of_their_own() -> None:
    sources = {setting.name: setting.source for setting in method_settings(["dtd"], [1.0, 0.25], {}, 0)}
    assert sources["downsample@0.25"] == "downsample-0.25"
    assert sources["downsample@1"] == sources["dtd@0.25"] == "full"
    assert sources["blind"] is None


@pytest.mark.parametrize(
    ("methods", "options", "words"),
    [
        (["dttd"], {}, "did you mean 'dtd'"),
        (["dtd:treshold=0.5"], {}, "threshold"),
        (["dtd:threshold"], {}, "not KEY=VALUE"),
        (["dtd:threshold=0.5;keep=0.5"], {}, "cannot both be given"),
        (["none"], {}, "cannot be given keep"),
        (["dtd"], {"reference": "kept"}, "METHOD.OPTION=VALUE"),
        (["dtd"], {"evs.variant": "fixed"}, "METHOD.OPTION=VALUE"),
    ],
)
def test_refused(methods: list[str], options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        method_settings(methods, [0.5], options, 0)


def outcomes(*kept: int) -> list[Outcome]:
    return [Outcome(f"i{n}", count, 100, 1000, None, 0.0, 0.0, ()) for n, count in enumerate(kept)]


def test_baselines_repeat_a_real_count_that_differs_from_the_budget() -> None:
    settings = [
        Setting("full", 1.0),
        Setting("uniform", 0.1),
        Setting("evs", 0.1),
        Setting("dtd", 0.1),
        Setting("dtd:threshold=0.5"),
        Setting("blind", source=None),
    ]
    # evs is within 2% of what uniform kept; dtd, with its first step whole, is not.
    table = [outcomes(100, 100), outcomes(10, 10), outcomes(10, 10), outcomes(16, 20), outcomes(5, 9), outcomes(0, 0)]
    found = matched_settings(settings, table, seed=0, encoding=True)
    assert [(setting.label, setting.matches) for setting in found] == [
        (name, matched) for matched in ("dtd@0.1", "dtd:threshold=0.5") for name in BASELINES
    ]
    assert found[0].counts == {"i0": 16, "i1": 20}
    assert (found[3].keep, found[3].source) == (0.18, "downsample-0.18")
    compressor = found[1].compressor("i1")
    assert compressor is not None
    assert compressor.to_json()["methods"][0]["options"]["max_tokens"] == 20
    without = matched_settings(settings, table, seed=0, encoding=False)
    assert "downsample" not in [setting.label for setting in without]
