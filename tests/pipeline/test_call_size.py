"""An encoder that runs out of memory gets half as much at once, down to one step, and the same tokens come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tokcli.cache import open_cache
from tokcli.models import load_tower
from tokcli.models.memory import out_of_memory
from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import Silent
from tokcli.recipe import CompressRecipe

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


class Warnings(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, item_id: str, message: str) -> None:
        self.warnings.append(message)


class Small:
    """A tower with room for so many frames: more of them raise ``error``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, error: Exception) -> None:
        self.calls: list[int] = []
        adapter = type(load_tower("nano").family)
        encode = adapter.encode

        def limited(family: Any, model: Any, pixels: torch.Tensor, *more: Any) -> Any:
            self.calls.append(len(pixels))
            if len(pixels) > room:
                raise error
            return encode(family, model, pixels, *more)

        monkeypatch.setattr(adapter, "encode", limited)


def run(clips: Path, cache: Path, **how: Any) -> tuple[Any, list[str]]:
    seen = Warnings()
    recipe = CompressRecipe(inputs=[str(clips)], output=str(cache), workers=1, method="none", **how)
    return compress(recipe, seen), seen.warnings


@pytest.mark.parametrize(
    "error",
    [error if number == 0 else pytest.param(error, marks=pytest.mark.long) for number, error in enumerate(ERRORS)],
    ids=["cuda", "cpu", "cublas", "python"],
)
def test_fewer_steps_at_once_and_the_same_tokens(
    clips: Path, clip_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("tokcli.pipeline.lanes.MAX_LANES", 1)
    tower = Small(monkeypatch, room=2, error=error)  # one step of two frames
    summary, warnings = run(clips, tmp_path / "cache")
    assert (summary.done, summary.failed) == (6, 0)
    largest = max(tower.calls)
    assert largest > 2
    # It stays as small as it became: once halved, no later call is larger again.
    assert tower.calls.count(largest) == 1
    assert sorted(tower.calls, reverse=True) == tower.calls or tower.calls[-1] <= 2
    halvings = [warning for warning in warnings if "ran out of memory" in warning]
    assert 1 <= len(halvings) <= 3
    full, small = open_cache(clip_cache), open_cache(tmp_path / "cache")
    for item_id in full.ids():
        assert torch.equal(small[item_id].kept.tokens, full[item_id].kept.tokens)


def test_one_step_that_is_too_much_fails_the_item(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Small(monkeypatch, room=0, error=ERRORS[0])
    summary, _ = run(clips, tmp_path / "cache")
    assert (summary.done, summary.failed) == (0, 6)
    rows = open_cache(tmp_path / "cache").errors().to_pylist()
    assert {(row["stage"], row["error_class"]) for row in rows} == {("encode", "OutOfMemoryError")}


def test_with_reuse_too(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run(clips, tmp_path / "whole", reuse_unchanged=0.0)
    Small(monkeypatch, room=2, error=ERRORS[0])
    small, warnings = run(clips, tmp_path / "small", reuse_unchanged=0.0)
    assert (whole.failed, small.failed) == (0, 0)
    assert warnings
    one, other = open_cache(tmp_path / "whole"), open_cache(tmp_path / "small")
    assert all(torch.equal(one[item_id].kept.tokens, other[item_id].kept.tokens) for item_id in one.ids())


def test_other_errors_are_not_taken_for_it(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("shapes do not fit")
    assert not out_of_memory(error) and all(out_of_memory(other) for other in ERRORS if isinstance(other, RuntimeError))
    tower = Small(monkeypatch, room=2, error=error)
    summary, warnings = run(clips, tmp_path / "cache")
    assert summary.failed > 0 and not warnings
    assert tower.calls.count(max(tower.calls)) >= 1
