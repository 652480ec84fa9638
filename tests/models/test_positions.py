"""Positions by scheme: by hand, and against transformers' own function."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_checkpoints import VISION

from tokcli.errors import ModelError
from tokcli.models.positions import Block, Text, kept_positions, mrope_positions


def test_by_hand() -> None:
    parts = [Text(2), Block((3, 1, 3), 2.5), Text(2)]
    # Steps at 2 + int(0), 2 + int(2.5) and 2 + int(5.0); the largest coordinate is 7.
    t = [0, 1, 2, 2, 2, 4, 4, 4, 7, 7, 7]
    y = [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    x = [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4]
    assert mrope_positions(parts, "original").tolist() == [[*t, 8, 9], [*y, 8, 9], [*x, 8, 9]]
    assert mrope_positions(parts, "hf").tolist() == [[*t, 5, 6], [*y, 5, 6], [*x, 5, 6]]


def test_text_after_a_long_block() -> None:
    """16 steps of 4x6 tokens, 3.4 positions apart, from position 6: the last step is at 6 + int(15 * 3.4) = 57."""
    parts = [Text(6), Block((16, 4, 6), 3.4), Text(1)]
    assert mrope_positions(parts, "original")[:, -1].tolist() == [58] * 3
    assert mrope_positions(parts, "hf")[:, -1].tolist() == [12] * 3


def test_dropping_moves_nothing_but_compact_renumbers() -> None:
    parts = [Text(2), Block((2, 2, 2)), Text(3)]
    kept = torch.tensor([0, 1, 3, 8, 10, 11, 12])
    assert torch.equal(kept_positions(parts, kept, "original"), mrope_positions(parts, "original")[:, kept])
    assert kept_positions(parts, kept, "compact").tolist() == [list(range(7))] * 3


def test_no_parts_no_positions() -> None:
    assert mrope_positions([], "original").shape == (3, 0)
    assert mrope_positions([Text(0), Text(2)], "original").tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("scheme", ["", "compacted"])
def test_unknown_scheme(scheme: str) -> None:
    with pytest.raises(ModelError, match=f"unknown position scheme '{scheme}'; known: original, hf, compact"):
        kept_positions([Text(1)], torch.tensor([0]), scheme)


@pytest.mark.parametrize("family", list(VISION))
def test_hf_is_what_transformers_computes(family: str) -> None:
    import transformers
    from transformers import CONFIG_MAPPING

    text = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    text.update(vocab_size=16, intermediate_size=8, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    text["rope_parameters"]["mrope_section"] = [1, 1]
    generator = random.Random(0)
    for tokens_per_second in (2, 25):
        vision = VISION[family] | ({"tokens_per_second": tokens_per_second} if family == "qwen2_5_vl" else {})
        config = CONFIG_MAPPING[family](text_config=text, vision_config=vision)
        name = {"qwen2_vl": "Qwen2VLModel", "qwen2_5_vl": "Qwen2_5_VLModel"}[family]
        with torch.device("meta"):
            model = getattr(transformers, name)(config)
        for _ in range(40):
            parts, types, grids, seconds = [], [], {1: [], 2: []}, []
            for _ in range(generator.randint(1, 5)):
                kind = generator.choice([0, 1, 2])
                if kind == 0 or (types and types[-1] == kind):
                    # Neighbouring blocks of one kind always have text between them: their markers.
                    parts.append(Text(generator.randint(1, 9)))
                    types += [0] * parts[-1].length
                if kind == 0:
                    continue
                steps = 1 if kind == 1 else generator.randint(1, 40)
                grid = (steps, generator.randint(1, 6), generator.randint(1, 6))
                interval = 1.0
                if kind == 2:
                    seconds.append(2 / generator.choice([0.3, 1, 1.6, 2, 7.3]))
                    if family == "qwen2_5_vl":
                        interval = float(torch.tensor(seconds[-1]) * tokens_per_second)
                parts.append(Block(grid, interval))
                types += [kind] * parts[-1].length
                grids[kind].append([grid[0], grid[1] * 2, grid[2] * 2])
            if not types:
                continue
            extra = {"second_per_grid_ts": torch.tensor(seconds)} if seconds and family == "qwen2_5_vl" else {}
            expected, _ = model.get_rope_index(
                torch.zeros(1, len(types), dtype=torch.long),
                mm_token_type_ids=torch.tensor([types]),
                image_grid_thw=torch.tensor(grids[1]) if grids[1] else None,
                video_grid_thw=torch.tensor(grids[2]) if grids[2] else None,
                **extra,
            )
            assert torch.equal(mrope_positions(parts, "hf"), expected[:, 0])
