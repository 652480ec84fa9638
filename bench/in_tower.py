"""What methods inside a vision tower save of its time, beside what they save of its arithmetic, in one run.

Time is CPU time of one thread for one frame, the least of some runs in turn; arithmetic is the multiplications and
additions of the tower's blocks, from how many rows each part of each block was given. A method's own work is in its
time and not in its arithmetic, so the ratio of what is saved tells what it costs. Weights are random: other tokens
merge than would in a picture, but as many. CLIP-L comes with six of its 24 blocks, and with four times the rows
in each that the authors take away; Qwen2.5-VL's tower with four of its 32, half of them without windows.

    python -m bench.in_tower [--runs 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tokcli.methods import METHODS
from tokcli.models.in_tower import TowerBlocks, check_plan, encode_inside
from tokcli.models.in_tower_clip import ClipBlocks
from tokcli.models.in_tower_grid import GridBlocks
from tokcli.models.settings import Settings
from tokcli.models.sizing import PixelBounds
from tokcli.ops.reducing import InTower

CLIP_METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tome", {"r": 32}),
    ("tome", {"r": 64}),
    ("turbo", {"r": 64}),
    ("mctf", {"r": 64}),
    ("evit", {"keep_rate": 0.7}),
    ("flowcut", {"keep": 0.333}),
)
QWEN_METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tome", {"keep": 0.25}),
    ("pumer", {"keep": 0.25}),
    ("flowcut", {"keep": 0.222}),
)
PLAIN = InTower(lambda shape: {})


@dataclass(frozen=True)
class Measured:
    """A method in a tower."""

    tower: str
    method: str
    tokens: int
    tokens_left: int
    seconds: float
    seconds_plain: float
    arithmetic_saved: float
    """Share of the plain tower's."""

    @property
    def time_saved(self) -> float:
        return 1 - self.seconds / self.seconds_plain

    @property
    def ratio(self) -> float:
        return self.time_saved / self.arithmetic_saved


def clip_like() -> ClipBlocks:
    """Six blocks of CLIP-L at 336 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=6,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    model = CLIPVisionModel(config).eval()

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = model.pre_layrnorm(model.embeddings(pixels.permute(0, 3, 1, 2) / 255))
        return embedded

    return ClipBlocks(model.encoder.layers, 6, (24, 24), embed, lambda states: states, leading=1)


def qwen_like() -> GridBlocks:
    """Four blocks of Qwen2.5-VL's tower for 336 x 336 pixels, the second and the fourth without windows."""
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    whole = (1, 3)
    config = Qwen2_5_VLVisionConfig(depth=4, fullatt_block_indexes=list(whole), out_hidden_size=1280)
    model = Qwen2_5_VisionTransformerPretrainedModel._from_config(config).eval()
    settings = Settings(
        bounds=PixelBounds(336 * 336, 336 * 336),
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        rescale_factor=1 / 255,
        resample="bicubic",
    )
    rows, columns = torch.cartesian_prod(torch.arange(12), torch.arange(12)).unbind(dim=1)
    return GridBlocks(model, settings, (12, 12), whole, rows // 4 * 3 + columns // 4)


class Counting:
    """Counts the multiplications and additions of a tower's blocks, by what its parts are given."""

    def __init__(self, tower: TowerBlocks) -> None:
        self.total = 0
        self._of: dict[str, Callable[..., Any]] = {name: getattr(tower, name) for name in ("heads", "leave", "mlp")}
        self._tower = tower

    def __enter__(self) -> Counting:
        for name in self._of:
            setattr(self._tower, name, self._counted(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._of:
            delattr(self._tower, name)

    def _counted(self, name: str) -> Callable[..., Any]:
        def run(block: int, states: torch.Tensor) -> Any:
            patches, width = states.shape[0] * states.shape[1], states.shape[2]
            if name == "heads":
                self.total += 6 * patches * width**2
            elif name == "leave":
                self.total += 2 * patches * width**2 + 4 * patches * self._seen(block, patches) * width
            else:
                self.total += self._mlp(block) * patches
            return self._of[name](block, states)

        return run

    def _seen(self, block: int, patches: int) -> int:
        """Patches that each attends to: in a window, about as many as the share of them that is left."""
        whole = block in self._tower.shape.blocks
        return patches if whole else max(1, patches * 64 // (self._tower.shape.rows * self._tower.unit))

    def _mlp(self, block: int) -> int:
        """Per patch: twice the weights of its linear layers."""
        tower: Any = self._tower
        layer = tower._layers[block] if isinstance(tower, ClipBlocks) else tower._visual.blocks[block]
        return 2 * sum(part.weight.numel() for part in layer.mlp.modules() if isinstance(part, torch.nn.Linear))


@torch.inference_mode()
def measure(
    kind: str, tower: TowerBlocks, frames: torch.Tensor, methods: Sequence[tuple[str, dict[str, Any]]], runs: int
) -> list[Measured]:
    """Every method in one tower, in turn with the plain one."""
    towers = [("plain", PLAIN)]
    for name, options in methods:
        method = METHODS.get(name)
        label = f"{name} " + ", ".join(f"{key}={value}" for key, value in options.items())
        towers.append((label, method.inside(method.parse(options))))
    plans = [check_plan(tower.shape, inside) for _, inside in towers]
    arithmetic, left = [], []
    seconds = [float("inf")] * len(towers)
    encode_inside(tower, frames, PLAIN, plans[0])  # what a first call costs belongs to none of them
    for run in range(runs):
        for number, ((_, inside), plan) in enumerate(zip(towers, plans)):
            with Counting(tower) as counting:
                started = time.process_time()
                encoded = encode_inside(tower, frames, inside, plan)
                seconds[number] = min(seconds[number], time.process_time() - started)
            if run == 0:
                arithmetic.append(counting.total)
                left.append(len(encoded.source))
    return [
        Measured(kind, name, left[0], left[number], seconds[number], seconds[0], 1 - arithmetic[number] / arithmetic[0])
        for number, (name, _) in enumerate(towers)
        if number
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both towers and print what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 336, 336, 3), dtype=torch.uint8)
    rows = measure("CLIP-L, 6 blocks", clip_like(), pixels[:1], CLIP_METHODS, options.runs)
    rows += measure("Qwen2.5-VL, 4 blocks", qwen_like(), pixels, QWEN_METHODS, options.runs)
    if options.json:
        print(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows]))
        return
    print("what is saved inside a tower: CPU time of one thread, beside the arithmetic of its blocks")
    for row in rows:
        print(
            f"  {row.tower:<21} {row.method:<22} {row.tokens_left:>4} of {row.tokens} tokens"
            f"  {row.seconds:5.2f} of {row.seconds_plain:.2f} s  time saved {row.time_saved:5.1%}"
            f"  arithmetic saved {row.arithmetic_saved:5.1%}  ratio {row.ratio:.2f}"
        )


if __name__ == "__main__":
    main()
