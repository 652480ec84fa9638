"""Rendered clips and stills whose right answers are known: seeded, in numpy alone.

A scene is data (``Scene``), the pixels follow from it (``render_frames``, ``render_at``), and so do the questions with
their answers (``questions``). The bundled model is trained on them, and benchmarks measure with them which answers a
compression keeps. A kind of scene is one function registered with ``clip_kind``.
"""

from tokcli.synthetic import moments, stories  # noqa: F401  (their kinds register themselves)
from tokcli.synthetic.glyphs import CHARACTERS, DIGITS, LETTERS
from tokcli.synthetic.kinds import make_scene, scene_kinds
from tokcli.synthetic.phrases import PHRASES, QUESTION_KINDS
from tokcli.synthetic.questions import Question, questions
from tokcli.synthetic.render import coverage, plate_of, render_at, render_frames, render_times
from tokcli.synthetic.scene import COLORS, MOTIONS, PLACES, SHAPES, THIRDS, Background, Glyph, Scene, SceneObject, Shot

__all__ = [
    "CHARACTERS",
    "COLORS",
    "DIGITS",
    "LETTERS",
    "MOTIONS",
    "PHRASES",
    "PLACES",
    "QUESTION_KINDS",
    "SHAPES",
    "THIRDS",
    "Background",
    "Glyph",
    "Question",
    "Scene",
    "SceneObject",
    "Shot",
    "coverage",
    "make_scene",
    "plate_of",
    "questions",
    "render_at",
    "render_frames",
    "render_times",
    "scene_kinds",
]
