"""Synthetic clips as real files: real codecs and containers, and the questions beside them in ``qa.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokcli.cache.atomic import write_atomically
from tokcli.errors import UsageError
from tokcli.media import write_image, write_video
from tokcli.recipe import RenderRecipe
from tokcli.synthetic import make_scene, questions, render_at, render_frames

# Seeds above are those of scenes that the bundled model was trained on.
SEEDS = 1_000_000_000
VIDEO_FORMATS = ("mp4", "webm", "mkv")


@dataclass(frozen=True)
class RenderSummary:
    """What was written."""

    output: str
    files: int
    questions: int
    media_seconds: float
    bytes: int


def render(recipe: RenderRecipe, on_file: Callable[[Path], None] | None = None) -> RenderSummary:
    """Write ``count`` clips of a kind and ``qa.jsonl``, the same for the same seed.

    ``format`` mixed gives mp4 (H.264), webm (VP9) and mkv (H.264) in turn; stills are always png. Raises
    ``UsageError`` for an unknown kind, and for a folder that holds other files.
    """
    check_render(recipe)
    folder = Path(recipe.output)
    folder.mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, str]] = []
    seconds = 0.0
    names = []
    for number in range(recipe.count):
        scene = make_scene(recipe.kind, (recipe.seed * 1_000_003 + number) % SEEDS)
        if scene.still or recipe.format == "png":
            path = folder / f"{recipe.kind}-{recipe.seed}-{number:05d}.png"
            write_image(path, render_at(scene, 0.0))
        else:
            suffix = VIDEO_FORMATS[number % len(VIDEO_FORMATS)] if recipe.format == "mixed" else recipe.format
            path = folder / f"{recipe.kind}-{recipe.seed}-{number:05d}.{suffix}"
            write_video(path, render_frames(scene), scene.fps)
            seconds += scene.duration_seconds
        names.append(path)
        still = path.suffix == ".png"
        asked += [
            {"id": path.name, "kind": question.kind, "question": question.question, "answer": question.answer}
            for question in questions(scene, recipe.seed)
            if not (still and question.kind == "motion")
        ]
        if on_file is not None:
            on_file(path)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked)
    write_atomically(folder / "qa.jsonl", text.encode())
    size = sum(path.stat().st_size for path in names)
    return RenderSummary(str(folder), len(names), len(asked), round(seconds, 3), size)


def check_render(recipe: RenderRecipe) -> None:
    """Raise ``UsageError`` for an unknown kind, and for a folder that holds other files."""
    make_scene(recipe.kind, 0)
    folder = Path(recipe.output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "qa.jsonl").exists():
        raise UsageError(f"{folder} holds other files; give an empty or a new folder with -o")
