"""Media behind http: single objects, what a server lists of a folder, and what it does not have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tokcli.cache import open_cache
from tokcli.errors import UsageError
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe


class _Handler(SimpleHTTPRequestHandler):
    """Files, and ``/status/N``, which answers with that."""

    def send_head(self) -> Any:
        if self.path.startswith("/status/"):
            return self.send_error(int(self.path.rpartition("/")[2]))
        return super().send_head()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """Two clips and what is no media, that a server has."""
    (tmp_path / "served").mkdir()
    for path in sorted(clips.glob("*.mp4"))[:2]:
        (tmp_path / "served" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "served" / "notes.txt").write_text("no media")
    return tmp_path / "served"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def recipe(inputs: list[str], output: Path) -> CompressRecipe:
    return CompressRecipe(inputs=inputs, output=str(output), method="dtd", workers=1, dtype="float32")


def test_objects_and_listed_folders_are_what_files_are(folder: Path, url: str, tmp_path: Path) -> None:
    names = sorted(path.name for path in folder.glob("*.mp4"))
    assert compress(recipe([str(folder)], tmp_path / "local")).done == 2
    assert compress(recipe([f"{url}/{name}" for name in names], tmp_path / "named")).done == 2
    assert compress(recipe([f"{url}/"], tmp_path / "listed")).done == 2
    local = open_cache(tmp_path / "local")
    for cache in (open_cache(tmp_path / "named"), open_cache(tmp_path / "listed")):
        assert sorted(cache.ids()) == [f"{url}/{name}" for name in names]
        for name in names:
            assert torch.equal(cache[f"{url}/{name}"].kept.tokens, local[str(folder / name)].kept.tokens)
    again = compress(recipe([f"{url}/{name}" for name in names], tmp_path / "named"))
    assert (again.done, again.skipped) == (0, 2)


def test_what_can_not_be_had_is_one_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokcli.storage.failures.FIRST_WAIT_SECONDS", 0.01)
    for wanted, told in (
        (f"{url}/none.mp4", r"/none\.mp4: no such object or folder"),
        (f"{url}/status/403", r"/status/403: the server refuses it \(403, .*check the credentials for http://"),
        (f"{url}/status/500", r"/status/500: cannot be read: 500, "),
        ("http://127.0.0.1:9/clip.mp4", r"^http://127\.0\.0\.1:9/clip\.mp4: cannot be read: Connect call failed"),
    ):
        with pytest.raises(UsageError, match=told):
            compress(recipe([wanted], tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
