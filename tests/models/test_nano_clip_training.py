"""How nano-clip is taught: what tokens are to show, which frames and prompts it gets, and that a run leaves a model."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokcli.media import Sampling
from tokcli.models.nano.bank import SeenClip
from tokcli.models.nano.curriculum import ALL
from tokcli.models.nano.language import answer_scores
from tokcli.models.nano.prompts import draw_other
from tokcli.models.nano_clip.bank import change_of, frames_for_tower, sample
from tokcli.models.nano_clip.evaluate import CHECKPOINT
from tokcli.models.nano_clip.language import build_prompt
from tokcli.models.nano_clip.start import cosines, places
from tokcli.models.nano_clip.tower import LABELS, a_moment, measures
from tokcli.models.nano_clip.train import Length, train
from tokcli.synthetic import CHARACTERS, SHAPES, Scene, make_scene, questions


def clip_of_noise(seed: int, frames: int = 3) -> SeenClip:
    count = frames * 64
    tokens = torch.randn(count, 128, generator=torch.Generator().manual_seed(seed)).to(torch.float16)
    return SeenClip(make_scene("static", seed), tokens, (frames, 8, 8), 1.0, np.full(count, np.inf, np.float32))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """Folder, model and tokenizer of a run of two steps a stage."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    out = tmp_path_factory.mktemp("nano-clip")
    lines: list[str] = []
    train(out, device="cpu", length=Length(tower=2, bank=4, language=2), log=lines.append)
    assert [line.split()[0] for line in lines] == ["tower", "tower", "bank", "language", "language", "saved"]
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)
    return out, model.eval(), AutoTokenizer.from_pretrained(out)


def test_a_run_writes_the_files_that_are_bundled(untrained: tuple[Path, Any, Any]) -> None:
    folder, _, _ = untrained
    assert {file.name for file in folder.iterdir()} == {file.name for file in CHECKPOINT.iterdir()}
    for file in CHECKPOINT.iterdir():
        if file.name != "model.safetensors":
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_questions_packed_together_are_answered_as_if_asked_alone(untrained: tuple[Path, Any, Any]) -> None:
    _, model, tokenizer = untrained
    clip, kept = clip_of_noise(0), np.arange(0, 190, 3)
    asked = [*questions(clip.scene)[:3], draw_other(np.random.default_rng(0))]
    with torch.no_grad():
        packed, _ = answer_scores(model, [build_prompt(clip, kept, asked, tokenizer)])
        alone = [answer_scores(model, [build_prompt(clip, kept, [one], tokenizer)])[0] for one in asked]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-4)


def test_a_prompt_is_scored_as_transformers_scores_it(untrained: tuple[Path, Any, Any]) -> None:
    """The same prompt through the whole model, which is given the kept tokens and their positions."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    _, model, tokenizer = untrained
    clip, kept = clip_of_noise(1), np.array([0, 5, 64, 191])
    question = questions(clip.scene)[0]
    with torch.no_grad():
        own, wanted = answer_scores(model, [build_prompt(clip, kept, [question], tokenizer)])
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question.question}]}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    full = tokenizer(text.replace("<image>", "<image>" * 192) + question.answer).input_ids
    image = tokenizer.convert_tokens_to_ids("<image>")
    first = full.index(image)
    left = [place for place, token in enumerate(full) if token != image or place - first in kept.tolist()]
    ids = torch.tensor([[full[place] for place in left]])
    output = BaseModelOutputWithPooling(pooler_output=[clip.tokens[torch.from_numpy(kept)].float()])
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.tensor([left]),
            mm_encoder_outputs={"image": output},
        ).logits[0]
    assert wanted[0] == ids[0, -1] and len(own) == 2
    assert torch.allclose(own, logits[-2:], atol=1e-4)


def test_positions_of_what_is_left(untrained: tuple[Path, Any, Any]) -> None:
    _, _, tokenizer = untrained
    clip, asked = clip_of_noise(2), questions(make_scene("static", 2))[:1]
    before = len(tokenizer.encode("<|im_start|>user\n"))
    gaps = build_prompt(clip, np.array([1, 70, 190]), asked, tokenizer)
    assert gaps.positions[: before + 5].tolist() == [
        *range(before),
        *(before + row for row in (1, 70, 190)),
        before + 192,  # the line break behind the clip
        before + 193,  # the question's first word
    ]
    compact = build_prompt(clip, np.array([1, 70, 190]), asked, tokenizer, "compact")
    assert compact.positions.tolist() == list(range(len(compact.ids)))


def test_frames_are_those_that_a_reader_takes() -> None:
    """Against the reader's own plan for ``--num-frames``, on a timeline of the clip's frames."""
    from tokcli.media.limits import Limits
    from tokcli.media.sampling import plan, timeline

    for seed in range(40):
        scene = make_scene("cut", seed)
        rate = round(scene.fps)
        line = timeline(np.arange(scene.num_frames), 1, Fraction(1, rate))
        taken = plan(line, Sampling(fps=None, num_frames=8), Limits()).frames
        assert [round(seconds * rate) for seconds in sample(scene, 8)] == taken.tolist()
    assert sample(make_scene("still", 0), 8) == [0.0]


def test_change_against_a_loop() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 48, 72, 3), dtype=np.uint8))
    change = change_of(frames).reshape(3, 2, 3)
    assert np.isinf(change[0]).all()
    for step, y, x in ((1, 0, 2), (2, 1, 1)):
        square = (slice(24 * y, 24 * y + 24), slice(24 * x, 24 * x + 24))
        before, after = (frames[index][square].double() for index in (step - 1, step))
        assert change[step, y, x] == pytest.approx(float((after - before).abs().mean()), abs=1e-4)


def test_smaller_frames() -> None:
    scene = make_scene("static", 3)
    assert frames_for_tower(scene, [0.0, 1.0, 2.0], None).shape == (3, 192, 192, 3)
    assert frames_for_tower(scene, [0.0], None, 0.25).shape == (1, 96, 96, 3)


def test_measures_by_hand() -> None:
    scene = make_scene("static", 5)
    item = replace(
        scene.objects[0], x=scene.width * 0.25, y=scene.height * 0.5, motion="right", speed=8.0, moving=(0.5, 9.0)
    )
    scene = replace(scene, shots=(replace(scene.shots[0], objects=(item,)),))
    labels = {kind: np.zeros(4, int) for kind in LABELS}
    labels["shape"][1] = 1 + SHAPES.index(item.shape)
    labels["shape"][2] = -1
    found = measures(scene, 2.0, labels)
    assert np.isnan(found[[0, 2, 3]]).all()
    x, y = 0.25 + 1.5 * 8 / scene.width, 0.5  # it starts after half a second
    size = 2 * np.log(item.radius / (np.sqrt(scene.width * scene.height) / 8))
    assert found[1] == pytest.approx([4 * x - 2, 4 * y - 2, size], abs=1e-5)


def test_characters_have_measures_while_they_are_shown() -> None:
    scene = make_scene("needle", 1)
    (flash,) = scene.glyphs
    labels = {kind: np.zeros(1, int) for kind in LABELS} | {
        "character": np.array([1 + CHARACTERS.index(flash.character)])
    }
    assert measures(scene, flash.start, labels)[0, 0] == pytest.approx(4 * flash.x / scene.width - 2, abs=1e-5)
    assert np.isnan(measures(scene, flash.stop + 0.1, labels)).all()


def test_most_frames_of_clips_with_a_flash_show_it() -> None:
    def hit(scene: Scene) -> bool:
        return scene.glyphs[0].shown(a_moment(scene, np.random.default_rng(scene.seed)))

    assert 0.45 < np.mean([hit(make_scene("needle", seed)) for seed in range(200)]) < 0.75


def test_waves_are_at_right_angles_and_neighbours_are_alike() -> None:
    waves = cosines(36, 24).flatten(1)
    product = waves @ waves.T
    assert torch.allclose(product, torch.diag(product.diag()), atol=1e-4)
    table = places(8, 96)
    near, far = (float(torch.cosine_similarity(table[0], table[row], dim=0)) for row in (1, 63))
    assert near > far + 0.2


def test_scenes_for_training_are_not_those_for_users() -> None:
    assert min(ALL.first_seed, ALL.bank_seed) > 1_000_000_000
