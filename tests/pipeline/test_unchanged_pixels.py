"""`--reuse-unchanged` from file to cache: exact at 0, another configuration above it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokcli.cache import open_cache
from tokcli.errors import CacheConflictError, ModelError
from tokcli.media.encode import write_video
from tokcli.models.tower import Encoding
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of one picture, then twelve of another, without loss."""
    generator = np.random.default_rng(0)
    scenes = [
        np.kron(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in "ab"
    ]
    path = tmp_path_factory.mktemp("still") / "still.mkv"
    write_video(path, (scenes[number // 12] for number in range(24)), 1, codec="ffv1")
    return path


def run(media: Path, cache: Path, **more: Any) -> torch.Tensor:
    compress(CompressRecipe(inputs=[str(media)], output=str(cache), workers=1, **{"method": "none", **more}))
    opened = open_cache(cache)
    return opened[opened.ids()[0]].kept.tokens


def test_equal_steps_are_encoded_once_and_nothing_changes(
    still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Encoding._encode

    def counted(encoding: Encoding, pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode(encoding, pixels)

    monkeypatch.setattr(Encoding, "_encode", counted)
    plain = run(still, tmp_path / "plain")
    assert sum(encoded) == 24
    encoded.clear()
    reused = run(still, tmp_path / "reused", reuse_unchanged=0.0)
    assert sum(encoded) == 4
    assert torch.equal(plain, reused)
    # The same tokens, so the same configuration: one goes on where the other stopped.
    configurations = [open_cache(tmp_path / name).manifest.configuration for name in ("plain", "reused")]
    assert configurations[0] == configurations[1]


def test_a_threshold_is_part_of_the_configuration(still: Path, tmp_path: Path) -> None:
    some = run(still, tmp_path / "cache", reuse_unchanged=0.004)
    assert open_cache(tmp_path / "cache").manifest.configuration["reuse_unchanged"] == 0.004
    assert torch.equal(some, run(still, tmp_path / "again", reuse_unchanged=0.004))
    with pytest.raises(CacheConflictError, match=r"reuse_unchanged: 0\.004 in the cache, nothing asked for"):
        run(still, tmp_path / "cache")


def test_a_tower_that_takes_whole_frames_only(still: Path, tmp_path: Path) -> None:
    run(still, tmp_path / "exact", model="nano-clip", reuse_unchanged=0.0)
    with pytest.raises(ModelError, match=r"llava towers encode whole frames only.*use threshold 0"):
        run(still, tmp_path / "cache", model="nano-clip", reuse_unchanged=0.01)
    assert not (tmp_path / "cache").exists()
