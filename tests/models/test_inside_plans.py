"""How many rows go in which block of a tower, and what a tower can't be asked for."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from family_tiny import make_family
from inside_tower import FRAMES, NAMES, clip_of, encoded, plain
from next_tiny import NEXT
from qwen3_vl_tiny import QWEN3_5, QWEN3_VL
from tiles_tiny import INTERNVL, ONEVISION
from tiny_checkpoints import make_pixels

from tokcli.errors import MethodError, ModelError
from tokcli.methods import resolve
from tokcli.methods.tome import TomeOptions
from tokcli.methods.tower_schedule import numbers, ramp, steps_by_budget, steps_by_r, steps_by_share
from tokcli.models import VisionTower, load_tower
from tokcli.models.in_tower import TowerBlocks, check_plan
from tokcli.models.inside import check_inside
from tokcli.ops.reducing import InTower, TowerShape

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("keep", "rows", "blocks", "expected"),
    [
        (0.5, 16, (0, 1, 2), {0: 3, 1: 3, 2: 2}),
        (1.0, 16, (0, 1, 2), {}),
        (0.25, 100, (1, 3), {1: 50, 3: 25}),
        (0.25, 25, (1, 3), {1: 11, 3: 7}),  # 25 to 14 to 7, where the share is 6
        (0.3, 10, (4, 5, 6, 7), {4: 2, 5: 2, 6: 2, 7: 1}),
    ],
)
def test_a_share_as_steps(keep: float, rows: int, blocks: tuple[int, ...], expected: dict[int, int]) -> None:
    assert steps_by_share("tome", keep, TowerShape(8, blocks, (1, rows), 0)) == expected


def test_the_schedule_of_the_authors() -> None:
    """ToMe's own, for the forms of r that this package has, as its code gave them."""
    for case in json.loads((GOLDEN / "tome" / "parse_r_table.json").read_text()):
        r, depth = ast.literal_eval(case["r"]), case["num_layers"]
        if isinstance(r, list):
            found = [*r, *[0] * (depth - len(r))]
            counts = numbers("schedule", ",".join(map(str, r)))
            steps = steps_by_r(counts, TowerShape(depth, tuple(range(depth)), (1, 1000), 1))
            assert [steps.get(block, 0) for block in range(depth)] == case["list"] == found
        else:
            count, inflect = r if isinstance(r, tuple) else (r, 0.0)
            assert ramp(count, inflect, depth) == case["list"]


CEILINGS = [name for name in NAMES if name != "mustdrop"]


@pytest.mark.parametrize("name", CEILINGS)
@pytest.mark.parametrize("share", [0.55, 0.7])
def test_a_ceiling_for_the_item(tower: VisionTower, name: str, share: float) -> None:
    """What each frame is left with is its part of the ceiling, by hand, and the item's sum is within it."""
    whole = plain(tower)
    steps = int(whole.coords[:, 1].max()) + 1
    per_step = len(whole) // steps
    ceiling = int(share * per_step) * steps + steps - 1  # what does not divide is left over
    compressor = resolve(name, max_tokens=ceiling)
    try:
        (visual,) = encoded(tower, compressor, [FRAMES])
    except MethodError as error:
        assert "of this tower" in str(error)
        pytest.skip(str(error))
    counts = torch.bincount(visual.coords[:, 1].long(), minlength=steps)
    assert len(visual) <= ceiling and int(counts.min()) > 0
    # EViT's fused row takes the place of one that is kept, or of two.
    wanted = ceiling // steps
    assert set(counts.tolist()) <= ({wanted, wanted - 1, wanted - 2} if name == "evit" else {wanted})
    assert wanted < per_step
    (again,) = encoded(tower, resolve(name, max_tokens=len(whole) + 1), [FRAMES])
    assert torch.equal(again.coords, whole.coords)


def test_windows_within_a_ceiling(tower: VisionTower) -> None:
    whole = plain(tower)
    steps = int(whole.coords[:, 1].max()) + 1
    per_step = len(whole) // steps
    compressor = resolve("mustdrop", max_tokens=(per_step - 1) * steps, options={"window": 2})
    (visual,) = encoded(tower, compressor, [FRAMES])
    assert set(torch.bincount(visual.coords[:, 1].long()).tolist()) == {per_step - 3}
    if per_step == 4:  # all of a frame of the tiny SigLIP is one window
        return
    with pytest.raises(MethodError, match=f"at least {per_step // 4} of the {per_step} tokens of a frame of this"):
        encoded(tower, resolve("mustdrop", max_tokens=steps, options={"window": 2}), [FRAMES])


def test_a_ceiling_is_shared_by_the_frames_that_are_encoded(tower: VisionTower) -> None:
    """Frames are chosen after the item has been opened, so its ceiling is divided when the first one comes."""
    info, size = clip_of(tower)
    whole = plain(tower)
    steps = int(whole.coords[:, 1].max()) + 1
    per_step = len(whole) // steps
    inside = resolve("flowcut", max_tokens=steps - 1).in_tower
    frames = make_pixels(info, size)
    with pytest.raises(
        MethodError, match=f"a token of each of {steps} temporal steps, over max_tokens={steps - 1}; allow that"
    ):
        tower.start(info, size, inside=inside).push(frames)
    encoding = tower.start(info, size, inside=inside)
    encoding.choose([0], steps)
    visual = encoding.push(frames[: tower.frames_per_step])
    assert len(visual) == min(per_step, steps - 1) and visual.reduced is not None and visual.reduced.rows == per_step


@pytest.mark.parametrize(
    ("ceiling", "steps", "rows", "blocks", "expected"),
    [
        (32, 4, 16, (0, 1, 2), {0: 3, 1: 3, 2: 2}),  # 8 of 16, as keep=0.5
        (35, 4, 16, (0, 1, 2), {0: 3, 1: 3, 2: 2}),  # what does not divide is left over
        (64, 4, 16, (0, 1, 2), {}),
        (5, None, 16, (0, 1, 2), {}),  # no item yet
    ],
)
def test_a_ceiling_as_steps(
    ceiling: int, steps: int | None, rows: int, blocks: tuple[int, ...], expected: dict[int, int]
) -> None:
    shape = TowerShape(8, blocks, (1, rows), 0, steps=steps)
    assert steps_by_budget("tome", TomeOptions(max_tokens=ceiling), shape) == expected


@pytest.mark.parametrize(
    ("tiny", "reason"),
    [
        (QWEN3_VL, "vectors for DeepStack"),
        (QWEN3_5, "tokcli doesn't take it apart"),
        (NEXT, "put together from tiles"),
        (ONEVISION, "pooled over neighbours"),
        (INTERNVL, "tokcli doesn't take it apart"),
    ],
    ids=lambda value: getattr(value, "family", ""),
)
def test_towers_that_take_all_rows_say_why(tiny: Any, reason: str, tmp_path: Path) -> None:
    tower = load_tower(str(make_family(tmp_path / tiny.family, tiny)), device="cpu")
    inside = resolve("tome").in_tower
    assert inside is not None
    with pytest.raises(ModelError, match=f"inside a {tiny.family} tower: .*{reason}.*; choose a method that works on"):
        check_inside(tower, inside)


def test_signals_of_all_tokens_are_refused(tower: VisionTower) -> None:
    inside = resolve("tome").in_tower
    assert inside is not None
    with pytest.raises(ModelError, match="'received_attention' is not there after a method inside the tower"):
        check_inside(tower, inside, frozenset({"tokens", "received_attention"}))


SHAPE = TowerShape(24, tuple(range(23)), (24, 24), 1)


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("tome", {"keep": 0.1}, TowerShape(4, (1, 3), (8, 8), 0), "leaves 0.25 of them, not 0.1; ask for keep=0.25"),
        ("evit", {"at": "3,40"}, SHAPE, "can't reduce in block 40 of this tower"),
        ("pumer", {"at": "2"}, TowerShape(4, (1, 3), (8, 8), 0), "blocks that will do: 1, 3"),
        ("mustdrop", {"window": 5, "variant": "official"}, SHAPE, "=5 does not divide 24x24 .* that do: 2, 3, 4, 6"),
        ("mustdrop", {"keep": 0.1}, SHAPE, "one token of a window of 9 of this tower, so it cannot leave 0.1 of"),
        ("mustdrop", {"variant": "official"}, TowerShape(4, (1, 3), (7, 11), 0), "no window does; use variant=fixed"),
        ("mustdrop", {"window": 9}, TowerShape(4, (1, 3), (7, 11), 0), "window=9 does not divide 7x11"),
        (
            "tome",
            {"max_tokens": 50},
            TowerShape(4, (1, 3), (5, 5), 0, steps=8),
            r"leaves at least 7 of the 25 tokens of a frame of this tower, 56 of 8 temporal steps, over max_t",
        ),
        (
            "turbo",
            {"max_tokens": 7},
            replace(SHAPE, steps=8),
            "a token of each of 8 temporal steps, over max_tokens=7;",
        ),
    ],
)
def test_plans_that_a_tower_cannot_carry(name: str, options: dict[str, Any], shape: TowerShape, message: str) -> None:
    inside = resolve(name, options=options).in_tower
    assert inside is not None
    with pytest.raises(MethodError, match=message):
        inside.plan(shape)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tome", {"schedule": "3,x"}, "schedule='3,x' must be whole numbers with commas between, such as 3,6,9"),
        ("evit", {"at": "1;2"}, "at='1;2' must be whole numbers"),
        ("tome", {"r": 3, "keep": 0.5}, "keep and r cannot both be given"),
        ("tome", {"max_tokens": 3, "keep": 0.5}, "keep and max_tokens cannot both be given"),
        ("auroracap", {"max_tokens": 3, "variant": "official"}, "leaves more than it is asked for, so no max_tokens"),
    ],
)
def test_options_that_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        resolve(name, options=options)


@pytest.mark.parametrize("spec", ["uniform,tome", "tome,turbo"])
def test_it_must_stand_first_and_alone(spec: str) -> None:
    with pytest.raises(MethodError, match=r"works inside the vision tower, before there are|only one method can work"):
        resolve(spec, keep=0.5, options={"uniform.keep": 0.5} if spec == "uniform,tome" else {})


def test_tokens_that_are_there_are_refused(tower: VisionTower) -> None:
    with pytest.raises(MethodError, match="works inside the vision tower, and these are tokens; use `tokcli compress"):
        resolve("tome").compress(plain(tower), "item")


def test_a_plan_for_no_block_is_refused() -> None:
    class Windowed(TowerBlocks):
        def __init__(self) -> None:
            super().__init__(4, 4, (8, 8), whole=())

    with pytest.raises(ModelError, match="no block of this tower attends to whole frames"):
        check_plan(Windowed().shape, InTower(lambda shape: {}))
