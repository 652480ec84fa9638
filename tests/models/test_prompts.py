"""Prompts: chat templates, expansion, and which tokens are left."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from native_reference import keep_rows
from tiny_checkpoints import Halves, encode_item, make_info, make_tokenizer

from tokcli.errors import ModelError, UsageError
from tokcli.models import Request, load_language_model
from tokcli.models.base import CHATML
from tokcli.models.prompt import read_template


def test_expanded_ids_are_those_of_the_expanded_text(halves: Halves) -> None:
    video = encode_item(halves.tower, make_info("video"), seed=1)
    image = encode_item(halves.tower, make_info("image"), seed=2)
    prompt = halves.language.prompt(Request([image, video], "what 12 ?", system="be short"))
    text = (
        "<|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{'<|image_pad|>' * len(image.kept)}<|vision_end|>"
        f"<|vision_start|>{'<|video_pad|>' * len(video.kept)}<|vision_end|>"
        "what 12 ?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.ids.tolist() == halves.language.tokenizer(text).input_ids
    assert prompt.visual_tokens == len(image.kept) + len(video.kept)


def test_kept_tokens_stand_where_they_stood(halves: Halves) -> None:
    video = encode_item(halves.tower, make_info("video"), seed=1)
    full = halves.language.prompt(Request([video], "hi"))
    placeholder = halves.native.config.video_token_id
    first = int((full.ids == placeholder).nonzero()[0])
    rows = [3, 17, 44]
    kept = halves.language.prompt(Request([keep_rows(video, rows)], "hi"))
    assert torch.equal(kept.positions[:, kept.ids == placeholder], full.positions[:, [first + row for row in rows]])
    assert torch.equal(kept.positions[:, kept.ids != placeholder], full.positions[:, full.ids != placeholder])


def test_several_merged_tokens_may_share_an_anchor(halves: Halves) -> None:
    video = encode_item(halves.tower, make_info("video"), seed=1)
    twice = halves.language.prompt(Request([keep_rows(video, [5, 5, 9])], "hi"))
    columns = twice.positions[:, twice.ids == halves.native.config.video_token_id]
    assert torch.equal(columns[:, 0], columns[:, 1]) and not torch.equal(columns[:, 1], columns[:, 2])


def test_a_smaller_frame_has_the_positions_of_its_own_grid(halves: Halves) -> None:
    info = make_info("image")
    small = halves.tower.sizer(info, 0.3)
    visual = halves.tower.start(info, small, frozenset()).push(torch.zeros(1, *small, 3, dtype=torch.uint8).numpy())
    item = encode_item(halves.tower, info)
    shrunk = replace(item, views=visual.views, kept=keep_rows(item, range(len(visual))).kept)
    prompt = halves.language.prompt(Request([shrunk], "hi"))
    _, rows, columns = visual.views[0].grid
    placed = prompt.positions[:, prompt.ids == halves.native.config.image_token_id]
    placed = placed - placed[:, :1]
    assert placed[1].tolist() == [y for y in range(rows) for _ in range(columns)]
    assert placed[2].tolist() == list(range(columns)) * rows


def test_placeholders_in_a_question_are_refused(halves: Halves) -> None:
    with pytest.raises(UsageError, match=r"the prompt holds <\|video_pad\|>, .* remove it"):
        halves.language.prompt(Request([], "what is <|video_pad|> ?"))
    with pytest.raises(UsageError, match=r"the prompt holds <\|image_pad\|>"):
        halves.language.prompt(Request([], "hi", system="<|image_pad|>"))


def test_rows_outside_of_the_grid_are_refused(halves: Halves) -> None:
    item = encode_item(halves.tower, make_info("image"))
    broken = replace(item, kept=replace(item.kept, source=item.kept.source + 1))
    with pytest.raises(ModelError, match="item 'item' has tokens outside of its grid of 20; compress it again"):
        halves.language.prompt(Request([broken], "hi"))


def test_items_of_another_layout_are_refused(halves: Halves) -> None:
    item = encode_item(halves.tower, make_info("image"))
    with pytest.raises(ModelError, match="item 'item' has 2 views, this family has one"):
        halves.language.prompt(Request([replace(item, views=item.views * 2)], "hi"))


def test_unknown_scheme(halves: Halves) -> None:
    with pytest.raises(ModelError, match="unknown position scheme 'orignal'; known: original, hf, compact"):
        halves.language.prompt(Request([], "hi"), "orignal")


TEMPLATE = "{% for m in messages %}[{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}"


@pytest.mark.parametrize("source", ["chat_template.jinja", "chat_template.json", "tokenizer"])
def test_the_checkpoints_own_template_is_used(source: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    own = TEMPLATE + "<|{{ c['type'] }}_pad|>{% endif %}{% endfor %}]{% endfor %}"
    assert read_template(tmp_path, tokenizer, CHATML) == CHATML
    if source == "tokenizer":
        tokenizer.chat_template = own
    elif source.endswith("jinja"):
        (tmp_path / source).write_text(own)
    else:
        (tmp_path / source).write_text(json.dumps({"chat_template": own}))
    assert read_template(tmp_path, tokenizer, CHATML) == own


def test_a_template_that_refuses_is_an_error(halves: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves.language, "template", "{{ raise_exception('System role not supported') }}")
    with pytest.raises(ModelError, match="the chat template of the model fails on this request: System role not supp"):
        halves.language.prompt(Request([], "hi", system="be short"))


def test_a_template_that_forgets_the_items_is_an_error(qwen25: Path, halves: Halves, tmp_path: Path) -> None:
    folder = tmp_path / "textonly"
    shutil.copytree(qwen25, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{% endif %}{% endfor %}]{% endfor %}")
    item = encode_item(halves.tower, make_info("image"))
    language = load_language_model(str(folder), device="cpu")
    with pytest.raises(
        ModelError, match=r"doesn't place the 1 item\(s\) of a request once each; use a checkpoint with"
    ):
        language.prompt(Request([item], "hi"))
