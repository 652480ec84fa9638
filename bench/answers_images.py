"""The methods that were made for pictures, on pictures and frame by frame on videos, and what was learned of them."""

from __future__ import annotations

import textwrap

from bench.answers_page import Found
from bench.answers_sets import Set

SELECTION = (
    "fastervlm",
    "vtc_cls",
    "fopru",
    "visiondrop",
    "vflowopt",
    "divprune",
    "vispruner",
    "todre",
    "agilepruner",
    "textmonkey",
    "holov",
    "hired",
    "globalcom2",
    "focusui",
    "balanced",
)
MERGING = ("visionzip", "llavolta", "cluster_merge", "ppe", "folder", "expedit")
INSIDE = ("tome", "auroracap", "turbo", "mctf", "pumer", "evit", "flowcut")
"""Inside the tower: encoded again for every budget."""
PICTURES = (*SELECTION, *MERGING)
BASELINES = ("random", "uniform", "pool2d", "downsample")

IMAGE_SETS = (
    Set("images-nano-stills", "nano, pictures", "nano", "still,text", 60, (*PICTURES, *BASELINES), format="png"),
    Set(
        "images-nano-clip-stills",
        "nano-clip, pictures",
        "nano-clip",
        "still,text",
        60,
        (*PICTURES, *BASELINES),
        format="png",
    ),
    Set(
        "images-nano-clip-inside",
        "nano-clip, pictures, inside the tower",
        "nano-clip",
        "still,text",
        60,
        INSIDE,
        # Its four blocks can't leave less than a sixteenth.
        (0.5, 0.25, 0.1),
        format="png",
    ),
    Set("images-nano-videos", "nano, videos, frame by frame", "nano", "all", 30, (*PICTURES, *BASELINES)),
    Set(
        "images-nano-clip-videos",
        "nano-clip, videos, frame by frame, 8 frames a clip",
        "nano-clip",
        "all",
        30,
        (*PICTURES, *BASELINES),
        num_frames=8,
    ),
)


def image_findings(found: Found) -> str:
    """Return the section, Markdown: one table over all sets, and who leads."""
    sets = [chosen for chosen in IMAGE_SETS if chosen.name in found.documents]
    head = ["method", *(f"{chosen.title}: {share:.0%}" for chosen in sets for share in (0.25, 0.1))]
    rows = []
    for method in (*PICTURES, *BASELINES, *INSIDE):
        cells = [found.right_or_nothing(chosen.name, method, share) for chosen in sets for share in (0.25, 0.1)]
        rows.append([f"`{method}`", *cells])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
    leaders = [
        f"{chosen.title}, {share:.0%} of the tokens: {', '.join(found.best(chosen.name, share, 3))}"
        f" (all tokens {found.right(chosen.name, 'full')})."
        for chosen in sets
        for share in chosen.keep
    ]
    text = "Right answers; empty where a method or a budget can't be had."
    best = "\n".join(f"- {textwrap.fill(line, 118, subsequent_indent='  ')}" for line in leaders)
    return f"## At a glance\n\n{text}\n\n" + "\n".join(lines) + f"\n\nThe best three of each:\n\n{best}\n"
