"""The videos that measurements run on: real ones where there are any, else rendered ones."""

from __future__ import annotations

import os
from pathlib import Path

from tokcli.pipeline.render import render
from tokcli.recipe import RenderRecipe


def videos(folder: Path, count: int = 20) -> list[Path]:
    """``count`` files of $TOKCLI_MEDIA/video (default ``../shared/media``), or as many rendered into ``folder``."""
    media = Path(os.environ.get("TOKCLI_MEDIA", Path(__file__).parents[2] / "shared" / "media"))
    real = sorted(path for path in (media / "video").glob("*") if path.suffix != ".gif") if media.is_dir() else []
    if len(real) >= count:
        return real[:count]
    render(RenderRecipe(output=str(folder), count=count, seed=3))
    return sorted(path for path in folder.iterdir() if path.suffix != ".jsonl")
