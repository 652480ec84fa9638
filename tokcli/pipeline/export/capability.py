"""Which engine can take which tokens: exactly, with other positions, or not at all.

An engine gives tokens their positions itself. What is left of an item after a method has gaps between its positions,
and no engine's documented input can say where they are. What follows from that differs:

- exact: the language model gets what it gets from the cache, tokens and positions.
- compact: the tokens in a row without the gaps, which is tokcli's position scheme ``compact``. With positions in one
  dimension a token moves up a little; with M-RoPE a picture becomes a line of text, so that has to be asked for.
- refused: it would be wrong in a way that nobody sees, or what is known of the engine does not suffice.

What is said of engines was read in their documentation and code (vLLM's as of 0.32), and not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tokcli.models.families import FAMILIES
from tokcli.pipeline.export.facts import Facts, facts_of
from tokcli.types import MediaKind

Engine = Literal["vllm", "sglang", "ec-connector"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
FILES = ("safetensors", "webdataset", "hf-datasets")
"""Formats of data: they hold all that the cache does of positions, so that every item is exact."""
Tokens = Literal["all", "select", "merge"]
"""What is there of an item: everything, some of its tokens, or tokens that were made of several."""
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
Word = Literal["exact", "compact", "refused"]
Form = Literal["items", "grid", "prompt", "feature", "encoder"]
"""What is written of an item: its tokens alone, with a grid, the whole prompt's embeddings, SGLang's, vLLM's cache."""

FLAG = "--allow-approx-positions"

# Families whose embeddings with a grid are in vLLM's documentation, and SGLang's.
_GRID: dict[Engine, dict[str, tuple[MediaKind, ...]]] = {
    "vllm": {
        "qwen2_vl": ("image", "video"),
        "qwen2_5_vl": ("image", "video"),
        "qwen3_vl": ("image",),
        "qwen3_vl_moe": ("image",),
    },
    "sglang": {"qwen2_vl": ("image",), "qwen2_5_vl": ("image",)},
}
_INFER = "ask the cache with `tokcli infer`"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one item."""

    word: Word
    form: Form | None = None
    """How it is written; None where it is refused."""
    asked: bool = False
    """Whether it is written only with ``--allow-approx-positions``."""
    why: str = ""
    """Why it is not exact."""
    remedy: str = ""

    @property
    def text(self) -> str:
        """As tables have it."""
        return f"compact with {FLAG}" if self.asked else self.word


def verdict(facts: Facts, kind: MediaKind, tokens: Tokens, engine: Engine, *, seconds: float | None = None) -> Verdict:
    """What ``engine`` can do with an item of ``kind`` of which ``tokens`` are there.

    Args:
        seconds: Between temporal steps, for families whose positions follow them; None for a still.
    """
    if engine == "ec-connector":
        return _encoder_cache(facts, kind, tokens)
    return _mrope(facts, kind, tokens, engine, seconds) if facts.mrope else _one_dimension(facts, kind, tokens, engine)


def _one_dimension(facts: Facts, kind: MediaKind, tokens: Tokens, engine: Engine) -> Verdict:
    if facts.both_ways:
        return Verdict(
            "refused",
            why="a picture's tokens attend to those after them too, and embeddings tell no engine which ones they are",
            remedy=_INFER,
        )
    one_run = kind not in facts.text_between and not (kind == "video" and facts.video_token)
    if engine == "sglang" and not one_run:
        return Verdict("refused", why=_not_one_run(facts, kind, "SGLang"), remedy="export to vllm, or " + _INFER)
    form: Form = "feature" if engine == "sglang" else "items" if one_run else "prompt"
    if tokens == "all":
        return Verdict("exact", form)
    return Verdict("compact", form, why="engines number the tokens that are left one after another")


def _not_one_run(facts: Facts, kind: MediaKind, engine: str) -> str:
    if kind in facts.text_between:
        return f"a prompt has text between the tokens of {_article(kind)}, and {engine}'s input is one run of them"
    return f"its videos have a placeholder of their own, and {engine}'s input is known for stills only"


def _mrope(facts: Facts, kind: MediaKind, tokens: Tokens, engine: Engine, seconds: float | None) -> Verdict:
    why, remedy = _why_no_grid(facts, kind, tokens, engine, seconds)
    if not why:
        return Verdict("exact", "feature" if engine == "sglang" else "grid")
    if engine == "sglang":
        return Verdict("refused", why=why, remedy=remedy)
    if facts.levels:
        why += "; embeddings of a whole prompt have no place for DeepStack levels"
        return Verdict("refused", why=why, remedy=remedy)
    remedy = f"{FLAG} writes embeddings of whole prompts with running positions (vLLM 0.24 or later), or {remedy}"
    return Verdict("compact", "prompt", asked=True, why=why, remedy=remedy)


def _why_no_grid(
    facts: Facts, kind: MediaKind, tokens: Tokens, engine: Engine, seconds: float | None
) -> tuple[str, str]:
    """Why tokens with their grid are not enough, and what to do; empty where they are."""
    name = {"vllm": "vLLM", "sglang": "SGLang"}[engine]
    if kind not in _GRID[engine].get(facts.family, ()):
        if facts.levels and kind == "image":
            return f"{name}'s input for tokens with DeepStack levels is not known", _INFER
        if facts.levels and engine == "vllm":
            return "video embeddings of this family crashed vLLM when last reported", _INFER
        return f"{name}'s input for embeddings of {kind}s of this family is not known", _INFER
    if tokens != "all":
        return (
            f"{name} counts and places tokens by the grid, and a grid can't say which of them are left",
            "export a cache with all tokens (--method none), or " + _INFER,
        )
    if facts.timed and kind == "video" and seconds != 1.0:
        return (
            f"{name}'s input has no place for the seconds between temporal steps and takes them as 1",
            "compress with as many frames a second as a step has (--fps 2), or " + _INFER,
        )
    return "", ""


def _encoder_cache(facts: Facts, kind: MediaKind, tokens: Tokens) -> Verdict:
    if kind == "video":
        return Verdict("refused", why="what vLLM's encoder cache holds of a video is not known", remedy=_INFER)
    if facts.levels:
        why = "how DeepStack levels stand in vLLM's encoder cache is not known"
        return Verdict("refused", why=why, remedy="export to vllm, or " + _INFER)
    served = verdict(facts, kind, "all", "vllm")
    if served.form not in ("items", "grid"):
        why = "vLLM lays out stills of this family in a way that is not known"
        return Verdict("refused", why=why, remedy=_INFER)
    if tokens != "all":
        why = "vLLM counts the placeholders from the picture itself, and expects all tokens of it"
        return Verdict("refused", why=why, remedy="export a cache with all tokens (--method none), or " + _INFER)
    return Verdict("exact", "encoder")


def _article(kind: MediaKind) -> str:
    return "an image" if kind == "image" else "a video"


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    family: str
    media: str
    tokens: Tokens
    verdicts: dict[str, Verdict]
    """By format."""

    def to_json(self) -> dict[str, Any]:
        cells = {
            name: {
                "verdict": cell.word,
                "needs_flag": cell.asked,
                "form": cell.form,
                "why": cell.why,
                "remedy": cell.remedy,
            }
            for name, cell in self.verdicts.items()
        }
        return {"family": self.family, "media": self.media, "tokens": self.tokens, "formats": cells}


STEPS_APART = "video, steps 1 s apart"
"""How the table names videos of families whose positions follow seconds, where an engine places them rightly."""


def capability_table(family: str | None = None) -> list[Case]:
    """Every case, or those of one family, by family, media and tokens."""
    return [case for name in FAMILIES if family in (None, name) for case in _cases(facts_of(name))]


def _cases(facts: Facts) -> Iterator[Case]:
    media: list[tuple[str, MediaKind, float | None]] = [("image", "image", None), ("video", "video", 2.0)]
    if facts.timed:
        media.append((STEPS_APART, "video", 1.0))
    exact = Verdict("exact")
    for name, kind, seconds in media:
        for tokens in TOKENS:
            verdicts = dict.fromkeys(FILES, exact)
            for engine in ENGINES:
                verdicts[engine] = verdict(facts, kind, tokens, engine, seconds=seconds)
            yield Case(facts.family, name, tokens, verdicts)


@dataclass(frozen=True)
class Row:
    """Cases that have the same verdicts, for people to read."""

    families: tuple[str, ...]
    media: str
    tokens: str
    """One of ``TOKENS``; "fewer" for selected or merged ones, "any" for all three."""
    cells: tuple[str, ...]
    """What each of ``ENGINES`` can do."""
    whys: tuple[str, ...]
    """Why it is not exact; empty where it is."""


_COLLAPSED: dict[tuple[str, ...], str] = {TOKENS: "any", TOKENS[1:]: "fewer"}


def collapsed(cases: Sequence[Case]) -> list[Row]:
    """The table with families, and ways to have fewer tokens, put together where all verdicts and reasons agree."""
    by_case: dict[tuple[str, str], dict[tuple[Verdict, ...], list[str]]] = {}
    for case in cases:
        cells = tuple(case.verdicts[engine] for engine in ENGINES)
        by_case.setdefault((case.family, case.media), {}).setdefault(cells, []).append(case.tokens)
    rows: dict[tuple[str, str, tuple[Verdict, ...]], list[str]] = {}
    for (family, media), found in by_case.items():
        for cells, tokens in found.items():
            rows.setdefault((media, _COLLAPSED.get(tuple(tokens), tokens[0]), cells), []).append(family)
    return [
        Row(tuple(families), media, tokens, tuple(cell.text for cell in cells), tuple(cell.why for cell in cells))
        for (media, tokens, cells), families in rows.items()
    ]
