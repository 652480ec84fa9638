"""The training's data is what it claims to be, and a run of a few steps leaves a checkpoint that loads."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nano_clips import clip_without_pixels
from native_reference import patches_by_index

from tokcli.models.nano import tower as nano_tower
from tokcli.models.nano import train as nano_train
from tokcli.models.nano.architecture import build_config, build_tokenizer
from tokcli.models.nano.bank import build_bank, sample
from tokcli.models.nano.clips import LABELS, change_of, dense_labels, frames_of, lossy, patches_of, tower_size
from tokcli.models.nano.curriculum import ALL, SIMPLE, Course
from tokcli.models.nano.language import answer_scores, build_prompt, draw_kept, train_language
from tokcli.models.nano.prompts import draw_other, draw_question
from tokcli.models.nano.takeover import take_over
from tokcli.models.nano.tower import seed_embeddings
from tokcli.models.nano.train import Length
from tokcli.synthetic import CHARACTERS, SHAPES, Glyph, make_scene, plate_of, questions, render_at


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
    """Model and tokenizer of a run of a step a stage, on two clips each."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    out = tmp_path_factory.mktemp("nano")
    lines: list[str] = []
    names = [field.name for field in fields(Length)]
    length = Length(**{name: 2 if name.endswith("bank") else 1 for name in names})

    def on_few(*arguments: Any, **named: Any) -> None:
        train_language(
            *(replace(one, clips_per_step=2) if isinstance(one, Course) else one for one in arguments), **named
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nano_train, "train_language", on_few)
        patch.setattr(nano_tower, "CLIPS_PER_STEP", 2)
        nano_train.train(out, device="cpu", length=length, log=lines.append)
    stages = ["tower", "bank", "language", "finishing", "wide-tower", "fine-tower", "finest-tower", "wide-bank"]
    stages += ["last-tower", "wide-language", "word-tower", "word-bank", "deepening", "catching-up"]
    stages += ["last-bank", "comparing", "ordering", "following", "sharp-tower", "sharp-bank", "settling"]
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
