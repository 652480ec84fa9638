"""Rendered clips and stills whose right answers are known: seeded, in numpy alone.

A scene is data (``Scene``), the pixels follow from it (``render_frames``, ``render_at``), and so do the questions with
their answers (``questions``). The bundled model is trained on them, and benchmarks measure with them which answers a
compression keeps. A kind of scene is one function registered in ``kinds.py``.
"""

from tokcli.synthetic.kinds import make_scene, scene_kinds
from tokcli.synthetic.questions import Question, questions
from tokcli.synthetic.render import coverage, render_at, render_frames, render_times
from tokcli.synthetic.scene import COLORS, MOTIONS, SHAPES, Background, Scene, SceneObject

__all__ = [
    "COLORS",
    "MOTIONS",
    "SHAPES",
    "Background",
    "Question",
    "Scene",
    "SceneObject",
    "coverage",
    "make_scene",
    "questions",
    "render_at",
    "render_frames",
    "render_times",
    "scene_kinds",
]
