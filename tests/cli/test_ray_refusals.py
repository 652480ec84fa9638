"""What `compress --executor ray` refuses before anything is started or written; no cluster is needed for it."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def clip(clips: Path) -> Path:
    return next(clips.glob("*.mp4"))


def test_without_ray_it_says_what_to_install(
    tokcli: Callable[..., Any], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = tokcli("compress", clip, "-o", tmp_path / "cache", "--executor", "ray")
    assert result.code == 2
    assert 'pip install "tokcli[ray]"' in result.error
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:{closed}", "no Ray cluster answers at 127.0.0.1:{closed}"),
        ("ray://127.0.0.1:{closed}", "is for Ray Client; write HOST:PORT"),
        ("somewhere", "--ray-address 'somewhere': write HOST:PORT (6379 is usual), auto or local"),
        ("host:port", "write HOST:PORT"),
        ("127.0.0.1:99999", "no Ray cluster answers at 127.0.0.1:99999"),
    ],
)
def test_an_address_that_does_not_answer_is_told_at_once(
    tokcli: Callable[..., Any], clip: Path, tmp_path: Path, address: str, said: str
) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    address, said = address.format(closed=closed), said.format(closed=closed)
    result = tokcli("compress", clip, "-o", tmp_path / "cache", "--executor", "ray", "--ray-address", address)
    assert result.code == 2
    assert said in result.error
    assert not (tmp_path / "cache").exists()


@pytest.mark.long
def test_what_listens_there_and_is_no_ray_is_told_within_two_minutes(
    tokcli: Callable[..., Any], clip: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        begin = time.monotonic()
        result = tokcli("compress", clip, "-o", tmp_path / "cache", "--executor", "ray", "--ray-address", address)
    assert result.code == 2
    assert f"Ray at {address} cannot be used" in result.error
    assert time.monotonic() - begin < 120  # not a speed: Ray itself waits for a quarter of an hour
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--actors", 2), "actors is for executor ray"),
        (("--ray-address", "auto"), "ray_address is for executor ray"),
        (("--executor", "ray", "--shard", "1/2"), "leave shard out"),
        (("--executor", "ray", "--device", "cuda:1"), "device cuda:1 must be cuda"),
        (("--executor", "ray", "--actors", 0), "--actors must be at least 1, got 0"),
        (("--executor", "slurm"), "--executor must be 'local' or 'ray', got 'slurm'"),
        (("--executor", "ray", "--method", "nothing"), "unknown method 'nothing'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tokcli: Callable[..., Any], clip: Path, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    result = tokcli("compress", clip, "-o", tmp_path / "cache", *options)
    assert result.code == 2
    assert said in result.error
    assert not (tmp_path / "cache").exists()
