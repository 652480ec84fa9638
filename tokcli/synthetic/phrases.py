"""The words of questions: ways to ask each of them, by kind and form ("kind.form")."""

from __future__ import annotations

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
    "color.start": ("What color is the {shape} at the beginning?", "Which color is the {shape} at the beginning?"),
    "color.end": ("What color is the {shape} at the end?", "Which color is the {shape} at the end?"),
    "place": (
        "Where is the {color} {shape}?",
        "Where is the {shape}?",
        "Where is the {color} object?",
        "In which corner is the {shape}?",
    ),
    "place.start": ("Where is the {shape} at the beginning?", "In which corner is the {shape} at the beginning?"),
    "place.end": ("Where is the {shape} at the end?", "In which corner is the {shape} at the end?"),
    "place.digit": ("Where is the digit?", "In which corner is the digit?"),
    "place.letter": ("Where is the letter?", "In which corner is the letter?"),
    "compare.larger": (
        "Which is larger, the {one} or the {other}?",
        "Which shape is larger, the {one} or the {other}?",
    ),
    "compare.smaller": (
        "Which is smaller, the {one} or the {other}?",
        "Which shape is smaller, the {one} or the {other}?",
    ),
    "compare.size": ("Is the {shape} larger or smaller at the end?", "Does the {shape} become larger or smaller?"),
    "order.color_first": ("Which color appears first?", "What is the color of the first object?"),
    "order.color_last": ("Which color appears last?", "What is the color of the last object?"),
    "order.shape_first": ("Which shape appears first?", "What is the shape of the first object?"),
    "order.shape_last": ("Which shape appears last?", "What is the shape of the last object?"),
    "order.after": ("Which shape appears right after the {shape}?", "Which shape comes after the {shape}?"),
    "order.before": ("Which shape appears right before the {shape}?", "Which shape comes before the {shape}?"),
    "order.color_twice": ("Which color appears twice?", "Which color comes back?"),
    "order.shape_twice": ("Which shape appears twice?", "Which shape comes back?"),
    "change.count": ("How often does the scene change?", "How many times does the scene change?"),
    "change.color": ("Does the {shape} change its color?", "Does the color of the {shape} change?"),
    "change.back": ("Does the first object come back?", "Does the first scene come back?"),
    "needle.digit": ("Which digit flashes?", "Which digit is shown for a moment?", "What digit appears for a moment?"),
    "needle.letter": (
        "Which letter flashes?",
        "Which letter is shown for a moment?",
        "What letter appears for a moment?",
    ),
    "read.digit": ("Which digit is shown?", "Which digit do you see?", "What is the digit?"),
    "read.letter": ("Which letter is shown?", "Which letter do you see?", "What is the letter?"),
    "read.code": ("What is the code?", "Read the code.", "Which code is shown?"),
    "read.start": ("Which digit does the counter show at the beginning?", "Where does the counter begin?"),
    "read.end": ("Which digit does the counter show at the end?", "Where does the counter end?"),
    "read.direction": ("Does the counter go up or down?", "Does the counter count up or down?"),
    "time.shape": ("When does the {shape} appear?", "In which third does the {shape} appear?"),
    "time.digit": ("When does the digit flash?", "In which third does the digit flash?"),
    "time.letter": ("When does the letter flash?", "In which third does the letter flash?"),
}
"""``{shape}`` and ``{color}`` name one object, ``{one}`` and ``{other}`` two shapes."""

QUESTION_KINDS: tuple[str, ...] = tuple(dict.fromkeys(form.partition(".")[0] for form in PHRASES))
"""color, shape, motion, count, place, compare, order, change, needle, read, time."""
