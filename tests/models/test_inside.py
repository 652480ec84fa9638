"""Methods inside a tower, on towers of all kinds that can be reduced in: what tests/methods holds of the others.

A plan without steps is the plain tower; what is left tells where it came from; nothing depends on how a clip is cut.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from family_tiny import make_family
from gemma_tiny import GEMMA3
from llava_tiny import CROPPED, make_llava
from next_tiny import NEXT
from qwen3_vl_tiny import QWEN3_5, QWEN3_VL
from tiles_tiny import INTERNVL, ONEVISION
from tiny_checkpoints import make_checkpoint, make_info, make_pixels

from tokcli.errors import MethodError, ModelError
from tokcli.methods import METHODS, Compressor, describe, method_names, resolve
from tokcli.methods.compose import after_tower
from tokcli.methods.tower_schedule import numbers, ramp, steps_by_r, steps_by_share
from tokcli.models import VisionTower, load_tower
from tokcli.models.in_tower import TowerBlocks, attend_before, encode_inside
from tokcli.models.inside import check_inside
from tokcli.models.preprocess import pad_to_step
from tokcli.models.units import UnitAdapter
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.fusion import Criteria, fuse
from tokcli.ops.reducing import InTower, Rows, Step, TowerShape
from tokcli.types import MediaInfo, Reduced, TokenSet, VisualTokens

GOLDEN = Path(__file__).parents[1] / "golden"
FRAMES = 7
NAMES = [name for name in method_names() if describe(name)["where"] == "tower"]
# The tiny frames are 6 x 6, 4 x 6 or 2 x 2 tokens.
OPTIONS: list[tuple[str, Mapping[str, Any]]] = [
    *((name, {"window": 2} if name == "mustdrop" else {}) for name in NAMES),
    ("tome", {"r": 3, "inflect": -0.5}),
    ("tome", {"schedule": "1,0,2"}),
    ("auroracap", {"variant": "official"}),
    ("turbo", {"r": 3, "fewest": 0}),
    ("mctf", {"r": 0.3}),
    ("mctf", {"keep": 0.6, "both_ways": False, "weigh_by": "max"}),
    ("pumer", {"variant": "official", "keep": 0.4}),
    ("pumer", {"match": "score", "prune": 0.0}),
    ("evit", {"variant": "official", "keep_rate": 0.5}),
    ("evit", {"fuse": False, "keep": 0.6}),
    ("flowcut", {"variant": "official", "keep": 0.6}),
    ("mustdrop", {"window": 2, "threshold": -1}),
    ("mustdrop", {"window": 2, "keep": 0.7, "variant": "official"}),
]
every = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=name + "".join(f"-{key}={value}" for key, value in options.items()))
        for name, options in OPTIONS
    ],
)
NOTHING: dict[str, Mapping[str, Any]] = {"mustdrop": {"window": 2, "threshold": 1.01}, "tome": {"r": 0}}


def clip_tower(folder: Path) -> Path:
    size = {"height": 84, "width": 84}
    processor = {**CROPPED, "size": {"shortest_edge": 84}, "crop_size": size}
    return make_llava(folder, processor, vision={"num_hidden_layers": 6, "image_size": 84})


def siglip_tower(folder: Path) -> Path:
    return make_family(folder, GEMMA3)


TOWERS: dict[str, Callable[[Path], Path]] = {
    "llava": clip_tower,
    "gemma3": siglip_tower,
    "qwen2_vl": lambda folder: make_checkpoint(folder, "qwen2_vl"),
    "qwen2_5_vl": lambda folder: make_checkpoint(folder, "qwen2_5_vl"),
}
EXACT = {"llava", "qwen2_vl", "qwen2_5_vl"}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionTower:
    folder = tmp_path_factory.mktemp("inside") / request.param
    return load_tower(str(TOWERS[request.param](folder)), device="cpu")


def clip_of(tower: VisionTower, frames: int = FRAMES) -> tuple[MediaInfo, tuple[int, int]]:
    """A clip whose frames have an even number of tokens both ways, where the tower takes any size."""
    info = make_info(frames=frames, height=110, width=170)
    return info, tower.sizer(info)


def encoded(tower: VisionTower, compressor: Compressor, runs: list[int], max_patches: int = 4096) -> list[VisualTokens]:
    info, size = clip_of(tower, sum(runs))
    frames = make_pixels(info, size)
    before, tower.max_patches = tower.max_patches, max_patches
    try:
        wanted = frozenset({"tokens", "pixel_change"}) & {"tokens", *tower.signals}
        encoding = tower.start(info, size, wanted, inside=compressor.in_tower)
        ends = np.cumsum(runs)
        return [encoding.push(frames[end - run : end]) for run, end in zip(runs, ends)]
    finally:
        tower.max_patches = before


def plain(tower: VisionTower) -> VisualTokens:
    info, size = clip_of(tower)
    return tower.start(info, size).push(make_pixels(info, size))


def usable(tower: VisionTower, name: str, options: Mapping[str, Any]) -> Compressor:
    """The method, unless the tiny tower can't carry it: then it must say so."""
    compressor = resolve(name, options=options)
    inside = compressor.in_tower
    assert inside is not None
    info, size = clip_of(tower)
    try:
        tower.start(info, size, inside=inside)
    except MethodError as error:
        assert "of this tower" in str(error) and "\n" not in str(error)
        pytest.skip(str(error))
    return compressor


def test_methods_are_found() -> None:
    assert NAMES == ["tome", "auroracap", "turbo", "mctf", "pumer", "evit", "flowcut", "mustdrop"]


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_to_take_away_it_is_the_plain_tower(tower: VisionTower, name: str) -> None:
    options = NOTHING.get(name, {"keep": 1.0})
    (visual,), expected = encoded(tower, resolve(name, options=options), [FRAMES]), plain(tower)
    if tower.identity["family"] in EXACT:
        assert torch.equal(visual.tokens, expected.tokens)
    else:
        # Patches stand square by square here and line by line there, so sums run in another order.
        assert torch.allclose(visual.tokens, expected.tokens, rtol=0, atol=2e-5)
    assert torch.equal(visual.coords, expected.coords)
    assert visual.reduced is not None and torch.equal(visual.reduced.mass, torch.ones(len(expected)))


@every
def test_what_is_left_tells_where_it_came_from(tower: VisionTower, name: str, options: Mapping[str, Any]) -> None:
    (visual,), whole = encoded(tower, usable(tower, name, options), [FRAMES]), plain(tower)
    reduced = visual.reduced
    assert reduced is not None and reduced.rows == len(whole) and 0 < len(visual) <= len(whole)
    assert bool((reduced.source.diff() > 0).all())
    assert torch.equal(visual.coords, whole.coords[reduced.source])
    assert visual.signals.keys() == {"pixel_change"} & tower.signals and bool(torch.isfinite(visual.tokens).all())
    # Frames are what they are without each other: nothing merges from one into another.
    steps = whole.coords[:, 1]
    if METHODS.get(name).kind == "select":
        assert reduced.assignment is None and torch.equal(reduced.mass, torch.ones(len(visual)))
        return
    assignment = reduced.assignment
    assert assignment is not None
    assert torch.equal(assignment[reduced.source], torch.arange(len(visual), dtype=torch.int32))
    members = torch.bincount(assignment[assignment >= 0], minlength=len(visual))
    assert torch.equal(reduced.mass, members.to(torch.float32))
    kept = assignment >= 0
    assert torch.equal(steps[kept], visual.coords[:, 1][assignment[kept].long()])
    dropping = name == "pumer" or (name, options.get("variant")) == ("auroracap", "official")
    assert dropping or bool(kept.all())


@every
def test_cuts_do_not_change_anything(tower: VisionTower, name: str, options: Mapping[str, Any]) -> None:
    compressor = usable(tower, name, options)
    (whole,) = encoded(tower, compressor, [FRAMES])
    for runs, limit in (([2, 4, 1], 4096), ([4, 3], 1)):
        parts = encoded(tower, compressor, runs, limit)
        assert torch.allclose(torch.cat([part.tokens for part in parts]), whole.tokens, rtol=0, atol=1e-5)
        assert torch.equal(torch.cat([part.coords for part in parts]), whole.coords)
        joined, alone = (after_tower(reduced(some), all_of(some)) for some in (parts, [whole]))
        for field in ("mass", "source", "assignment"):
            left, right = getattr(joined, field), getattr(alone, field)
            assert left is right is None or torch.equal(left, right), field


def reduced(parts: list[VisualTokens]) -> list[Reduced]:
    return [part.reduced for part in parts if part.reduced is not None]


def all_of(parts: list[VisualTokens]) -> TokenSet:
    tokens = torch.cat([part.tokens for part in parts])
    coords = torch.cat([part.coords for part in parts])
    return TokenSet(tokens, coords, torch.ones(len(tokens)), torch.arange(len(tokens)))


@pytest.mark.parametrize("name", ["tome", "auroracap", "turbo", "mctf", "pumer"])
@pytest.mark.parametrize("keep", [0.55, 0.75, 0.9])
def test_the_share_of_each_frame(tower: VisionTower, name: str, keep: float) -> None:
    (visual,) = encoded(tower, usable(tower, name, {"keep": keep}), [FRAMES])
    whole = plain(tower)
    per_step = int((whole.coords[:, 1] == 0).sum())
    assert set(torch.bincount(visual.coords[:, 1].long()).tolist()) == {round(keep * per_step)}


@every
def test_merged_tokens_are_not_those_of_the_plain_tower(
    tower: VisionTower, name: str, options: Mapping[str, Any]
) -> None:
    """Later blocks saw less: a wrapper that runs the whole tower and drops rows afterwards would give equal ones."""
    (visual,), whole = encoded(tower, usable(tower, name, options), [FRAMES]), plain(tower)
    assert visual.reduced is not None
    # The tiny SigLIP has four tokens a frame: of one that is dropped, what EViT fuses is that one.
    as_before = name == "mustdrop" or (name == "evit" and tower.identity["family"] == "gemma3")
    if len(visual) < len(whole) and not as_before:
        assert float((visual.tokens - whole.tokens[visual.reduced.source]).abs().max()) > 1e-3


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


def test_a_still(tower: VisionTower) -> None:
    info = make_info("image", height=110, width=170)
    size = tower.sizer(info)
    inside = resolve("tome", keep=0.75).in_tower
    visual = tower.start(info, size, inside=inside).push(make_pixels(info, size))
    assert visual.views[0].kind == "image" and visual.reduced is not None
    assert len(visual) == round(0.75 * visual.reduced.rows)


def test_half_precision(tower: VisionTower) -> None:
    half = VisionTower(tower.model.bfloat16(), tower.family, tower.preprocessing, tower.identity)
    try:
        for name in NAMES:
            (visual,) = encoded(half, resolve(name, options={"window": 2} if name == "mustdrop" else {}), [FRAMES])
            assert visual.tokens.dtype == torch.bfloat16 and bool(torch.isfinite(visual.tokens).all())
    finally:
        tower.model.float()


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

    from tokcli.models.in_tower import check_plan

    with pytest.raises(ModelError, match="no block of this tower attends to whole frames"):
        check_plan(Windowed().shape, InTower(lambda shape: {}))


def test_what_follows_is_told_in_terms_of_all_tokens() -> None:
    """By hand: four tokens become two, then three more become two; the second and the fourth of those are kept."""
    first = Reduced(4, torch.tensor([0, 2]), torch.tensor([3.0, 1.0]), torch.tensor([0, 0, 1, 0], dtype=torch.int32))
    second = Reduced(3, torch.tensor([0, 1]), torch.tensor([1.0, 1.0]), torch.tensor([0, 1, -1], dtype=torch.int32))
    kept = TokenSet(torch.zeros(2, 5), torch.zeros((2, 4), dtype=torch.int32), torch.ones(2), torch.tensor([0, 3]))
    told = after_tower([first, second], kept)
    assert told.source.tolist() == [0, 5] and told.mass.tolist() == [3.0, 1.0]
    assert told.assignment is not None and told.assignment.tolist() == [0, 0, -1, 0, -1, 1, -1]
    chosen = after_tower([replace(first, assignment=None), replace(second, assignment=None)], kept)
    assert chosen.source.tolist() == [0, 5] and chosen.assignment is None
