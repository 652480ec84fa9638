"""What was learned from ``bench.answers``, in words around looked-up numbers."""

from __future__ import annotations

import textwrap

from bench.answers_page import Found

PREVIOUS, KEPT, KEPT_FINE = (
    "dtd:threshold=0.5",
    "dtd:threshold=0.5;reference=kept",
    "dtd:threshold=0.8;reference=kept",
)


def findings(found: Found) -> str:
    """Return the section, Markdown."""
    static, drift, needle, every = "nano-static", "nano-drift", "nano-needle", "nano-all"
    full = found.row(static, "full")
    dtd = found.row(static, PREVIOUS)

    def read(method: str, keep: float | None = None) -> str:
        return found.right(needle, method, keep, kind="needle")

    text = f"""## What was learned

**A camera that stands still is what dtd is for.** At its default threshold it drops
{_percent(1 - dtd["kept_share"])} of the tokens and keeps {_percent(dtd["retained"])} of the answers that all tokens get
right ({_percent(dtd["accuracy"])} against {_percent(full["accuracy"])}). The cache is {_percent(dtd["bytes_share"])} of
the size of the source files. The same number of tokens drawn at random keeps
{_percent(found.matched(static, "random", PREVIOUS)["retained"])} of the answers, spread evenly
{_percent(found.matched(static, "uniform", PREVIOUS)["retained"])}, and smaller frames before the encoder
{_percent(found.matched(static, "downsample", PREVIOUS)["retained"])}; pooling to a tenth of the tokens keeps
{_percent(found.row(static, "pool2d", 0.1)["retained"])}.

**Slow drift is where it fails.** A change that no two steps show is dropped step by step, and the end of the clip is
missing: {found.right(drift, PREVIOUS)} right from {found.kept(drift, PREVIOUS)} of the tokens, where all tokens give
{found.right(drift, "full")}. Comparing with the last token that was kept (`--set reference=kept`) gives
{found.right(drift, KEPT)} from {found.kept(drift, KEPT)} at the same threshold, and
{found.right(drift, KEPT_FINE)} from {found.kept(drift, KEPT_FINE)} with a threshold of 0.8, since the drift must still
add up to the threshold. A fixed share does not depend on it: `evs` at a fifth of the tokens gives
{found.right(drift, "evs", 0.2)}, `dtd` with that share {found.right(drift, "dtd", 0.2)}, `uniform`
{found.right(drift, "uniform", 0.2)}. By kind of question, the drift's loss is in what is asked about the end: place
{found.right(drift, PREVIOUS, kind="place")} (all tokens {found.right(drift, "full", kind="place")}), colour
{found.right(drift, PREVIOUS, kind="color")} ({found.right(drift, "full", kind="color")}), compare
{found.right(drift, PREVIOUS, kind="compare")} ({found.right(drift, "full", kind="compare")}).

**A flash survives what looks at change, if it looks closely.** Of the characters shown for 0.3 seconds all tokens read
{read("full")}. dtd's default threshold keeps {read(PREVIOUS)}
with {found.kept(needle, PREVIOUS)} of the tokens: a flash that only one of a step's two frames shows changes its tokens
less than the threshold asks for. A threshold of 0.8 with `reference=kept` keeps
{read(KEPT_FINE)} with {found.kept(needle, KEPT_FINE)}. At a tenth of the tokens `evs` reads
{read("evs", 0.1)}, `dtd` with that share
{read("dtd", 0.1)}, `random` {read("random", 0.1)}, `uniform`
{read("uniform", 0.1)}, `pool2d` {read("pool2d", 0.1)},
`downsample` {read("downsample", 0.1)}.

**Over all kinds of scene**, at a quarter of the tokens: `dtd` {found.right(every, "dtd", 0.25)}, `evs`
{found.right(every, "evs", 0.25)}, `random` {found.right(every, "random", 0.25)}, `uniform`
{found.right(every, "uniform", 0.25)}, `pool2d` {found.right(every, "pool2d", 0.25)}, `downsample`
{found.right(every, "downsample", 0.25)}; all tokens give {found.right(every, "full")}. At a tenth: `dtd`
{found.right(every, "dtd", 0.1)} (it kept {found.kept(every, "dtd", 0.1)}: the first step of every clip is its least),
`evs` {found.right(every, "evs", 0.1)} ({found.kept(every, "evs", 0.1)}), `random` {found.right(every, "random", 0.1)},
`uniform` {found.right(every, "uniform", 0.1)}. Without pictures {found.right(every, "blind")} are right, guessing gives
{found.right(every, "guess")}.
"""
    return "\n\n".join(textwrap.fill(part, 120) for part in text.split("\n\n")) + "\n"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"
