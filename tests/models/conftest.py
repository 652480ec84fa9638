"""Tiny checkpoints and both halves of each, built once for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from inside_tower import TOWERS
from llava_tiny import tiny_llava
from tiny_checkpoints import Halves, make_checkpoint, native_model

from tokcli import models


@pytest.fixture(scope="session", autouse=True)
def quiet_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, no network, and a cache folder of our own instead of the user's."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKCLI_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def difference(record_property: Callable[[str, object], None]) -> Callable[..., float]:
    """Largest difference of two tensors, noted for ``bench/equality.py`` under a family and a key."""

    def measure(family: str, key: str, own: torch.Tensor, reference: torch.Tensor) -> float:
        largest = float((own - reference).abs().max())
        record_property(f"equality {family} {key}", largest)
        return largest

    return measure


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen2_vl"])
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Halves:
    folder = make_checkpoint(tmp_path_factory.mktemp("tiny") / request.param, request.param)
    return Halves(
        request.param,
        folder,
        native_model(folder),
        models.load_tower(str(folder), device="cpu"),
        models.load_language_model(str(folder), device="cpu"),
    )


@pytest.fixture(scope="session")
def qwen25(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen2.5-VL checkpoint; tests copy it before they change anything."""
    return make_checkpoint(tmp_path_factory.mktemp("plain") / "qwen2_5_vl", "qwen2_5_vl")


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    """A tiny LLaVA, whole and in halves; tests copy its folder before they change anything."""
    return tiny_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session", params=TOWERS)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> models.VisionTower:
    """A tiny tower of each kind that methods can work inside."""
    folder = tmp_path_factory.mktemp("inside") / request.param
    return models.load_tower(str(TOWERS[request.param](folder)), device="cpu")
