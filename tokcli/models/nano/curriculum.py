"""What the model is taught, and in which order: first the simplest scenes, then all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tokcli.synthetic import CHARACTERS, Scene, make_scene
from tokcli.synthetic.placement import glyph


@dataclass(frozen=True)
class Mix:
    """Scenes of several kinds, and what is done with them."""

    kinds: Mapping[str, float]
    """Kind of scene and its share."""
    first_seed: int
    """Of the scenes that the tower is trained on; what users render starts from small numbers, and is new to it."""
    bank_seed: int
    """Of the scenes that the language model is trained on, which the tower has not seen."""
    max_frames: int
    """Longer clips are sampled at a lower rate."""
    weight: Mapping[str, float]
    """How often each kind of question is drawn, against the others of its clip."""
    words: tuple[str, ...] = ("color", "shape", "motion", "character")
    """Kinds of words that the tower's tokens are to point along."""
    characters: float = 0.0
    """Share of the tower's scenes that get letters and digits over them."""
    flashes: float = 0.0
    """Share of these that are seen in one frame of two."""
    shrunk: float = 0.0
    """Share of the scenes whose frames are smaller for the tower than its own rule makes them."""
    labelled: bool = False
    """Whether a bank's clips know what each of their tokens shows: help in training asks for it."""

    def scene(self, rng: np.random.Generator, seed: int) -> Scene:
        names, shares = list(self.kinds), np.array(list(self.kinds.values()))
        return make_scene(str(rng.choice(names, p=shares / shares.sum())), seed)

    def with_extra_characters(self, scene: Scene, times: tuple[float, float], rng: np.random.Generator) -> Scene:
        """Return the scene with one to three characters over it, or as it is: they are rarer than shapes.

        ``times`` (seconds) are those of a step's two frames; ``flashes`` of the characters are in one of them only.
        """
        if scene.glyphs or rng.random() >= self.characters:
            return scene
        scale, extra = int(rng.integers(3, 5)), []
        for _ in range(rng.integers(1, 4)):
            seen = {}
            if rng.random() < self.flashes and not scene.still:
                moment = times[int(rng.integers(2))]
                seen = {"start": moment - 0.05, "stop": moment + 0.05}
            extra.append(glyph(rng, str(rng.choice(CHARACTERS)), scene.width, scene.height, scale, **seen))
        return replace(scene, glyphs=tuple(extra))

    def frame_scale(self, rng: np.random.Generator) -> float:
        """Draw which share of its tokens a frame is shrunk to; mostly 1."""
        return float(rng.uniform(0.25, 1)) if self.shrunk and rng.random() < self.shrunk else 1.0


SIMPLE = Mix(
    kinds={"short": 0.9, "still": 0.1},
    first_seed=1_000_000_000,
    bank_seed=2_000_000_000,
    max_frames=16,
    weight={"color": 1.0, "shape": 1.4, "motion": 1.4, "count": 2.0},
)
"""Colour, shape, motion and number of shapes before a camera that stands still."""

ALL = Mix(
    kinds={
        "static": 0.13,
        "short": 0.06,
        "still": 0.07,
        "pan": 0.07,
        "shake": 0.06,
        "noisy": 0.05,
        "small": 0.09,
        "drift": 0.09,
        "needle": 0.08,
        "text": 0.09,
        "counter": 0.07,
        "cut": 0.08,
        "fade": 0.07,
        "return": 0.06,
    },
    first_seed=1_100_000_000,
    bank_seed=2_100_000_000,
    max_frames=120,
    weight={
        "color": 1.0,
        "shape": 1.2,
        "motion": 1.4,
        "count": 2.0,
        "place": 1.2,
        "compare": 1.2,
        "order": 1.0,
        "change": 3.0,
        "needle": 3.0,
        "read": 1.5,
        "time": 2.0,
    },
    characters=0.7,
    shrunk=0.2,
)
"""Every kind that ``tokcli render`` makes."""

FINE = replace(
    ALL,
    kinds={
        "small": 0.24,
        "needle": 0.2,
        "text": 0.14,
        "counter": 0.1,
        "static": 0.1,
        "fade": 0.06,
        "shake": 0.06,
        "noisy": 0.05,
        "pan": 0.05,
    },
    first_seed=1_200_000_000,
    flashes=0.5,
    shrunk=0.1,
)
"""What the tower finds hardest: small shapes, and characters that only one frame of a step shows."""

FINEST = replace(
    FINE,
    kinds={"needle": 0.34, "small": 0.24, "counter": 0.12, "text": 0.12, "short": 0.1, "fade": 0.08},
    first_seed=1_300_000_000,
    flashes=0.8,
)

FLASHES = replace(
    FINE,
    kinds={"needle": 0.5, "small": 0.2, "text": 0.12, "counter": 0.08, "fade": 0.06, "pan": 0.04},
    first_seed=1_400_000_000,
    flashes=0.85,
    characters=0.85,
)
"""Mostly characters in one frame of two, which come last."""

WORDS = replace(
    ALL,
    first_seed=1_500_000_000,
    flashes=0.6,
    words=("color", "shape", "motion", "character", "class", "size"),
)
"""All kinds, and words for what questions name too: digit or letter, small or large."""

SHARP = replace(
    WORDS,
    kinds={
        "needle": 0.33,
        "small": 0.14,
        "text": 0.12,
        "counter": 0.08,
        "static": 0.06,
        "drift": 0.05,
        "fade": 0.05,
        "still": 0.04,
        "cut": 0.03,
        "pan": 0.03,
        "shake": 0.03,
        "noisy": 0.02,
        "return": 0.02,
    },
    first_seed=1_600_000_000,
    flashes=0.8,
    shrunk=0.1,
)
"""The same words, and again above all what is hardest to see."""

AGAIN = replace(ALL, bank_seed=2_200_000_000)
"""Other scenes, as the tower sees them in the end."""

LAGGING = replace(
    AGAIN,
    weight={
        "color": 0.7,
        "shape": 0.8,
        "motion": 1.0,
        "count": 1.5,
        "place": 1.5,
        "compare": 0.8,
        "order": 1.0,
        "change": 3.0,
        "needle": 3.0,
        "read": 2.0,
        "time": 5.0,
    },
)
"""The same, with more questions of the kinds that come last."""


MORE = replace(
    ALL,
    bank_seed=2_300_000_000,
    labelled=True,
    weight={
        "color": 0.5,
        "shape": 0.6,
        "motion": 0.8,
        "count": 1.0,
        "place": 2.0,
        "compare": 2.5,
        "order": 2.0,
        "change": 2.0,
        "needle": 3.0,
        "read": 1.5,
        "time": 5.0,
    },
)
"""Other scenes again, and above all the kinds that are not learned by then: where, when, and which is larger."""


ORDERED = replace(MORE, weight={**MORE.weight, "compare": 1.5, "order": 5.0, "time": 6.0})
LAST = replace(MORE, weight={**MORE.weight, "compare": 1.5, "order": 4.0, "time": 4.0, "read": 2.0})
SHARPER = replace(
    LAST,
    bank_seed=2_400_000_000,
    weight={**LAST.weight, "compare": 1.2, "color": 0.7, "shape": 0.9, "place": 1.6, "count": 1.2, "read": 3.0},
)
"""Other scenes, as the tower sees them in the end."""


@dataclass(frozen=True)
class Course:
    """One stage of the language model's training."""

    mix: Mix
    seed: int
    peak: float = 1.5e-3
    """The highest rate of learning."""
    clips_per_step: int = 32
    questions_per_clip: int = 6
    hard_questions: bool = False
    """Whether every clip also gets all questions about the motion of objects that their shape alone names."""
    often: Mapping[str, float] = field(default_factory=dict)
    """How many times as often clips of a kind are drawn as others."""
    stepping_stones: bool = False
    """Whether clips of several objects also get questions that lead to comparing two of them."""


FIRST_COURSE = Course(SIMPLE, seed=3)
FINISHING = Course(SIMPLE, seed=4, questions_per_clip=3, hard_questions=True)
WIDENING = Course(ALL, seed=5, peak=1e-3, questions_per_clip=8, clips_per_step=16)
DEEPENING = Course(AGAIN, seed=6, peak=1e-3, questions_per_clip=8, clips_per_step=16)
"""With the tower as it is in the end."""
CATCHING_UP = Course(LAGGING, seed=7, peak=9e-4, questions_per_clip=8, clips_per_step=16)
COMPARING = Course(MORE, seed=8, peak=1.1e-3, questions_per_clip=6, clips_per_step=16, stepping_stones=True)
ORDERING = Course(ORDERED, seed=9, peak=5e-4, questions_per_clip=7, clips_per_step=16, stepping_stones=True)
FOLLOWING = Course(
    LAST, seed=10, peak=6e-4, questions_per_clip=7, clips_per_step=16, often={"cut": 3.0, "fade": 3.0, "needle": 1.5}
)
SETTLING = Course(
    SHARPER, seed=11, peak=6e-4, questions_per_clip=7, clips_per_step=16, often={"cut": 2.0, "fade": 2.0, "needle": 1.7}
)
"""With the tower of the last stage."""
