"""A folder that is whole or not there, and the command around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from exporting import IDS, run
from typer.testing import CliRunner

from tokcli.cli.app import app
from tokcli.errors import IntegrityError, RecipeError, TokcliError, UsageError
from tokcli.pipeline.export.as_safetensors import SafetensorsWriter


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_leaves_nothing_and_what_was_there(
    odd_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(odd_cache, tmp_path / "out", "safetensors")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    original = SafetensorsWriter.end

    def full_disk(self: SafetensorsWriter) -> None:
        if self.shards == 3:
            raise OSError(28, "No space left on device")
        original(self)

    monkeypatch.setattr(SafetensorsWriter, "end", full_disk)
    with pytest.raises(TokcliError, match=r"cannot write .*out: No space left on device; nothing of this export was"):
        run(odd_cache, tmp_path / "out", "safetensors", overwrite=True)
    assert names(tmp_path) == ["out"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
from tokcli.cli.app import main
main()
"""


@pytest.mark.parametrize("format", ["safetensors", "webdataset", "hf-datasets"])
def test_a_disk_that_refuses_ends_an_export_of_any_format_with_one_line(
    odd_cache: Path, tmp_path: Path, format: str
) -> None:
    command = [sys.executable, "-B", "-c", FULL, "export", odd_cache, "-o", tmp_path / "out", "--format", format, "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'out'}: ") and done.stderr.count("\n") == 1
    assert "File too large" in done.stderr and "then run the same command again" in done.stderr
    assert names(tmp_path) == []


def test_only_exports_are_replaced_and_only_when_asked(odd_cache: Path, tmp_path: Path) -> None:
    run(odd_cache, tmp_path / "out", "safetensors")
    with pytest.raises(UsageError, match=r"holds an export already; .* --overwrite"):
        run(odd_cache, tmp_path / "out", "webdataset")
    run(odd_cache, tmp_path / "out", "webdataset", overwrite=True)
    assert names(tmp_path / "out") == ["export.json", "shard-000000.tar"] and names(tmp_path) == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds files that are no export"):
        run(odd_cache, tmp_path / "mine", "safetensors", overwrite=True)
    for place in (odd_cache, odd_cache / "inside", odd_cache.parent):
        with pytest.raises(UsageError, match="must not be inside one another"):
            run(odd_cache, place, "safetensors", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert run(odd_cache, tmp_path / "empty", "safetensors").items == len(IDS)


def test_a_killed_export_leaves_no_output_and_the_next_one_clears_up(odd_cache: Path, tmp_path: Path) -> None:
    code = (
        "import time; from tokcli.pipeline.export.as_safetensors import SafetensorsWriter as Writer\n"
        "end = Writer.end; Writer.end = lambda self: (end(self), time.sleep(60 * (self.shards == 3)))\n"
        "from tokcli.cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, "export", str(odd_cache), "-o", str(tmp_path / "out"), "-q"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        left = set(tmp_path.glob(".out.tmp-*"))
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and {path.parent for path in tmp_path.glob(".out.tmp-*/000002-*")} <= left:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        said = process.communicate()[1]
        assert process.returncode in (-9, 143)
        # What SIGKILL left was removed by the run after it, which cleared up after itself.
        assert len(names(tmp_path)) == (1 if number == signal.SIGKILL else 0)
        assert number == signal.SIGKILL or "the next one begins anew" in " ".join(said.split())
    run(odd_cache, tmp_path / "out", "safetensors")
    assert names(tmp_path) == ["out"]


def test_a_damaged_cache_gives_no_export(odd_cache: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(odd_cache, tmp_path / "cache")
    (shard,) = (tmp_path / "cache" / "data").glob("*.parquet")
    content = bytearray(shard.read_bytes())
    from tokcli.cache import open_cache

    tokens = open_cache(odd_cache)[IDS[-1]].kept.tokens.numpy().tobytes()
    content[content.index(tokens)] ^= 1
    shard.write_bytes(content)
    with pytest.raises(IntegrityError):
        run(tmp_path / "cache", tmp_path / "out", "webdataset")
    assert names(tmp_path) == ["cache"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "vllm"}, "vllm gets requests: add prompt"),
        ({"format": "webdataset", "prompt": ["?"]}, "prompt and system are for the formats vllm and sglang"),
        ({"format": "vllm", "prompt": [" "]}, "prompt must not be empty"),
        ({"format": "vllm", "prompt": ["?"], "samples_per_shard": 3}, "has a file for each item"),
        ({"format": "zip"}, "format"),
        ({"format": "safetensors", "limit": 0}, "limit"),
        ({"format": "safetensors", "tokens_dtype": "int8"}, "tokens_dtype"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    from tokcli.checking import check
    from tokcli.pipeline.export.settings import ExportSettings

    with pytest.raises(RecipeError, match=message):
        check(ExportSettings, {"cache": "a", "output": "b", **settings}, "export")


def test_items_are_chosen_in_the_order_of_the_cache(odd_cache: Path, tmp_path: Path) -> None:
    def chosen(**settings: Any) -> list[str]:
        run(odd_cache, tmp_path / "out", "safetensors", overwrite=True, **settings)
        index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
        return [entry["id"] for entry in index["items"]]

    assert chosen(ids=["con,clips/a.mp4"]) == [IDS[0], "con"]
    assert chosen(where="label = 'cat 1'") == [IDS[1]]
    assert chosen(where="kept_tokens > 0", limit=3) == list(IDS[:3])
    with pytest.raises(UsageError, match="no item 'nothing'"):
        chosen(ids=["nothing"])
    with pytest.raises(UsageError, match="no item to export"):
        chosen(where="kind = 'image'")


def test_the_command(odd_cache: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["export", str(odd_cache), "-o", str(tmp_path / "out"), "-f", "webdataset", "--json"])
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["items"], summary["files"], summary["positions"]) == (5, 2, {"exact": 5})
    table = json.loads(runner.invoke(app, ["export", "--table", "--json"]).stdout)["cases"]
    own = json.loads(runner.invoke(app, ["export", str(odd_cache), "--table", "--json"]).stdout)["cases"]
    assert own == [case for case in table if case["family"] == "qwen2_5_vl"]
    drawn = runner.invoke(app, ["export", "--table"]).stdout
    assert {"compact", "--allow-approx-positions", "gemma3"} <= {*drawn.replace(",", " ").split()}
    for arguments in (["export"], ["export", str(odd_cache)]):
        assert isinstance(runner.invoke(app, arguments).exception, UsageError)


def test_what_was_replaced_is_put_back_whatever_the_folder_is_called(odd_cache: Path, tmp_path: Path) -> None:
    """An export of another folder, whose name the brackets would match as a pattern, is left alone."""
    run(odd_cache, tmp_path / "out[1]", "safetensors")
    (tmp_path / "out[1]").rename(tmp_path / ".out[1].tmp-0-old")  # killed between the two renames
    (tmp_path / ".out1.tmp-0-old").mkdir()
    with pytest.raises(UsageError, match="holds an export already"):
        run(odd_cache, tmp_path / "out[1]", "safetensors")
    assert names(tmp_path) == [".out1.tmp-0-old", "out[1]"]
