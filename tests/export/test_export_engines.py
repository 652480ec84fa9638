"""What engines would compute from the files, done here with transformers' whole model, against tokcli's own logits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_common import make_manifest, write_cache
from exporting import run
from family_tiny import open_family
from idefics_tiny import IDEFICS3
from llava_tiny import tiny_llava
from native_reference import keep_rows, original_positions
from qwen3_vl_tiny import QWEN3_VL
from safetensors.torch import load_file, save_file
from tiles_tiny import INTERNVL, ONEVISION
from tiny_checkpoints import Halves, encode_item, make_checkpoint, make_info, native_model

from tokcli import models
from tokcli.errors import UsageError
from tokcli.models import Request
from tokcli.pipeline.export.as_sglang import README as SGLANG
from tokcli.pipeline.export.as_vllm import README as VLLM
from tokcli.pipeline.export.engine import Lines
from tokcli.types import EncodedItem

QUESTION = "what happens ?"
TINY = {"internvl": INTERNVL, "llava_onevision": ONEVISION, "idefics3": IDEFICS3, "qwen3_vl": QWEN3_VL}


def open_halves(family: str, folder: Path) -> Halves:
    if family == "llava":
        return tiny_llava(folder)
    if family in TINY:
        return open_family(folder, TINY[family])
    make_checkpoint(folder, family)
    tower, language = (
        models.load_tower(str(folder), device="cpu"),
        models.load_language_model(str(folder), device="cpu"),
    )
    return Halves(family, folder, native_model(folder), tower, language)


@pytest.fixture(scope="module")
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return open_halves(request.param, tmp_path_factory.mktemp("tiny") / request.param)


def make_items(halves: Halves, share: float = 1.0, kinds: tuple[str, ...] = ("image", "video")) -> list[EncodedItem]:
    """A still and a clip whose steps are a second apart, with about that share of their tokens."""
    items = []
    for seed, kind in enumerate(kinds):
        item = encode_item(halves.tower, make_info(kind, frames=4), seed=seed, name=f"{kind}.x")
        if kind == "video":
            item = replace(item, seconds_per_step=1.0)
        left = np.random.default_rng(seed).random(len(item.kept)) < share
        items.append(keep_rows(item, np.flatnonzero(left).tolist()))
    return items


def make_cache(halves: Halves, items: list[EncodedItem], path: Path) -> Path:
    write_cache(path, *items, manifest=make_manifest(model=halves.tower.identity, tokens_dtype="float32"))
    return path


def requests_of(readme: str, folder: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Rows of requests.jsonl, each with what the README's own code makes of it."""
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert code in (folder / "README.md").read_text()
    names: dict[str, Any] = {}
    exec(code, names)
    rows = [json.loads(line) for line in (folder / "requests.jsonl").open(encoding="utf-8")]
    made = list(names["requests"](folder))
    assert [row["id"] for row in rows] == [item_id for item_id, _ in made]
    return zip(rows, [request for _, request in made], strict=True)


@pytest.mark.parametrize("readme", [VLLM, SGLANG], ids=["vllm", "sglang"])
def test_a_question_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path: Path, readme: str) -> None:
    row = {"id": "a", "question": "One\u2028two?", "file": "a.safetensors"}
    engine = {"form": "items", "modality": "image", "prompt": "One\u2028two?", "input_ids": [1]}
    lines = Lines(tmp_path / "requests.jsonl")
    lines.add({**row, **engine})
    lines.close()
    save_file({"image": torch.zeros(1, 2), "feature": torch.zeros(1, 2)}, tmp_path / "a.safetensors")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    assert [found["question"] for found, _ in requests_of(readme, tmp_path)] == [row["question"]]


@torch.no_grad()
def own_logits(halves: Halves, item: EncodedItem, scheme: str) -> torch.Tensor:
    inputs = halves.language.prepare([Request([item], QUESTION)], scheme)
    logits: torch.Tensor = halves.language.model(**inputs, use_cache=False).logits[0]
    return logits


@torch.no_grad()
def logits_in_a_row(halves: Halves, embedded: torch.Tensor) -> torch.Tensor:
    """Logits of embeddings (S, D) at the running positions, as an engine gives to text, by the language model alone."""
    native, length = halves.native, len(embedded)
    inner = getattr(native.model, "language_model", None) or native.model.text_model
    positions = torch.arange(length)[None]
    if halves.family.startswith("qwen"):
        positions = positions.expand(3, 1, length)
    hidden = inner(inputs_embeds=embedded[None], position_ids=positions, use_cache=False).last_hidden_state
    logits: torch.Tensor = native.lm_head(hidden)[0]
    return logits


@torch.no_grad()
def spliced(halves: Halves, ids: list[int], token: int, count: int, rows: torch.Tensor) -> torch.Tensor:
    """Embeddings of ids with their only ``token`` repeated ``count`` times, and ``rows`` in its places."""
    place = ids.index(token)
    assert ids.count(token) == 1 and len(rows) == count
    expanded = torch.tensor(ids[:place] + [token] * count + ids[place + 1 :])
    embedded = halves.native.get_input_embeddings()(expanded).clone()
    embedded[expanded == token] = rows
    return embedded


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("halves", ["llava", "internvl", "llava_onevision", "idefics3"], indirect=True)
def test_one_dimension_in_vllm_is_the_compact_scheme(halves: Halves, share: float, tmp_path: Path) -> None:
    items = make_items(halves, share)
    summary = run(make_cache(halves, items, tmp_path / "cache"), tmp_path / "out", "vllm", prompt=[QUESTION])
    assert summary.positions == {"exact" if share == 1.0 else "compact": 2}
    image = halves.language.family.placeholder(halves.native.config, "image")
    forms = []
    for (row, request), item in zip(requests_of(VLLM, tmp_path / "out"), items, strict=True):
        assert (row["id"], row["tokens"], row["question"]) == (item.id, len(item.kept), QUESTION)
        forms.append(row["form"])
        if row["form"] == "items":
            (rows,) = request["multi_modal_data"]["image"]
            assert rows.shape == item.kept.tokens.shape
            # vLLM: as many placeholders as the tensor has rows.
            ids = halves.language.tokenizer(request["prompt"]).input_ids
            embedded = spliced(halves, ids, image, len(rows), rows)
        else:
            assert list(request) == ["prompt_embeds"]
            embedded = request["prompt_embeds"]
        logits = logits_in_a_row(halves, embedded)
        assert float((logits - own_logits(halves, item, "compact")).abs().max()) <= 1e-5
        original = own_logits(halves, item, "original")
        differs = float((logits[-1] - original[-1]).abs().max())
        assert differs <= 1e-5 if share == 1.0 else differs > 1e-3
    own = {"llava": ["items", "items"], "llava_onevision": ["items", "prompt_embeds"]}
    assert forms == own.get(halves.family, ["prompt_embeds"] * 2)


@pytest.mark.parametrize("halves", ["llava"], indirect=True)
def test_one_dimension_in_sglang_is_the_compact_scheme(halves: Halves, tmp_path: Path) -> None:
    items = make_items(halves, 0.4)
    run(make_cache(halves, items, tmp_path / "cache"), tmp_path / "out", "sglang", prompt=[QUESTION])
    token = halves.language.family.placeholder(halves.native.config, "image")
    for (row, request), item in zip(requests_of(SGLANG, tmp_path / "out"), items, strict=True):
        (data,) = request["image_data"]
        assert data["format"] == "precomputed_embedding" and set(data) == {"format", "feature"}
        ids = torch.tensor(request["input_ids"])
        assert int((ids == token).sum()) == len(data["feature"]) == row["tokens"]
        with torch.no_grad():
            embedded = halves.native.get_input_embeddings()(ids).clone()
        embedded[ids == token] = data["feature"]
        assert float((logits_in_a_row(halves, embedded) - own_logits(halves, item, "compact")).abs().max()) <= 1e-5


@torch.no_grad()
def logits_by_grid(halves: Halves, kind: str, ids: list[int], rows: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """What vLLM does: placeholders and positions by the grid, steps a second apart."""
    config = halves.native.config
    count = int(grid.prod()) // config.vision_config.spatial_merge_size**2
    token = config.image_token_id if kind == "image" else config.video_token_id
    embedded = spliced(halves, ids, token, count, rows)
    place = ids.index(token)
    types = torch.zeros(1, len(embedded), dtype=torch.long)
    types[0, place : place + count] = 1 if kind == "image" else 2
    inputs = {"mm_token_type_ids": types, f"{kind}_grid_thw": grid, "second_per_grid_ts": torch.ones(1)}
    per_second = getattr(config.vision_config, "tokens_per_second", None) if halves.family == "qwen2_5_vl" else None
    hidden = halves.native.model.language_model(
        inputs_embeds=embedded[None], position_ids=original_positions(inputs, per_second), use_cache=False
    ).last_hidden_state
    logits: torch.Tensor = halves.native.lm_head(hidden)[0]
    return logits


@pytest.mark.parametrize("halves", ["qwen2_5_vl", "qwen2_vl"], indirect=True)
def test_all_tokens_with_their_grid_are_exact(halves: Halves, tmp_path: Path) -> None:
    items = make_items(halves)
    cache = make_cache(halves, items, tmp_path / "cache")
    assert run(cache, tmp_path / "vllm", "vllm", prompt=[QUESTION]).positions == {"exact": 2}
    for (row, request), item in zip(requests_of(VLLM, tmp_path / "vllm"), items, strict=True):
        assert (row["form"], row["modality"]) == ("grid", item.kind)
        data = request["multi_modal_data"][item.kind]
        assert set(data) == {f"{item.kind}_embeds", f"{item.kind}_grid_thw"}
        ids = halves.language.tokenizer(request["prompt"]).input_ids
        logits = logits_by_grid(halves, item.kind, ids, data[f"{item.kind}_embeds"], data[f"{item.kind}_grid_thw"])
        assert float((logits - own_logits(halves, item, "original")).abs().max()) <= 1e-5
    run(cache, tmp_path / "sglang", "sglang", prompt=[QUESTION], ids=["image.x"])
    ((row, request),) = requests_of(SGLANG, tmp_path / "sglang")
    (data,) = request["image_data"]
    assert int(data["image_grid_thw"].prod()) // 4 == len(data["feature"])
    assert request["input_ids"] == halves.language.prompt(Request([items[0]], QUESTION)).ids.tolist()
    run(cache, tmp_path / "ec", "ec-connector", where="kind = 'image'")
    (told,) = (json.loads(line) for line in (tmp_path / "ec" / "items.jsonl").read_text().splitlines())
    stored = load_file(tmp_path / "ec" / told["uuid"] / "encoder_cache.safetensors")
    assert list(stored) == ["ec_cache"] and torch.equal(stored["ec_cache"], items[0].kept.tokens)


@pytest.mark.parametrize("halves", ["qwen2_5_vl"], indirect=True)
def test_fewer_tokens_of_mrope_models_have_to_be_asked_for(halves: Halves, tmp_path: Path) -> None:
    items = make_items(halves, 0.4)
    cache = make_cache(halves, items, tmp_path / "cache")
    with pytest.raises(UsageError, match=r"a grid can't say which .* --allow-approx-positions"):
        run(cache, tmp_path / "out", "vllm", prompt=[QUESTION])
    for engine in ("sglang", "ec-connector"):
        asking = {"prompt": [QUESTION]} if engine == "sglang" else {}
        with pytest.raises(UsageError, match=f"{engine} can't take image.x and 1 more of 2"):
            run(cache, tmp_path / "out", engine, allow_approx_positions=True, **asking)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    summary = run(cache, tmp_path / "out", "vllm", prompt=[QUESTION, "why ?"], allow_approx_positions=True)
    assert summary.positions == {"compact": 2}
    rows = list(requests_of(VLLM, tmp_path / "out"))
    assert [(row["id"], row["question"]) for row, _ in rows] == [
        (item.id, question) for item in items for question in (QUESTION, "why ?")
    ]
    for item, (_, request) in zip(items, rows[::2]):
        logits = logits_in_a_row(halves, request["prompt_embeds"])
        assert float((logits - own_logits(halves, item, "compact")).abs().max()) <= 1e-5
    # Nothing in the folder says that there is a grid.
    assert all("grid_thw" not in name for path in (tmp_path / "out" / "items").iterdir() for name in load_file(path))


@pytest.mark.parametrize("halves", ["qwen2_5_vl"], indirect=True)
def test_steps_that_vllm_would_place_wrongly_are_no_exact_video(halves: Halves, tmp_path: Path) -> None:
    (video,) = make_items(halves, kinds=("video",))
    cache = make_cache(halves, [replace(video, seconds_per_step=1.25)], tmp_path / "cache")
    with pytest.raises(UsageError, match=r"no place for the seconds between temporal steps.*\(--fps 2\)"):
        run(cache, tmp_path / "out", "vllm", prompt=[QUESTION])


@pytest.mark.parametrize("halves", ["qwen3_vl"], indirect=True)
def test_levels_stand_behind_the_tokens_of_stills_only(halves: Halves, tmp_path: Path) -> None:
    image, video = make_items(halves)
    cache = make_cache(halves, [image, video], tmp_path / "cache")
    with pytest.raises(UsageError, match=r"can't take video\.x \(qwen3_vl\): video embeddings .* crashed vLLM"):
        run(cache, tmp_path / "out", "vllm", prompt=[QUESTION], allow_approx_positions=True)
    run(cache, tmp_path / "out", "vllm", prompt=[QUESTION], ids=["image.x"])
    ((_, request),) = requests_of(VLLM, tmp_path / "out")
    data = request["multi_modal_data"]["image"]
    tokens, *levels = data["image_embeds"].split(halves.language.model.config.text_config.hidden_size, dim=1)
    assert image.kept.deepstack is not None
    assert torch.equal(tokens, image.kept.tokens) and torch.equal(torch.stack(levels, dim=1), image.kept.deepstack)
    assert int(data["image_grid_thw"].prod()) // 4 == len(tokens)
    few = make_cache(halves, [keep_rows(image, range(3))], tmp_path / "few")
    with pytest.raises(UsageError, match="no place for DeepStack levels"):
        run(few, tmp_path / "few-out", "vllm", prompt=[QUESTION], allow_approx_positions=True)


@pytest.mark.parametrize("halves", ["llava"], indirect=True)
def test_requests_of_another_tower_are_refused(halves: Halves, tmp_path: Path) -> None:
    from tokcli.errors import ModelError

    cache = make_cache(halves, make_items(halves), tmp_path / "cache")
    with pytest.raises(ModelError, match="the cache was made by"):
        run(cache, tmp_path / "out", "vllm", prompt=[QUESTION], model="nano-clip")
    with pytest.raises(UsageError, match="the prompt holds <image>"):
        run(cache, tmp_path / "out", "vllm", prompt=["what is <image> ?"])
    empty = make_cache(halves, [keep_rows(make_items(halves)[0], [])], tmp_path / "empty")
    with pytest.raises(UsageError, match="no token of it is left"):
        run(empty, tmp_path / "out", "vllm", prompt=[QUESTION])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "empty"]
