"""The files: they exist, can be read, and say what the rows say."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from report_rows import KINDS, make_row, make_rows

from tokcli.errors import UsageError
from tokcli.report import write_plots
from tokcli.report.heatmap import retained
from tokcli.report.style import is_baseline, method_styles

METHODS = {"dtd": 0.02, "evs": 0.03, "uniform": 0.045, "random": 0.05, "pool2d": 0.04, "downsample": 0.035}
NAMES = ("accuracy-by-bytes", "accuracy-by-tokens", "retained-by-kind")


def svg_texts(path: Path) -> list[str]:
    return [
        "".join(element.itertext()).strip()
        for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All pictures of the rows of six methods."""
    return write_plots(make_rows(METHODS), tmp_path_factory.mktemp("report") / "plots")


def test_writes_png_and_svg_of_each(drawn: list[Path]) -> None:
    folder = drawn[0].parent
    assert sorted(path.name for path in drawn) == sorted(f"{name}.{end}" for name in NAMES for end in ("png", "svg"))
    assert sorted(folder.iterdir()) == sorted(drawn)
    for name in NAMES:
        with Image.open(folder / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        assert pixels.shape[1] == 1584  # 7.2 inches at 220 dpi
        assert 600 <= pixels.shape[0] <= 2500
        assert 0.02 < (pixels < 200).any(-1).mean() < 0.7  # neither blank nor blotted out
        texts = svg_texts(folder / f"{name}.svg")
        assert set(METHODS) <= set(texts)
        assert not any(text.startswith("nan") for text in texts)


def test_nothing_is_cut_off_at_the_edges(tmp_path: Path) -> None:
    long = METHODS | {"keyframes,dtd,uniform": 0.03}
    rows = make_rows(long, (*KINDS, "what the sign says"))
    for path in write_plots(rows, tmp_path):
        if path.suffix == ".png":
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L")).copy()
            frame = np.concatenate(
                [pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()]
            )
            assert frame.min() == 255, path.name


def test_curves_say_what_the_references_are(drawn: list[Path]) -> None:
    texts = svg_texts(drawn[0].parent / "accuracy-by-tokens.svg")
    assert {"all tokens, 96.5%", "without pictures, 30%", "most frequent answer, 28%", "chance, 27%"} <= set(texts)
    assert {"100%", "50%", "25%", "12.5%", "6.25%", "Pareto front"} <= set(texts)
    assert any("log scale" in text and "%" in text for text in texts)
    assert any(text.startswith("2,000 questions") for text in texts)


def test_the_same_rows_give_the_same_bytes(drawn: list[Path], tmp_path: Path) -> None:
    for one, other in zip(drawn, write_plots(list(reversed(make_rows(METHODS))), tmp_path)):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_users_own_style_does_not_change_the_pictures(tmp_path: Path) -> None:
    import matplotlib

    rows = make_rows({"dtd": 0.02})
    first = write_plots(rows, tmp_path / "a")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20, "svg.hashsalt": None}):
        second = write_plots(rows, tmp_path / "b")
        assert matplotlib.rcParams["font.size"] == 20
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_heat_map_annotates_accuracy_over_full_accuracy(tmp_path: Path) -> None:
    rows = [
        make_row("full", None, None, 0.8),
        make_row("full", None, "read", 0.5),
        make_row("full", None, "time", 0.0),
        make_row("dtd", 0.1, None, 0.6),
        make_row("dtd", 0.1, "read", 0.185),
        make_row("dtd", 0.1, "time", 0.1),
        make_row("evs", 0.1, None, 0.82),
    ]
    table = retained(rows)
    assert table is not None
    assert table.settings == [("dtd", 0.1), ("evs", 0.1)]
    assert table.kinds == [None, "read", "time"]
    # 0.6 / 0.8, 0.185 / 0.5, nothing to retain; 0.82 / 0.8, not asked
    np.testing.assert_allclose(table.values, [[0.75, 0.37, np.nan], [1.025, np.nan, np.nan]])
    write_plots(rows, tmp_path)
    texts = svg_texts(tmp_path / "retained-by-kind.svg")
    assert {"75", "37", "102", "–", "80.0", "50.0", "read", "time", "10%"} <= set(texts)


def test_heat_map_knows_a_setting_though_each_kind_is_asked_about_other_items() -> None:
    rows = [
        make_row("full", None, None, 0.8),
        make_row("full", None, "read", 0.5, kept_tokens=40_000, source_tokens=40_000),
        make_row("dtd", 0.1, None, 0.6, kept_tokens=10_000),
        make_row("dtd", 0.1, "read", 0.2, kept_tokens=3_000, source_tokens=40_000),
        make_row("uniform", 0.1, None, 0.4, kept_tokens=9_000),
        make_row("uniform", 0.1, "read", 0.1, kept_tokens=9_000),
        make_row("uniform", None, None, 0.2, kept_tokens=20_000, matches="dtd"),
        make_row("uniform", None, "read", 0.2, kept_tokens=20_000, matches="dtd"),
        make_row("pool2d", None, None, 0.2, kept_tokens=20_000, matches="dtd"),
    ]
    table = retained(rows)
    assert table is not None
    # Of a baseline with budgets of its own those; of one without, what it has.
    assert table.settings == [("dtd", 0.1), ("uniform", 0.09), ("pool2d", 0.2)]
    np.testing.assert_allclose(table.values, [[0.75, 0.4], [0.5, 0.2], [0.25, np.nan]])


def test_baselines_at_a_methods_count_are_explained(tmp_path: Path) -> None:
    rows = make_rows({"dtd": 0.02, "uniform": 0.05}, ())
    explained = "alone: a method's token count"
    write_plots(rows, tmp_path)
    assert explained not in svg_texts(tmp_path / "accuracy-by-tokens.svg")
    rows.append(make_row("uniform", None, None, 0.7, kept_tokens=17_000, matches="dtd"))
    write_plots(rows, tmp_path)
    assert explained in svg_texts(tmp_path / "accuracy-by-tokens.svg")


def test_coinciding_curves_both_show(tmp_path: Path) -> None:
    with_one, with_both = (
        write_plots(make_rows(methods, ()), tmp_path / str(len(methods)))[0]
        for methods in ({"dtd": 0.02}, {"dtd": 0.02, "evs": 0.02})
    )
    vermilion = (0xD5, 0x5E, 0x00)
    for path, shown in ((with_one, False), (with_both, True)):
        with Image.open(path) as image:
            plot = np.asarray(image.convert("RGB"))[:, :1000]  # without the legend
        assert ((plot == vermilion).all(-1).sum() > 200) == shown


def test_agreement_is_not_called_right(tmp_path: Path) -> None:
    rows = [row | {"measure": "agreement", "chance": None} for row in make_rows({"dtd": 0.02}, ("read",))]
    write_plots(rows, tmp_path)
    assert "Answers as from all tokens against visual tokens kept" in svg_texts(tmp_path / "accuracy-by-tokens.svg")
    for path in tmp_path.glob("*.svg"):
        assert not any("right" in text for text in svg_texts(path)), path.name


def test_one_setting_without_kinds_or_bytes(tmp_path: Path) -> None:
    row = make_row("dtd", None, None, 0.9, kept_tokens=17_000, source_bytes=None, ci=None, chance=None)
    written = write_plots([row], tmp_path)
    assert [path.name for path in written] == ["accuracy-by-tokens.png", "accuracy-by-tokens.svg"]
    texts = svg_texts(written[1])
    assert "dtd" in texts
    assert not any("95%" in text or "Star" in text for text in texts)


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert write_plots([], tmp_path) == []
    assert write_plots([make_row("dtd", 0.1, None, float("nan"))], tmp_path) == []


def test_colours_are_fixed_by_name_and_differ_within_a_picture() -> None:
    few, many = method_styles(["evs", "dtd"]), method_styles(["dtd", "evs", "keyframes", *"abcdefg", "uniform"])
    assert (few["dtd"], few["evs"]) == (many["dtd"], many["evs"])
    coloured = [style.colour for name, style in many.items() if not is_baseline(name)]
    assert len(set(coloured)) == 10
    red, green, blue = (int(many["uniform"].colour[start : start + 2], 16) for start in (1, 3, 5))
    assert red == green == blue
    assert method_styles(["tome"]) == {"tome": method_styles(["dtd", "tome"])["tome"]}


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r'pip install "tokcli\[report\]"'):
        write_plots(make_rows({"dtd": 0.02}), tmp_path)
