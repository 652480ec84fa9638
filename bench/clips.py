"""The videos that measurements run on: real ones where there are any, else rendered ones."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tokcli.pipeline.render import render
from tokcli.recipe import RenderRecipe


def clips_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The options that measurements of whole runs over clips have in common."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=(doc or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser


def videos(folder: Path, count: int = 20) -> list[Path]:
    """``count`` files of $TOKCLI_MEDIA/video (default ``../shared/media``), or as many rendered into ``folder``."""
    media = Path(os.environ.get("TOKCLI_MEDIA", Path(__file__).parents[2] / "shared" / "media"))
    real = sorted(path for path in (media / "video").glob("*") if path.suffix != ".gif") if media.is_dir() else []
    if len(real) >= count:
        return real[:count]
    render(RenderRecipe(output=str(folder), count=count, seed=3))
    return sorted(path for path in folder.iterdir() if path.suffix != ".jsonl")
