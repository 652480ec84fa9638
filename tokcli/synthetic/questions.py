"""Questions about a scene, with the only right answer to each: one word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokcli.synthetic.scene import Scene, SceneObject

PHRASES: dict[str, tuple[str, ...]] = {
    "color": (
        "What color is the {shape}?",
        "Which color is the {shape}?",
        "What is the color of the {shape}?",
        "Tell me the color of the {shape}.",
    ),
    "shape": (
        "Which shape is {color}?",
        "What shape is {color}?",
        "What shape is the {color} object?",
        "Tell me the shape of the {color} object.",
    ),
    "motion": (
        "Which way does the {color} {shape} move?",
        "Which way does the {shape} move?",
        "Which way does the {color} object move?",
        "Where does the {color} {shape} move?",
        "In which direction does the {shape} move?",
    ),
    "count": (
        "How many objects are there?",
        "How many shapes are there?",
        "How many objects do you see?",
        "Count the objects.",
    ),
}
"""Ways to ask each kind of question; a scene's colours and shapes are all different, so each names one object."""


@dataclass(frozen=True)
class Question:
    """One question and its answer."""

    kind: str
    """``color``, ``shape``, ``motion`` or ``count``."""
    question: str
    answer: str


def questions(scene: Scene, seed: int = 0) -> list[Question]:
    """Return colour, shape and (in a clip) motion of every object, and their number; ``seed`` picks the wording."""
    rng = np.random.default_rng((scene.seed, seed))
    asked = [ask(kind, item, rng) for item in scene.objects for kind in ("color", "shape", "motion")]
    if scene.still:
        asked = [question for question in asked if question.kind != "motion"]
    return [*asked, Question("count", str(rng.choice(PHRASES["count"])), str(len(scene.objects)))]


def ask(kind: str, item: SceneObject, rng: np.random.Generator) -> Question:
    """Return a question of that kind about one object, in words that ``rng`` picks."""
    phrase = str(rng.choice(PHRASES[kind]))
    return Question(kind, phrase.format(color=item.color, shape=item.shape), str(getattr(item, kind)))
