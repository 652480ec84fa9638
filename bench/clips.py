"""The videos that measurements run on, real ones where there are any, else rendered ones; and runs over them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokcli.pipeline.render import render
from tokcli.recipe import CompressRecipe, RenderRecipe, SamplingRecipe


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


def recipe_of(
    paths: Iterable[Path], model: Path, output: Path, fps: float, *, dtype: str = "float32", **own: Any
) -> CompressRecipe:
    """A run over ``paths`` at ``fps`` frames a second; ``own`` is what a measurement adds, its method first.

    In float32, so that figures of machines with and without fast bfloat16 can be compared.
    """
    return CompressRecipe(
        inputs=[str(path) for path in paths],
        output=str(output),
        model=str(model),
        sampling=SamplingRecipe(fps=fps),
        dtype=dtype,
        **own,
    )
