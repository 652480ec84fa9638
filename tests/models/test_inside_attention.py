"""What rows see inside a tower after some of them went: positions, windows, and attention by what each stands for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inside_tower import FRAMES, clip_of
from tiny_checkpoints import make_checkpoint, make_pixels

from tokcli.methods import resolve
from tokcli.models import VisionTower, load_tower
from tokcli.models.in_tower import attend_before, encode_inside
from tokcli.models.preprocess import pad_to_step
from tokcli.models.units import UnitAdapter
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.fusion import Criteria, fuse
from tokcli.ops.reducing import InTower, Rows, Step


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_rows_keep_their_positions_and_windows(family: str, tmp_path: Path) -> None:
    """Leaving rows out before the first block is encoding the others alone, which the family does by tables.

    Rotary positions, windows and what whole frames attend to are made there for transformers' own code.
    """
    tower = load_tower(str(make_checkpoint(tmp_path / family, family)), device="cpu")
    info, size = clip_of(tower)
    settings, family_of = tower.preprocessing.of("video"), tower.family
    steps, rows, columns = tower.sizer.grid(info, size)
    assert isinstance(family_of, UnitAdapter)
    blocks = family_of.in_tower(tower.model, settings, (rows, columns))
    chosen = torch.rand(rows * columns, generator=torch.Generator().manual_seed(3)) < 0.5
    stands = torch.arange(rows * columns) if blocks.shape.stands is None else blocks.shape.stands
    left = stands[chosen].sort().values

    def leave_out(state: Rows, seen: BlockAttention) -> Step:
        return Step.selected(state.states, left.expand(len(state.states), -1))

    frames = torch.from_numpy(pad_to_step(make_pixels(info, size), tower.frames_per_step))
    inside = InTower(lambda shape: {0: leave_out}, when="input", merges=False)
    with torch.inference_mode():
        alone = encode_inside(blocks, frames, inside, {0: leave_out})
        mask = chosen.view(1, rows, columns).expand(steps, -1, -1)
        expected, _ = family_of.encode_units(tower.model, frames, settings, frozenset(), mask)
    assert torch.equal(alone.source, torch.nonzero(mask.flatten()).flatten())
    assert torch.allclose(alone.tokens, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("proportional", [True, False])
def test_what_merged_counts_as_what_it_stands_for(tower: VisionTower, proportional: bool) -> None:
    """Of equal patches one is enough, if it gets the attention of all: the other tokens stay what they were.

    Patches are made equal in pairs behind the embedding, positions and all, so this is for towers without rotary ones.
    """
    if tower.identity["family"] not in ("llava", "gemma3"):
        pytest.skip("rotary positions tell equal patches apart in every block")
    _, rows, columns = tower.sizer.grid(*clip_of(tower))
    blocks: Any = tower.family.in_tower(tower.model, tower.preprocessing.of("video"), (rows, columns))
    embed, first = blocks.embed, blocks.leading

    def in_pairs(pixels: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = embed(pixels).clone()
        units = states[:, first:].view(len(states), -1, 2, blocks.unit, states.shape[2])
        units[:, :, 1] = units[:, :, 0]
        return states

    blocks.embed = in_pairs
    info, size = clip_of(tower)
    frames = torch.from_numpy(make_pixels(info, tower.sizer.region(info, size)))
    # Not all of them: where all sizes are 2, nothing stands for more than another.
    pairs = rows * columns // 4
    inside = resolve("tome", options={"schedule": str(pairs), "proportional": proportional}).in_tower
    assert inside is not None
    with torch.inference_mode():
        merged = encode_inside(blocks, frames, inside, inside.plan(blocks.shape))
        whole = encode_inside(blocks, frames, InTower(lambda shape: {}), {})
    assert torch.bincount(merged.mass.long()).tolist() == [0, FRAMES * (rows * columns - 2 * pairs), FRAMES * pairs]
    difference = float((merged.tokens - whole.tokens[merged.source]).abs().max())
    assert difference < 1e-5 if proportional else difference > 1e-4


@pytest.mark.parametrize("held", [True, False])
def test_attention_that_is_fused_with_its_rows(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the definition: columns added up, rows averaged, and then the values of what is left."""
    if not held:
        monkeypatch.setattr("tokcli.ops.block_attention.NUMBERS_HELD", 0)
    batch, length, unit, heads, width = 2, 9, 3, 2, 4
    generator = torch.Generator().manual_seed(7)
    states = torch.randn((batch, length, unit * heads * width), generator=generator)
    weights = torch.randn((heads * width, heads * width), generator=generator)

    def values(block: int, patches: torch.Tensor) -> torch.Tensor:
        return (patches @ weights).unflatten(2, (heads, width)).transpose(1, 2)

    def patches_of(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(2, (unit, -1)).flatten(1, 2)

    query, key = torch.randn((2, batch, heads, length * unit, width), generator=generator)
    seen = BlockAttention(query, key, values(0, patches_of(states)), key, 0.5, unit=unit)
    attention = torch.softmax(query @ key.transpose(2, 3) * 0.5, dim=-1)
    received = attention.mean(dim=(1, 2)).unflatten(1, (length, unit)).sum(dim=2)
    assert torch.allclose(seen.received(), received, rtol=0, atol=1e-6)
    step = fuse(states, torch.ones((batch, length)), received, 3, Criteria())
    assert step.shares is not None and int(step.fused.sum()) > 1
    went = torch.zeros((batch, length - 3, length)).scatter_(1, step.into.unsqueeze(1), 1.0)
    assert torch.allclose((went * step.shares.unsqueeze(1)).sum(dim=2), torch.ones(batch, length - 3))
    adds, averages = (
        torch.kron(matrix, torch.eye(unit)).view(batch, 1, (length - 3) * unit, length * unit)
        for matrix in (went, went * step.shares.unsqueeze(1))
    )
    expected = averages @ attention @ adds.transpose(2, 3) @ values(0, patches_of(step.states))
    tower: Any = SimpleNamespace(unit=unit, values=values)
    assert torch.allclose(attend_before(tower, 0, seen, step), expected.transpose(1, 2).flatten(2), rtol=0, atol=2e-6)


def test_rows_are_sorted_into_their_windows(tmp_path: Path) -> None:
    """Blocks with windows, after a block that merged: whoever shares a window sees each other, and nobody else."""
    tower = load_tower(str(make_checkpoint(tmp_path / "qwen", "qwen2_5_vl")), device="cpu")
    info, size = clip_of(tower)
    _, rows, columns = tower.sizer.grid(info, size)
    blocks: Any = tower.family.in_tower(tower.model, tower.preprocessing.of("video"), (rows, columns))
    side = 2  # window_size 56 over patches of 14 that are merged by twos
    order = blocks.order
    anchors = torch.arange(rows * columns)[None, ::3].expand(2, -1)
    windows = [
        ((int(place) // columns) // side, (int(place) % columns) // side) for place in order[anchors[0]].tolist()
    ]
    expected = [windows.count(window) * 4 for window in dict.fromkeys(windows)]
    assert blocks.segments(0, anchors) == expected * 2
    assert blocks.segments(1, anchors) is None  # a block that attends to whole frames
