"""The configuration decides what may be resumed; folders that are not caches are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cache_common import make_item, make_manifest, parts, write_cache

from tokcli.cache import CacheWriter, Manifest, open_cache
from tokcli.errors import CacheConflictError, CacheError, IntegrityError, TokcliError, UsageError


def test_versions_are_information_the_rest_is_configuration() -> None:
    manifest = make_manifest(information={"inputs": ["clips"]})
    assert manifest.configuration["model"] == {"model": "nano", "fingerprint": "f" * 64, "dtype": "bfloat16"}
    assert manifest.information == {"model_versions": {"torch_version": "2.9"}, "inputs": ["clips"]}


def test_written_and_read_back(tmp_path: Path) -> None:
    manifest = make_manifest(sampling={"sizes": (1, 2)})
    write_cache(tmp_path, manifest=manifest)
    assert open_cache(tmp_path).manifest == manifest
    stored = json.loads((tmp_path / "manifest.json").read_text())
    assert stored["format"] == 1
    assert stored["configuration"]["sampling"] == {"sizes": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"model": {"model": "nano", "fingerprint": "f" * 64, "dtype": "bfloat16", "torch_version": "3.0"}}, []),
        ({"model": {"model": "./copy", "fingerprint": "f" * 64, "dtype": "bfloat16"}}, []),
        (
            {"model": {"model": "./copy", "fingerprint": "e" * 64, "dtype": "float32"}},
            ['model: "nano" in the cache, "./copy" asked for'],
        ),
        (
            {"model": {"model": "nano", "fingerprint": "e" * 64, "dtype": "float32"}},
            [f'model.fingerprint: "{"f" * 64}" in the cache, "{"e" * 64}" asked for'],
        ),
        (
            {"model": {"model": "nano", "fingerprint": "f" * 64, "dtype": "float32"}, "tokens_dtype": "int8"},
            [
                'model.dtype: "bfloat16" in the cache, "float32" asked for',
                'codec: "float16" in the cache, "int8" asked for',
            ],
        ),
        (
            {"method": {"name": "dtd", "options": {"threshold": 0.3}}},
            ["method.options.threshold: 0.5 in the cache, 0.3 asked for"],
        ),
        (
            {"method": {"name": "dtd", "options": {}}, "seed": 1},
            [
                "method.options: nothing in the cache, {} asked for",
                "method.options.threshold: 0.5 in the cache, nothing asked for",
                "seed: 0 in the cache, 1 asked for",
            ],
        ),
        (
            {"sampling": {"fps": None, "num_frames": 8}},
            [
                "sampling.fps: 1.0 in the cache, null asked for",
                "sampling.num_frames: null in the cache, 8 asked for",
            ],
        ),
    ],
)
def test_differences(changes: dict[str, Any], expected: list[str]) -> None:
    assert make_manifest().differences(make_manifest(**changes)) == expected


def test_a_method_in_the_place_of_another_is_one_difference() -> None:
    def made_with(*methods: tuple[str, dict[str, Any]]) -> Manifest:
        named = [{"name": name, "options": options} for name, options in methods]
        return make_manifest(method={"methods": named})

    dtd, evs = ("dtd", {"keep": 0.1, "threshold": 0.5}), ("evs", {"keep": 0.1})
    assert made_with(dtd).differences(made_with(evs)) == ['method.methods.0: "dtd" in the cache, "evs" asked for']
    assert made_with(dtd).differences(made_with(dtd, evs)) == [
        'method.methods.1: nothing in the cache, "evs" asked for'
    ]
    assert made_with(dtd).differences(made_with(("dtd", {"keep": 0.2, "threshold": 0.5}))) == [
        "method.methods.0:dtd.options.keep: 0.1 in the cache, 0.2 asked for"
    ]


def test_another_configuration_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CacheConflictError) as caught:
        CacheWriter(tmp_path, make_manifest(method={"name": "dtd", "options": {"threshold": 0.3}}))
    assert caught.value.exit_code == 4
    assert "\n  method.options.threshold: 0.5 in the cache, 0.3 asked for\n" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_flag_that_asks_for_what_the_cache_has_is_named(tmp_path: Path) -> None:
    def of(method: str, model: str = "nano", codec: str = "int8") -> Manifest:
        identity = {"model": model, "fingerprint": model * 9, "dtype": "bfloat16"}
        return make_manifest(model=identity, method={"methods": [{"name": method, "options": {}}]}, tokens_dtype=codec)

    write_cache(tmp_path, make_item(), manifest=of("none", codec="float16"))
    for asked, flag in (
        (of("dtd"), " (--method none)"),  # the codec follows from it
        (of("none"), " (--codec float16)"),
        (of("dtd", "other"), " (--model nano)"),
    ):
        with pytest.raises(CacheConflictError) as caught:
            CacheWriter(tmp_path, asked)
        assert f"ask for the same{flag}, or replace" in str(caught.value)
    # The same weights by another name are no difference, and not what is to be changed.
    copied = {"model": "./copy", "fingerprint": "nano" * 9, "dtype": "bfloat16"}
    moved = make_manifest(model=copied, method=of("dtd").configuration["method"], tokens_dtype="float16")
    with pytest.raises(CacheConflictError, match=r"ask for the same \(--method none\), or"):
        CacheWriter(tmp_path, moved)


def test_the_first_manifest_stays(tmp_path: Path) -> None:
    first = make_manifest()
    write_cache(tmp_path, make_item("a"), manifest=first)
    newer = make_manifest(model={"model": "elsewhere/nano", "fingerprint": "f" * 64, "dtype": "bfloat16"})
    write_cache(tmp_path, make_item("b"), manifest=newer)
    cache = open_cache(tmp_path)
    assert cache.manifest == first
    assert cache.ids() == ["a", "b"]


def test_overwrite_deletes_what_the_cache_wrote_and_nothing_else(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item("a"), make_item("b"), max_shard_items=1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "data" / "mine.parquet").write_text("mine too")
    manifest = make_manifest(seed=7)
    write_cache(tmp_path, make_item("c"), manifest=manifest, overwrite=True)
    (tmp_path / "data" / "mine.parquet").unlink()
    cache = open_cache(tmp_path)
    assert cache.ids() == ["c"]
    assert cache.manifest == manifest
    assert len(parts(tmp_path)) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "holiday.mp4").write_text("precious")
    with pytest.raises(UsageError, match=r"is not a token cache and holds other files \(holiday.mp4\)"):
        CacheWriter(tmp_path, make_manifest(), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ['{"name": "my web app"}', '["x"]', '{"format": "x", "tokcli": "1"}'])
def test_another_programs_manifest_is_left_alone(tmp_path: Path, content: str, overwrite: bool) -> None:
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-000001-aaaaaaaa.parquet").write_text("precious")
    with pytest.raises(CacheError, match="is not the manifest of a token cache"):
        CacheWriter(tmp_path, make_manifest(), overwrite=overwrite)
    assert (tmp_path / "manifest.json").read_text() == content
    assert parts(tmp_path) == ["part-000001-aaaaaaaa.parquet"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UsageError, match="is a file; name a folder"):
        CacheWriter(tmp_path / "cache", make_manifest())


def test_what_a_killed_start_leaves_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / ".tmp-0123").write_text("half a manifest")
    write_cache(tmp_path, make_item())
    assert not (tmp_path / ".tmp-0123").exists()
    assert len(open_cache(tmp_path)) == 1


@pytest.mark.parametrize("opens", [open_cache, lambda path: CacheWriter(path, make_manifest(), overwrite=True)])
def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path, opens: Any) -> None:
    write_cache(tmp_path, make_item())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(CacheError, match=r"has cache format 2 .*reads formats up to 1: upgrade tokcli"):
        opens(tmp_path)
    assert len(parts(tmp_path)) == 1


@pytest.mark.parametrize("content", ["", '{"format": 1, "tok', '{"format": 1, "tokcli": "0.1"}'])
def test_a_damaged_manifest(tmp_path: Path, content: str) -> None:
    write_cache(tmp_path, make_item())
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"manifest.json is damaged"):
        open_cache(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "file", "empty"])
def test_opening_what_is_no_cache(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        CacheError, match=r"is not a token cache: no manifest.json in it; name the folder that"
    ) as caught:
        open_cache(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_second_writer_is_told_who_is_at_it(tmp_path: Path) -> None:
    import os

    with CacheWriter(tmp_path, make_manifest()):
        with pytest.raises(CacheError, match=rf"is being written by process {os.getpid()} on ") as caught:
            CacheWriter(tmp_path, make_manifest(), overwrite=True)
        assert caught.value.exit_code == 2
    CacheWriter(tmp_path, make_manifest()).close()


def test_a_failed_opening_gives_the_lock_back(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item())
    with pytest.raises(TokcliError):
        CacheWriter(tmp_path, make_manifest(seed=1))
    CacheWriter(tmp_path, make_manifest()).close()


def test_a_manifest_holds_json_only() -> None:
    with pytest.raises(TypeError):
        Manifest({"path": Path("x")})
    with pytest.raises(ValueError, match="JSON"):
        Manifest({"threshold": float("nan")})
