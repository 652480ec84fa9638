"""What nano's training rewards beside answers, and how it steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nano_clips import clip_without_pixels

from tokcli.models.nano.architecture import build_config, build_tokenizer
from tokcli.models.nano.clips import LABELS
from tokcli.models.nano.coordinates import SCALE, CoordinateProbe
from tokcli.models.nano.language import answer_scores, build_prompt
from tokcli.models.nano.optimizers import Muon
from tokcli.models.nano.pointing import Pointing, pointers, referent
from tokcli.models.nano.sequence import SequenceProbe, shapes_before
from tokcli.synthetic import SHAPES, make_scene, questions, scene_kinds


@pytest.fixture(scope="module")
def untrained():  # type: ignore[no-untyped-def]
    """Random model and tokenizer."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).eval(), tokenizer


def test_coordinates_are_those_of_the_kept_tokens_and_of_all_that_is_left(untrained) -> None:  # type: ignore[no-untyped-def]
    """A layer that hands out the right coordinates has no loss; one token off by a row has that of one row."""
    _, tokenizer = untrained
    clip = clip_without_pixels(0)
    prompt = build_prompt(clip, np.array([0, 7, 59]), questions(clip.scene)[:1], tokenizer)
    probe = CoordinateProbe(layer := torch.nn.Identity(), 3)
    with torch.no_grad():
        for head in (probe.of_token, probe.of_block):
            head.weight.copy_(torch.diag(1 / torch.tensor(SCALE)))
            head.bias.zero_()
    hidden = torch.zeros(1, len(prompt.ids), 3)
    # Rows 0, 7 and 59 of 3 steps of 4 x 5, with 4 positions from step to step.
    hidden[0, prompt.visual] = torch.tensor([[0.0, 0, 0], [0, 1, 2], [8, 3, 4]])
    hidden[0, prompt.visual.stop :] = torch.tensor([8.0, 3, 4])
    layer(hidden)
    assert probe.loss([prompt]).item() == pytest.approx(0, abs=1e-9)
    hidden[0, prompt.visual.start, 1] += 1
    layer(hidden)
    assert probe.loss([prompt]).item() == pytest.approx(0.5 * 0.25**2 / 9)
    probe.close()


def test_pointing_is_what_the_layer_attends_to(untrained) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = untrained
    clip = clip_without_pixels(0)
    item = clip.scene.objects[0]
    shape = np.zeros(60, int)
    shape[[3, 20, 41]] = 1 + LABELS["shape"].index(item.shape)
    clip = replace(clip, shown={"shape": shape, "character": np.zeros(60, int)})
    asked = [question for question in questions(clip.scene) if question.kind in ("color", "count")]
    prompt = build_prompt(clip, np.arange(0, 60, 2) + 1, asked, tokenizer)
    # Of the three rows only 3 and 41 are left; how many there are is about no single object.
    about = [question for question in asked if question.kind == "color" and item.shape in question.question]
    start = prompt.visual.start
    assert [rows.tolist() for _, rows in pointers(prompt)] == [[start + 1, start + 20]] * len(about)
    layer = model.model.language_model.layers[2]
    pointing = Pointing(layer)
    model.model.language_model.set_attn_implementation("eager")
    weights: list[torch.Tensor] = []

    def added(module, inputs, named):  # type: ignore[no-untyped-def]
        """The eager attention adds its mask, whatever it is."""
        mask = named["attention_mask"]
        return inputs, {**named, "attention_mask": torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)}

    layers = model.model.language_model.layers
    hooks = [one.self_attn.register_forward_pre_hook(added, with_kwargs=True) for one in layers]
    hook = layer.self_attn.register_forward_hook(lambda module, inputs, output: weights.append(output[1]))
    with torch.no_grad():
        answer_scores(model, [prompt])
        mass = pointing.mass([prompt])
    for each in (*hooks, hook):
        each.remove()
    pointing.close()
    model.model.language_model.set_attn_implementation("sdpa")
    for row, (place, rows) in enumerate(pointers(prompt)):
        assert torch.allclose(mass[row], weights[0][0, :, place, rows].sum(-1), atol=1e-6)


def test_what_questions_are_about() -> None:
    forms = {}
    for kind in scene_kinds():
        for seed in range(30):
            scene = make_scene(kind, seed)
            for question in questions(scene):
                forms.setdefault(question.form, []).append((referent(question, scene), question, scene))
    for name, question, _ in forms["compare.larger"]:
        assert name == question.answer and name in question.question
    for name, _, scene in forms["needle.digit"]:
        assert name == scene.glyphs[0].character
    for name, _, scene in forms["order.color_last"]:
        assert name == scene.objects[-1].shape
    for name, question, scene in forms["place"]:
        (item,) = [item for item in scene.objects if item.shape == name]
        assert item.shape in question.question or item.color in question.question
    assert all(name is None for name, _, _ in [*forms["count"], *forms["change.count"]])
    for name, question, _ in forms["order.before"]:
        assert name != question.answer and str(name) in question.question


def test_every_shot_follows_another(untrained) -> None:  # type: ignore[no-untyped-def]
    """A layer that hands out the right shapes has next to no loss; one of two tokens wrong has half of all there is."""
    _, tokenizer = untrained
    scene = next(scene for seed in range(40) if len((scene := make_scene("cut", seed)).shots) == 3)
    first, second, third = (1 + SHAPES.index(item.shape) for item in scene.objects)
    shape = np.zeros(60, int)
    shape[[2, 22, 42]] = first, second, third
    clip = replace(clip_without_pixels(0), scene=scene, shown={"shape": shape, "character": np.zeros(60, int)})
    before = shapes_before(clip)
    assert before is not None
    assert before[[2, 22, 42]].tolist() == [0, first, second] and (np.delete(before, [2, 22, 42]) == -1).all()
    prompt = build_prompt(clip, np.array([22, 30, 42]), questions(scene)[:1], tokenizer)
    probe = SequenceProbe(layer := torch.nn.Identity(), 6)
    with torch.no_grad():
        probe.read.weight.copy_(torch.eye(6))
        probe.read.bias.zero_()
    hidden = torch.zeros(1, len(prompt.ids), 6)
    hidden[0, prompt.visual.start, first] = hidden[0, prompt.visual.start + 2, second] = 40
    layer(hidden)
    assert probe.loss([prompt]).item() == pytest.approx(0, abs=1e-6)
    hidden[0, prompt.visual.start] = 40 * torch.eye(6)[second]
    layer(hidden)
    assert probe.loss([prompt]).item() == pytest.approx(40 / 2)
    assert shapes_before(replace(clip, scene=make_scene("static", 0))) is None
    probe.close()


def test_muon_steps_as_torch_does() -> None:
    """torch rounds to bfloat16 on the way: 2^-8 of a value in each of five products."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.zeros(24, 40)) for _ in range(2))
    mine = Muon([ours], lr=0.01)
    other = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(24, 40, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    assert theirs.abs().max() > 0.01
    assert (ours - theirs).norm() < 0.02 * theirs.norm()
