"""Questions about a scene, with the only right answer to each: one word, two for a place.

What can be asked follows from what the scene holds, not from the name of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from tokcli.synthetic.glyphs import CHARACTERS, DIGITS, LETTERS
from tokcli.synthetic.phrases import PHRASES
from tokcli.synthetic.placement import MAX_OBJECTS, SPEED_PX, place_of
from tokcli.synthetic.render import shake
from tokcli.synthetic.scene import COLORS, MOTIONS, PLACES, SHAPES, THIRDS, Glyph, Scene, SceneObject

LARGER = 1.35
"""The ratio of two radii from which on sizes are compared."""
MAX_CHANGES = 3


@dataclass(frozen=True)
class Question:
    """One question and its answer."""

    kind: str
    """One of ``QUESTION_KINDS``."""
    question: str
    answer: str
    answers: tuple[str, ...] = ()
    """All that might be right, each as often as the others over many scenes."""
    form: str = ""
    """Which of the kind's questions it is: a key of ``PHRASES``."""

    @property
    def chance(self) -> float:
        """How often a guess is right that knows the question and not the scene."""
        return 1 / len(self.answers) if self.answers else 0.0


@dataclass(frozen=True)
class _Fact:
    """What can be asked: a form, the names to fill into its words, the answer and what it might be."""

    form: str
    answer: str
    answers: tuple[str, ...]
    names: tuple[tuple[str, str], ...] = ()


def questions(scene: Scene, seed: int = 0) -> list[Question]:
    """Return everything that can be asked about the scene; ``seed`` picks the wording."""
    rng = np.random.default_rng((scene.seed, seed))
    return [_put(fact, rng) for fact in _facts(scene)]


def _put(fact: _Fact, rng: np.random.Generator) -> Question:
    phrase = str(rng.choice(PHRASES[fact.form])).format(**dict(fact.names))
    return Question(fact.form.partition(".")[0], phrase, fact.answer, fact.answers, fact.form)


_ANSWERS = {"color": tuple(COLORS), "shape": SHAPES, "motion": tuple(MOTIONS)}
_YES_NO = ("yes", "no")


def _names(item: SceneObject) -> tuple[tuple[str, str], ...]:
    return ("color", item.color), ("shape", item.shape)


def _facts(scene: Scene) -> Iterator[_Fact]:
    yield from _of_objects(scene)
    if len(scene.shots) > 1 or scene.kind in ("cut", "fade"):
        yield from _of_shots(scene)
    if scene.kind == "drift":
        yield from _of_drift(scene, scene.objects[0])
    elif scene.kind == "counter":
        yield from _of_counter(scene.glyphs)
    elif scene.kind == "needle":
        yield from _of_flash(scene)
    elif scene.glyphs:
        yield from _of_text(scene)


def _of_objects(scene: Scene) -> Iterator[_Fact]:
    """What every object is; and where, if it stays in one quarter; and how many there are in a scene of one shot."""
    one_shot = len(scene.shots) == 1
    for item in {item.shape: item for item in scene.objects}.values():
        for kind in ("color", "shape", "motion"):
            steady = not (item.end_color and kind in ("color", "shape"))
            moves = item.speed == 0 or item.speed >= SPEED_PX[0]
            if steady if kind != "motion" else (one_shot and moves and not scene.still and scene.kind in _MOVING):
                yield _Fact(kind, str(getattr(item, kind)), _ANSWERS[kind], _names(item))
        if one_shot and (place := _steady_place(scene, item)) is not None:
            yield _Fact("place", place, PLACES, _names(item))
    if scene.kind in _COUNTED:
        yield _Fact("count", str(len(scene.objects)), tuple(str(i + 1) for i in range(MAX_OBJECTS)))
    if one_shot:
        yield from _of_sizes(scene)


_MOVING = ("static", "short", "pan", "shake", "noisy", "small")
_COUNTED = (*_MOVING, "still")
"""Kinds whose objects move, and are counted, any way and number as often as any other."""


def _steady_place(scene: Scene, item: SceneObject) -> str | None:
    """Return the quarter in which the object is at all times, or None."""
    times = np.linspace(0, scene.duration_seconds, 9)
    places = set()
    for seconds in times:
        right, down = shake(scene, seconds) if scene.camera.shake_px else (0, 0)
        x, y = item.center(float(seconds))
        places.add(place_of(x + right, y + down, scene.width, scene.height))
    return places.pop() if len(places) == 1 else None


def _of_sizes(scene: Scene) -> Iterator[_Fact]:
    # Objects placed later are smaller, to fit: the order in the question must not be theirs.
    for one, other in combinations(sorted(scene.objects, key=lambda item: item.shape), 2):
        small, large = sorted((one, other), key=lambda item: item.radius)
        if large.radius < LARGER * small.radius:
            continue
        names = (("one", one.shape), ("other", other.shape))
        yield _Fact("compare.larger", large.shape, (one.shape, other.shape), names)
        yield _Fact("compare.smaller", small.shape, (one.shape, other.shape), names)


def _of_shots(scene: Scene) -> Iterator[_Fact]:
    """The order of the shots' single objects, how often the scene changes, and what comes back."""
    items = scene.objects
    if scene.kind == "return":
        back = items[0].shape == items[-1].shape
        yield _Fact("change.back", "yes" if back else "no", _YES_NO)
        if back:
            yield _Fact("order.color_twice", items[0].color, tuple(COLORS))
            yield _Fact("order.shape_twice", items[0].shape, SHAPES)
        return
    yield _Fact("change.count", str(len(items) - 1), tuple(str(i) for i in range(MAX_CHANGES + 1)))
    if len(items) == 1:
        return
    for end, item in (("first", items[0]), ("last", items[-1])):
        yield _Fact(f"order.color_{end}", item.color, tuple(COLORS))
        yield _Fact(f"order.shape_{end}", item.shape, SHAPES)
    for one, other in pairwise(items):
        for form, answer, named in (("after", other, one), ("before", one, other)):
            left = tuple(shape for shape in SHAPES if shape != named.shape)
            yield _Fact(f"order.{form}", answer.shape, left, (("shape", named.shape),))
    if len(items) == len(THIRDS):
        for third, item in zip(THIRDS, items):
            if _third_of((item.start + item.stop) / 2, scene) == third:
                yield _Fact("time.shape", third, THIRDS, _names(item))


def _third_of(seconds: float, scene: Scene) -> str | None:
    share = seconds / scene.duration_seconds
    return THIRDS[0] if share < 0.29 else THIRDS[2] if share > 0.71 else THIRDS[1] if 0.38 < share < 0.62 else None


def _of_drift(scene: Scene, item: SceneObject) -> Iterator[_Fact]:
    names = _names(item)
    if item.speed:
        for form, seconds in (("start", 0.0), ("end", scene.duration_seconds)):
            place = place_of(*item.center(seconds), scene.width, scene.height)
            assert place is not None  # as the kind makes it
            yield _Fact(f"place.{form}", place, PLACES, names)
    elif item.end_radius is not None:
        yield _Fact("compare.size", "larger" if item.end_radius > item.radius else "smaller", _SIZES, names)
    else:
        yield _Fact("change.color", "yes" if item.end_color else "no", _YES_NO, names)
    if item.end_color:
        yield _Fact("color.start", item.color, tuple(COLORS), names)
        yield _Fact("color.end", item.end_color, tuple(COLORS), names)


_SIZES = ("larger", "smaller")


def _of_counter(glyphs: tuple[Glyph, ...]) -> Iterator[_Fact]:
    first, second, *_, last = (glyph.character for glyph in glyphs)
    yield _Fact("read.start", first, DIGITS)
    yield _Fact("read.end", last, DIGITS)
    yield _Fact("read.direction", "up" if (int(second) - int(first)) % 10 == 1 else "down", ("up", "down"))


def _of_flash(scene: Scene) -> Iterator[_Fact]:
    (flash,) = scene.glyphs
    name, choices = _class_of(flash)
    yield _Fact(f"needle.{name}", flash.character, choices)
    third = _third_of((flash.start + flash.stop) / 2, scene)
    if third is not None:
        yield _Fact(f"time.{name}", third, THIRDS)


def _class_of(glyph: Glyph) -> tuple[str, tuple[str, ...]]:
    return ("digit", DIGITS) if glyph.character in DIGITS else ("letter", LETTERS)


def _of_text(scene: Scene) -> Iterator[_Fact]:
    one, other = scene.glyphs
    if one.y == other.y and other.x - one.x == one.size[0]:
        codes = tuple(a + b for a in CHARACTERS for b in CHARACTERS)
        yield _Fact("read.code", one.character + other.character, codes)
        return
    for glyph in (one, other):
        name, choices = _class_of(glyph)
        yield _Fact(f"read.{name}", glyph.character, choices)
        place = place_of(glyph.x, glyph.y, scene.width, scene.height)
        if place is not None:
            yield _Fact(f"place.{name}", place, PLACES)
