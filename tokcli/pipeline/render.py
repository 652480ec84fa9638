"""Synthetic clips as real files: real codecs and containers, and the questions beside them in ``qa.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tokcli.cache.atomic import write_atomically
from tokcli.errors import UsageError
from tokcli.media import write_image, write_video
from tokcli.recipe import RenderRecipe
from tokcli.storage import only_local
from tokcli.synthetic import Scene, make_scene, questions, render_at, render_frames, scene_kinds

# Seeds above are those of scenes that the bundled model was trained on.
SEEDS = 1_000_000_000
VIDEO_FORMATS = ("mp4", "webm", "mkv")
TIMELESS = ("static", "short", "still", "pan", "shake", "noisy", "small", "text")
"""Kinds of which one picture tells as much as can be asked of it."""


@dataclass(frozen=True)
class RenderSummary:
    """What was written."""

    output: str
    files: int
    questions: int
    media_seconds: float
    bytes: int


def render(recipe: RenderRecipe, on_file: Callable[[Path], None] | None = None) -> RenderSummary:
    """Write ``count`` clips of a kind, or of several in turn, and ``qa.jsonl``, the same for the same seed.

    ``format`` mixed gives mp4 (H.264), webm (VP9) and mkv (H.264) in turn; stills are always png. Raises
    ``UsageError`` for an unknown kind, and for a folder that holds other files.
    """
    check_render(recipe)
    folder = only_local(recipe.output, "rendering", "write it here, and copy it")
    folder.mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, str | float]] = []
    seconds = 0.0
    names = []
    for name, scene in _planned(recipe):
        path = folder / name
        if scene.still:
            write_image(path, render_at(scene, 0.0))
        else:
            write_video(path, render_frames(scene), scene.fps)
            seconds += scene.duration_seconds
        names.append(path)
        asked += _rows(path.name, scene, recipe.seed)
        if on_file is not None:
            on_file(path)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked)
    write_atomically(folder / "qa.jsonl", text.encode())
    size = sum(path.stat().st_size for path in names)
    return RenderSummary(str(folder), len(names), len(asked), round(seconds, 3), size)


def _planned(recipe: RenderRecipe) -> Iterator[tuple[str, Scene]]:
    """The names of the files, and what each shows."""
    kinds = chosen_kinds(recipe)
    for number in range(recipe.count):
        kind = kinds[number % len(kinds)]
        scene = make_scene(kind, (recipe.seed * 1_000_003 + number) % SEEDS)
        if recipe.format == "png":
            scene = replace(scene, still=True, fps=1.0, duration_seconds=0.0)
        yield f"{kind}-{recipe.seed}-{number:05d}.{_suffix(scene, recipe.format, number)}", scene


def _suffix(scene: Scene, format: str, number: int) -> str:
    if scene.still:
        return "png"
    return VIDEO_FORMATS[number % len(VIDEO_FORMATS)] if format == "mixed" else format


def _rows(name: str, scene: Scene, seed: int) -> list[dict[str, str | float]]:
    """The lines of ``qa.jsonl`` about a file: id, kind of question, kind of scene, question, answer, chance."""
    return [
        {
            "id": name,
            "kind": question.kind,
            "scene": scene.kind,
            "question": question.question,
            "answer": question.answer,
            "chance": round(question.chance, 4),
        }
        for question in questions(scene, seed)
    ]


def chosen_kinds(recipe: RenderRecipe) -> tuple[str, ...]:
    """The kinds that the recipe names, "a,b" or all; ``UsageError`` for an unknown one."""
    if recipe.kind == "all":
        return TIMELESS if recipe.format == "png" else scene_kinds()
    return tuple(name.strip() for name in recipe.kind.split(","))


def check_render(recipe: RenderRecipe) -> None:
    """Raise ``UsageError`` for an unknown kind, and for a folder that holds other files."""
    for kind in chosen_kinds(recipe):
        make_scene(kind, 0)
        if recipe.format == "png" and kind not in TIMELESS:
            raise UsageError(f"scenes of kind {kind!r} need time to happen; as png there are {', '.join(TIMELESS)}")
    folder = only_local(recipe.output, "rendering", "write it here, and copy it")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder with -o")
    if folder.is_dir() and any(folder.iterdir()):
        # The same rendering may be made again; of another one the clips would stay without questions.
        planned = {"qa.jsonl", *(name for name, _ in _planned(recipe))}
        others = sorted(path.name for path in folder.iterdir() if path.name not in planned)
        if others:
            raise UsageError(f"{folder} holds other files, {others[0]!r}; give an empty or a new folder with -o")
