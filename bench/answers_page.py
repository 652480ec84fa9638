"""A page of results, from those of ``bench.answers``: every number is looked up, none is typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.answers_sets import Set
from tokcli.cache.atomic import write_atomically

Row = dict[str, Any]
REFERENCES = ("full", "blind", "guess")


@dataclass(frozen=True)
class Page:
    """A page of results."""

    file: str
    title: str
    sets: Sequence[Set]
    findings: Callable[[Found], str]
    """What was learned, Markdown."""
    of_some: bool = False
    """Whether it can be written of some of its sets."""


class Found:
    """The rows of all sets, to be looked up."""

    def __init__(self, results: Mapping[Set, Path]) -> None:
        self.documents = {chosen.name: json.loads(path.read_text(encoding="utf-8")) for chosen, path in results.items()}

    def rows(self, name: str, kind: str | None = None) -> list[Row]:
        """The set's rows about one kind of question, or about all together, baselines at others' counts left out."""
        rows: list[Row] = self.documents[name]["results"]
        return [row for row in rows if row["kind"] == kind and row["matches"] is None]

    def row(self, name: str, method: str, keep: float | None = None, kind: str | None = None) -> Row:
        (row,) = [
            row for row in self.rows(name, kind) if row["method"] == method and (keep is None or row["keep"] == keep)
        ]
        return row

    def matched(self, name: str, method: str, of: str) -> Row:
        """A baseline at the number of tokens that setting ``of`` really kept."""
        rows: list[Row] = self.documents[name]["results"]
        (row,) = [row for row in rows if row["kind"] is None and row["method"] == method and row["matches"] == of]
        return row

    def kinds(self, name: str) -> list[str]:
        rows: list[Row] = self.documents[name]["results"]
        return sorted({row["kind"] for row in rows} - {None})

    def right(self, name: str, method: str, keep: float | None = None, kind: str | None = None) -> str:
        return _percent(self.row(name, method, keep, kind)["accuracy"])

    def right_or_nothing(self, name: str, method: str, keep: float) -> str:
        """The same, empty where the set has no such row, or the method can't be given that share."""
        found = [row for row in self.rows(name) if row["method"] == method and row["keep"] == keep]
        return _percent(found[0]["accuracy"]) if found else ""

    def best(self, name: str, keep: float, count: int) -> list[str]:
        """The methods with most right answers at a share, with what they had right."""
        rows = [row for row in self.rows(name) if row["keep"] == keep and row["accuracy"] is not None]
        rows.sort(key=lambda row: -row["accuracy"])
        return [f"`{row['method']}` {_percent(row['accuracy'])}" for row in rows[:count]]

    def kept(self, name: str, method: str, keep: float | None = None) -> str:
        return _percent(self.row(name, method, keep)["kept_share"])


def write_page(path: Path, page: Page, found: Found) -> None:
    """Write the page: what was learned first, then a section for every set."""
    parts = [
        "<!-- Written by `make benchmark` (bench/answers.py) from results.json of its runs: do not edit. -->\n",
        f"# {page.title}\n",
        INTRODUCTION,
        page.findings(found),
        *(_section(chosen, found) for chosen in page.sets if chosen.name in found.documents),
    ]
    write_atomically(path, "\n".join(parts).encode())


INTRODUCTION = """\
Token counts prove nothing; answers do. Clips that `tokcli render` makes are encoded once by a bundled model, every
method works on the same tokens, and the language model answers the same questions from what is left. The four
baselines stand beside every method. "Right" is the share of right answers; intervals are 95%, by bootstrap over clips;
"against all tokens" is the paired difference. "Cache" is what the cache would take with the default codec, as a share
of the source files. *Blind* asks without pictures, *guess* gives the most frequent answer to the same question about
other clips, *chance* is one over the number of possible answers. `*` marks settings that no other beats with fewer
tokens and more right answers.

The bundled models know rendered shapes and nothing else (docs/nano.md, docs/nano-clip.md): the figures tell methods
apart, and show what each of them loses; they are no promise for another model. `tokcli tune` measures that one.
"""


def _section(chosen: Set, found: Found) -> str:
    evaluation, kinds = found.documents[chosen.name]["evaluation"], found.kinds(chosen.name)
    rows = found.rows(chosen.name)
    chance = next((row["chance"] for row in rows if row["chance"] is not None), None)
    commands = "\n".join(chosen.commands)
    lines = [
        f"## {chosen.title[0].upper()}{chosen.title[1:]}\n",
        f"```sh\n{commands}\n```\n",
        f"{evaluation['questions']:,} questions about {evaluation['items']} files"
        + (f"; chance is {_percent(chance)}." if chance is not None else ".")
        + "\n",
        f"![right answers by share of tokens kept](benchmark/{chosen.name}/accuracy-by-tokens.svg)\n",
        _table(
            ["", "setting", "kept", "cache", "right", "95%", "against all tokens"],
            [_overall(row) for row in rows],
        ),
        "\nRight answers by kind of question:\n",
        _table(
            ["setting", "kept", *kinds],
            [
                [_name(row), _share(row), *(_percent(other["accuracy"]) for other in others)]
                for row, *others in zip(rows, *(found.rows(chosen.name, kind) for kind in kinds))
            ],
        ),
    ]
    matched = _matched(found, chosen.name)
    if matched:
        lines += ["\nBaselines at the number of tokens that a method really kept of every clip:\n", matched]
    return "\n".join(lines) + "\n"


def _overall(row: Row) -> list[str]:
    difference, ends, against = row["diff"], row["diff_ci"], ""
    if difference is not None and ends is not None and row["method"] not in ("full", "guess"):
        against = f"{_points(difference)} ({_points(ends[0])} to {_points(ends[1])})"
    interval = "" if row["ci"] is None else f"{_percent(row['ci'][0])} to {_percent(row['ci'][1])}"
    star = "*" if row["pareto"] else ""
    return [star, _name(row), _share(row), _percent(row["bytes_share"]), _percent(row["accuracy"]), interval, against]


def _matched(found: Found, name: str) -> str:
    rows = [row for row in found.documents[name]["results"] if row["kind"] is None and row["matches"]]
    by_setting: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_setting.setdefault(row["matches"], {})[row["method"]] = row
    own = {_name(row): row for row in found.rows(name)}
    table = []
    for setting, baselines in by_setting.items():
        method = own[f"`{setting}`"]
        cells = [
            f"{_percent(row['accuracy'])} ({_share(row)})" if row else ""
            for row in (baselines.get(each) for each in ("random", "uniform", "pool2d", "downsample"))
        ]
        table.append([_name(method), _share(method), _percent(method["accuracy"]), *cells])
    return _table(["setting", "kept", "right", "random", "uniform", "pool2d", "downsample"], table) if table else ""


def _name(row: Row) -> str:
    label = row["method"]
    if label in REFERENCES or row["keep"] is None or (label == "none"):
        return f"`{label}`"
    return f"`{label}@{row['keep']:g}`"


def _share(row: Row) -> str:
    return _percent(row["kept_share"])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
