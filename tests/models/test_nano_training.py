"""The training's data is what it claims to be, and a run of a few steps leaves a checkpoint that loads."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from native_reference import patches_by_index

from tokcli.models.nano.architecture import build_config, build_tokenizer
from tokcli.models.nano.bank import SeenClip, build_bank, sample
from tokcli.models.nano.clips import LABELS, change_of, dense_labels, frames_of, lossy, patches_of, tower_size
from tokcli.models.nano.coordinates import SCALE, CoordinateProbe
from tokcli.models.nano.curriculum import ALL, SIMPLE
from tokcli.models.nano.language import answer_scores, build_prompt, draw_kept
from tokcli.models.nano.optimizers import Muon
from tokcli.models.nano.pointing import Pointing, referent
from tokcli.models.nano.prompts import draw_other, draw_question
from tokcli.models.nano.sequence import SequenceProbe, shapes_before
from tokcli.models.nano.takeover import take_over
from tokcli.models.nano.tower import seed_embeddings
from tokcli.models.nano.train import Length, train
from tokcli.synthetic import CHARACTERS, SHAPES, Glyph, make_scene, plate_of, questions, render_at, scene_kinds


def clip_without_pixels(seed: int, grid: tuple[int, int, int] = (3, 4, 5)) -> SeenClip:
    """Random tokens in place of the tower's."""
    count = grid[0] * grid[1] * grid[2]
    tokens = torch.from_numpy(np.random.default_rng(seed).standard_normal((count, 192), np.float32))
    change = np.r_[np.full(20, np.inf), np.linspace(0, 40, count - 20)].astype(np.float32)
    return SeenClip(make_scene("short", seed), tokens.half(), grid, 4.0, change)


def test_patches_are_those_of_the_processor() -> None:
    frames = frames_of(make_scene("short", 3), [0.0, 1.0], None)
    expected = patches_by_index(frames.permute(0, 2, 3, 1).numpy())
    assert torch.allclose(patches_of(frames), expected, atol=1e-5)


def test_an_odd_last_frame_is_repeated() -> None:
    scene = make_scene("short", 3)
    frames = frames_of(scene, [0.0, 1.0, 2.0], None)
    assert frames.shape == (4, 3, *tower_size(scene.height, scene.width))
    assert torch.equal(frames[2], frames[3])


def test_dense_labels_name_what_a_token_shows() -> None:
    """Redone by colour: a token shows an object where at least 70 of its pixels have the object's colour."""
    agreed = 0
    for seed in range(60):
        scene = make_scene("still", seed)
        scene = replace(scene, width=-(-scene.width // 28) * 28, height=-(-scene.height // 28) * 28)
        if tower_size(scene.height, scene.width) != (scene.height, scene.width):
            continue
        labels = dense_labels(scene, (0.0, 0.0))
        pixels = render_at(scene, 0.0).astype(int)
        for item in scene.objects:
            shown = np.abs(pixels - item.rgb).max(2) <= 2
            by_token = shown.reshape(scene.height // 28, 28, scene.width // 28, 28).sum((1, 3)).ravel()
            of_this = labels["shape"] == 1 + SHAPES.index(item.shape)
            assert (labels["shape"][by_token >= 70] > 0).all()  # another object may cover more
            assert (by_token[of_this] > 30).all()
            agreed += 1
    assert agreed > 20


def test_motion_is_unsure_where_both_frames_are_one() -> None:
    scene = make_scene("short", 8)
    assert (dense_labels(scene, (1.0, 1.0))["motion"] <= 0).all()
    assert (dense_labels(scene, (1.0, 2.0))["motion"] > 0).any()


def test_motion_is_unsure_where_an_object_is_in_one_frame_only_and_colors_on_their_way() -> None:
    scene = next(scene for seed in range(20) if len((scene := make_scene("cut", seed)).shots) > 1)
    change = scene.shots[1].start
    labels = dense_labels(scene, (change - 0.5, change + 0.5))
    assert (labels["motion"] <= 0).all()
    assert len({label for label in labels["color"] if label > 0}) >= 1
    drift = next(scene for seed in range(40) if (scene := make_scene("drift", seed)).objects[0].end_color)
    half, end = drift.duration_seconds / 2, drift.duration_seconds
    (item,) = drift.objects
    assert (dense_labels(drift, (half, half + 1))["color"] <= 0).all()
    for times, color in (((0.0, 1.0), item.color), ((end - 2, end - 1), item.end_color)):
        shown = {int(label) for label in dense_labels(drift, times)["color"] if label > 0}
        assert shown == {1 + LABELS["color"].index(color)}


def test_a_token_shows_a_character_that_covers_a_good_part_of_it() -> None:
    for seed in range(30):
        scene = replace(make_scene("still", seed), width=112, height=112)
        glyph = Glyph("7", 40.0, 50.0, 3, (235, 235, 235), (16, 16, 16))
        labels = dense_labels(replace(scene, glyphs=(glyph,)), (0.0, 0.0))["character"].reshape(4, 4)
        covered = np.zeros((112, 112))
        covered[plate_of(glyph)] = 1
        by_token = covered.reshape(4, 28, 4, 28).sum((1, 3))
        assert (labels[by_token >= 140] == 1 + CHARACTERS.index("7")).all()
        assert (labels[by_token == 0] == 0).all()
        assert by_token.max() > 140


def test_lossy_frames_look_like_the_originals() -> None:
    scene = make_scene("short", 5)
    frames = frames_of(scene, [0.0, 1.0], None)
    changed = 0
    for seed in range(20):
        difference = (lossy(frames, np.random.default_rng(seed)).float() - frames.float()).abs()
        assert difference.mean() < 12
        changed += bool(difference.any())
    assert 10 < changed < 20


def test_change_is_the_mean_difference_of_a_tokens_pixels() -> None:
    frames = torch.zeros(4, 3, 56, 84, dtype=torch.uint8)
    frames[2, :, 28:, :28] = 60
    change = change_of(frames)
    assert np.isinf(change[0]).all()
    assert change[1].tolist() == [[0, 0, 0], [30, 0, 0]]


def test_frames_are_sampled_as_a_reader_does() -> None:
    scene = replace(make_scene("short", 1), fps=10.0, duration_seconds=5.2)
    assert sample(scene, 1.0) == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 1.0)
    times, fps = sample(scene, 8.0, max_frames=16)
    assert len(times) == 16
    assert fps == pytest.approx(16 / 5.2)
    assert all(abs(time * 10 - round(time * 10)) < 1e-9 for time in times)


def test_questions_packed_together_are_answered_as_if_asked_alone(untrained) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = untrained
    clip = clip_without_pixels(0)
    kept = np.arange(0, 60, 2)
    asked = [*questions(clip.scene)[:3], draw_other(np.random.default_rng(0))]
    with torch.no_grad():
        packed, _ = answer_scores(model, [build_prompt(clip, kept, asked, tokenizer)])
        alone = [answer_scores(model, [build_prompt(clip, kept, [one], tokenizer)])[0] for one in asked]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-4)


@pytest.mark.parametrize(("scheme", "after"), [("original", 3 + 8 + 1), ("hf", 3 + 5)])
def test_kept_tokens_keep_their_positions(untrained, scheme: str, after: int) -> None:  # type: ignore[no-untyped-def]
    _, tokenizer = untrained
    clip = clip_without_pixels(0)
    prompt = build_prompt(clip, np.array([0, 7, 59]), questions(clip.scene)[:1], tokenizer, scheme)
    start = prompt.visual.start
    expected = [[start, start, start + 8], [start, start + 1, start + 3], [start, start + 2, start + 4]]
    assert prompt.positions[:, prompt.visual].tolist() == expected
    assert prompt.positions[:, prompt.visual.stop].tolist() == [start - 3 + after] * 3


def test_kept_tokens_are_some_of_them_in_order() -> None:
    clip, shares = clip_without_pixels(0), []
    for seed in range(200):
        kept = draw_kept(clip, np.random.default_rng(seed))
        assert (np.diff(kept) > 0).all()
        shares.append(len(kept) / 60)
    assert min(shares) < 0.35
    assert 0.3 < np.mean(np.array(shares) == 1) < 0.7


def test_prompts_vary() -> None:
    rng = np.random.default_rng(0)
    scene = make_scene("short", 2)
    asked = {question.question for _ in range(200) for question in draw_question(scene, 6, rng, ALL.weight)}
    assert len(asked) > 30
    assert len({draw_other(rng).question for _ in range(200)}) > 80


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Model and tokenizer of a run of two steps a stage."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    out = tmp_path_factory.mktemp("nano")
    lines: list[str] = []
    names = [field.name for field in fields(Length)]
    length = Length(**{name: 14 if name.endswith("bank") else 1 for name in names})
    train(out, device="cpu", length=length, log=lines.append)
    stages = ["tower", "bank", "language", "finishing", "wide-tower", "fine-tower", "finest-tower", "wide-bank"]
    stages += ["last-tower", "wide-language", "word-tower", "word-bank", "deepening", "catching-up"]
    stages += ["last-bank", "comparing", "ordering", "following"]
    assert [line for line in lines if line in stages] == stages
    assert lines[-1].startswith("saved")
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(out)


def test_a_run_of_a_few_steps_leaves_a_whole_checkpoint(untrained) -> None:  # type: ignore[no-untyped-def]
    from nano_native import CHECKPOINT, native

    model, tokenizer = untrained
    bundled, bundled_tokenizer = native()
    assert tokenizer.get_vocab() == bundled_tokenizer.get_vocab()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in bundled.state_dict().items()
    }
    folder = Path(model.config._name_or_path)
    for name in ("config.json", "chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json"):
        assert (folder / name).read_bytes() == (CHECKPOINT / name).read_bytes(), name
    one = replace(SIMPLE, bank_seed=0)
    (clip,) = build_bank(model, one, 1, lambda line: None, lambda: torch.autocast("cpu", enabled=False))
    assert clip.tokens.shape == (int(np.prod(clip.grid)), 192)


def test_taking_over_keeps_weights_and_the_embeddings_of_known_words(untrained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    earlier, _ = untrained
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["zebra"])
    model = type(earlier)(build_config(tokenizer))
    seed_embeddings(model, tokenizer)
    new = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("zebra")].clone()
    take_over(model, tokenizer, Path(earlier.config._name_or_path))
    for name, tensor in earlier.state_dict().items():
        if "embed_tokens" not in name and "lm_head" not in name:
            assert torch.equal(model.state_dict()[name], tensor), name
    red = tokenizer.convert_tokens_to_ids("red")
    table = model.get_input_embeddings().weight
    assert torch.equal(table[red], earlier.get_input_embeddings().weight[red])
    assert torch.equal(table[tokenizer.convert_tokens_to_ids("zebra")], new)
    assert model.lm_head.weight.data_ptr() == table.data_ptr()


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
    assert [rows.tolist() for _, rows in prompt.pointers] == [[start + 1, start + 20]] * len(about)
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
    for row, (place, rows) in enumerate(prompt.pointers):
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
