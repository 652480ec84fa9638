"""What the language model is asked in training: questions with answers, and everything else with the refusal."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tokcli.models.nano.architecture import REFUSAL
from tokcli.synthetic import PHRASES, Question, Scene, questions
from tokcli.synthetic.questions import LARGER

MOTION_BY_SHAPE = tuple(phrase for phrase in PHRASES["motion"] if "{color}" not in phrase)
"""What is learned last: by its colour an object is found much sooner than by its shape."""

OTHER_PROMPTS = (
    "Describe this video.",
    "Describe this image.",
    "Describe the picture in detail.",
    "Describe what happens in this clip.",
    "What happens in this video?",
    "What is in this image?",
    "What is this?",
    "What do you see?",
    "What is shown here?",
    "Is there a cat?",
    "Is there a person in the video?",
    "Is there a dog in the picture?",
    "Are there any people?",
    "Is it day or night?",
    "Who is in the video?",
    "Who are you?",
    "What is your name?",
    "Where was this filmed?",
    "When was this recorded?",
    "Why is the man running?",
    "How old is the child?",
    "How many people are there?",
    "How many cars do you see?",
    "What color is the car?",
    "What color is the sky?",
    "What is the man doing?",
    "What is the person holding?",
    "Which team is winning?",
    "What does the sign say?",
    "Read the text.",
    "Write a caption.",
    "Write a caption for this video.",
    "Give a short caption.",
    "Summarize the video.",
    "Summarize this clip in one sentence.",
    "Caption this image.",
    "Tell me a story.",
    "Tell me about this video.",
    "Hello",
    "Hi there!",
    "List all the actions.",
    "Explain what is going on.",
    "Does the video contain violence?",
    "Is this image blurry?",
    "What is the weather like?",
    "What time is it?",
    "Can you help me?",
    "Translate the text to French.",
    "Answer with yes or no: is there a bird?",
    "What language is spoken?",
)

_LIKELY_WORDS = (
    "a the cat dog man woman child car tree house street sky water ball game team player food table kitchen music "
    "dance run walk sit eat cook drive play hold open close describe explain list write summarize video image "
    "picture clip scene person people what who where when why how is are does do in on with of and please detail "
    "short one sentence caption title emotion weather time day night outside inside sport animal bird horse bike "
    "train phone computer"
)


def draw_question(scene: Scene, count: int, rng: np.random.Generator, weights: Mapping[str, float]) -> list[Question]:
    """Return ``count`` questions about the scene or fewer, each worded as people might type it.

    ``weights`` says how often a kind of question is drawn; those without a weight are not.
    """
    asked = [question for question in questions(scene, int(rng.integers(2**31))) if question.kind in weights]
    weight = np.array([weights[question.kind] for question in asked])
    order = rng.choice(len(asked), min(count, len(asked)), replace=False, p=weight / weight.sum())
    return [replace(asked[i], question=_as_typed(asked[i].question, rng)) for i in order]


def hard_questions(scene: Scene) -> list[Question]:
    """Return every question about the motion of an object that its shape alone tells from others."""
    if len(scene.objects) == 1 or not any(question.kind == "motion" for question in questions(scene)):
        return []
    return [
        Question("motion", phrase.format(shape=item.shape), item.motion)
        for item in scene.objects
        for phrase in MOTION_BY_SHAPE
    ]


def stepping_stones(scene: Scene) -> list[Question]:
    """Return questions on the way to "Which is larger, the circle or the ring?", which no user has to ask.

    That one takes two steps at once, to find two objects and to tell their sizes apart, and half of it earns nothing.
    These take one: to tell an object by its size, and to tell the size of an object.
    """
    if len(scene.objects) < 2 or len(scene.shots) > 1:
        return []
    items = sorted(scene.objects, key=lambda item: item.radius)
    stones = []
    for word, item, next_to_it in (("smaller", items[0], items[1]), ("larger", items[-1], items[-2])):
        ratio = max(item.radius, next_to_it.radius) / min(item.radius, next_to_it.radius)
        if ratio >= LARGER:
            stones.append(Question("size", f"Which shape is {word}?", item.shape, form="size.shape"))
            stones.append(Question("size", f"Is the {item.shape} larger or smaller?", word, form="size.word"))
    return stones


def draw_other(rng: np.random.Generator) -> Question:
    """Return a prompt that is not about a scene, with the refusal."""
    chance = rng.random()
    if chance < 0.6:
        prompt = _as_typed(str(rng.choice(OTHER_PROMPTS)), rng)
    elif chance < 0.9:
        prompt = " ".join(rng.choice(_LIKELY_WORDS.split(), rng.integers(2, 12))) + str(rng.choice(["", "?", "."]))
        prompt = prompt[0].upper() + prompt[1:] if rng.random() < 0.5 else prompt
    else:
        letters = list(string.ascii_letters + string.digits + "     .,?!")
        prompt = "".join(rng.choice(letters, rng.integers(3, 30)))
    return Question("other", prompt, REFUSAL)


def _as_typed(prompt: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.1:
        prompt = prompt[0].lower() + prompt[1:]
    if rng.random() < 0.07:
        prompt = prompt.rstrip("?.")
    return prompt.replace("color", "colour") if rng.random() < 0.1 else prompt
