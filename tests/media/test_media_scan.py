"""Inputs to items: what is taken, what it is called, what is said about the rest."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokcli.errors import UsageError
from tokcli.media import scan_inputs


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with media, litter and traps; the working directory lies above it."""
    for name in ["b.mp4", "a.JPG", "sub/c.webm", "sub/deep/d.png", "te[s]t_ ' _ .flv", "x.txt", "y.json"]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + name.encode())
    for name in [".DS_Store", "._b.mp4", ".hidden/e.mp4"]:
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"litter")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def ids(inputs, **how):
    return [item.id for item in scan_inputs(inputs, **how).items]


def test_folders_are_walked_sorted_and_without_litter(tree):
    assert ids(["data"]) == [
        "data/a.JPG",
        "data/b.mp4",
        "data/sub/c.webm",
        "data/sub/deep/d.png",
        "data/te[s]t_ ' _ .flv",
    ]
    assert ids(["./data/"]) == ids(["data"])
    item = scan_inputs(["data/b.mp4"]).items[0]
    assert item.size_bytes == len(b"content of b.mp4")
    assert item.modified_ns == (tree / "b.mp4").stat().st_mtime_ns


def test_a_named_file_is_always_taken(tree):
    assert ids(["data/x.txt", "data/.DS_Store"]) == ["data/x.txt", "data/.DS_Store"]


def test_the_same_path_twice_is_one_item(tree):
    assert ids(["data/b.mp4", "./data/b.mp4", "data/../data/b.mp4"]) == ["data/b.mp4"]


def test_patterns(tree):
    assert ids(["data/*"]) == ids(["data"])
    assert ids(["data/**/*.png"]) == ["data/sub/deep/d.png"]
    assert ids(["data/?.txt"]) == ["data/x.txt"]
    with pytest.raises(UsageError, match="no media matches"):
        scan_inputs(["data/*.mov"])


def test_an_existing_path_is_never_a_pattern(tree):
    assert ids(["data/te[s]t_ ' _ .flv"]) == ["data/te[s]t_ ' _ .flv"]


@pytest.mark.parametrize(
    "given, said",
    [
        ("data/missing.mp4", "no such file"),
        ("nothing://bucket/a.mp4", "Protocol not known: nothing; known protocols: .*s3"),
        ("empty", "no media found in empty"),
    ],
)
def test_what_cannot_be_meant_stops_the_run(tree, given, said):
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("x")
    with pytest.raises(UsageError, match=said) as caught:
        scan_inputs([given])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_traps_in_a_folder_are_failures_beside_the_items(tree):
    os.mkfifo(tree / "pipe.mp4")
    (tree / "gone.mp4").symlink_to("nowhere")
    (tree / "loop.mp4").symlink_to("loop.mp4")
    (tree / "folder.mp4").mkdir()
    (tree / "sub" / "up").symlink_to(tree)
    result = scan_inputs(["data"])
    assert len(result.items) == 5
    said = {failure.id: failure.message for failure in result.failures}
    assert set(said) == {"data/pipe.mp4", "data/gone.mp4", "data/loop.mp4"}
    assert "plain file" in said["data/pipe.mp4"]
    assert "missing" in said["data/gone.mp4"]
    assert "symbolic links" in said["data/loop.mp4"]


def test_links_to_folders_are_followed(tree):
    Path("linked").symlink_to("data/sub")
    assert ids(["linked"]) == ["linked/c.webm", "linked/deep/d.png"]


def test_names_become_ids_that_are_unique_valid_utf8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [b"caf\xe9.mp4", b"caf\\xe9.mp4", b"-i.mp4", b"a\nb.mp4", "ü.mp4".encode(), b"end.mp4 "]:
        Path(os.fsdecode(name)).write_bytes(b"x")
    found = scan_inputs([".", os.fsdecode(b"end.mp4 ")]).items
    assert len({item.id for item in found}) == len(found) == 6
    for item in found:
        item.id.encode("utf-8")
        assert Path(item.path).exists()
    assert "caf\\xe9.mp4" in {item.id for item in found}


def write_manifest(folder: Path, kind: str, rows: list[dict]) -> str:
    path = folder / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [",".join(rows[0])] + [",".join(str(value) for value in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_words_that_others_take_for_nothing_are_words(tree):
    """NA is Namibia, and an answer may be "none" or "nan"; of numbers they do mean that there is none."""
    Path("list.csv").write_text(
        "path,key,country,score\ndata/b.mp4,NA,NA,NA\ndata/a.JPG,null,,0.5\ndata/sub/c.webm,k,DE,2\n"
    )
    result = scan_inputs(["list.csv"], id_col="key")
    assert not result.failures
    found = {item.id: item.metadata for item in result.items}
    assert found.pop("k") == {"country": "DE", "score": 2.0}
    assert found == {"NA": {"country": "NA", "score": None}, "null": {"country": None, "score": 0.5}}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests_carry_their_other_columns_with_types(tree, kind):
    rows = [
        {"path": "b.mp4", "key": "one", "label": "cat", "score": 0.5},
        {"path": "sub/c.webm", "key": "two", "label": "dog", "score": 2.0},
    ]
    manifest = write_manifest(tree, kind, rows)
    result = scan_inputs([manifest], id_col="key")
    assert [item.id for item in result.items] == ["one", "two"]
    assert [item.path for item in result.items] == [str(tree / "b.mp4"), str(tree / "sub/c.webm")]
    assert result.items[1].metadata == {"label": "dog", "score": 2.0}
    assert scan_inputs([manifest], columns=["label"]).items[0].metadata == {"label": "cat"}
    assert scan_inputs([manifest]).items[0].id == str(tree / "b.mp4")


def test_ids_and_paths_of_csv_stay_text(tree):
    (tree / "0012").write_bytes(b"x")
    (tree / "list.csv").write_text("path,key,n\n0012,007,3\n")
    item = scan_inputs(["data/list.csv"], id_col="key").items[0]
    assert (item.id, item.path, item.metadata) == ("007", "data/0012", {"n": 3})


def test_parquet_types_are_kept(tree):
    day = datetime.date(2024, 5, 1)
    pq.write_table(pa.table({"path": ["b.mp4"], "day": [day], "tags": [["a", "b"]]}), tree / "list.parquet")
    assert scan_inputs(["data/list.parquet"]).items[0].metadata == {"day": day, "tags": ["a", "b"]}


def test_a_bad_row_is_a_failure_and_the_rest_goes_on(tree):
    (tree / "list.jsonl").write_text(
        '{"path": "b.mp4", "id": 1}\n{"path": \n[1]\n{"id": 4}\n{"path": "gone.mp4", "id": 5}\n'
        '{"path": "nothing://x/y.mp4", "id": 6}\n{"path": "a.JPG", "id": 1}\n{"path": "a.JPG"}\n\n'
        '{"path": "a.JPG", "id": 9}\n'
    )
    result = scan_inputs(["data/list.jsonl"], id_col="id")
    assert [item.id for item in result.items] == ["1", "9"]
    said = [failure.message for failure in result.failures]
    for part, message in zip(
        ["row 2: not JSON", "row 3: not a JSON object", "row 4: 'path' is not a path", "gone.mp4: does not exist",
         "Protocol not known", "'1' was given before", "row 8: 'id' is empty"],
        said, strict=True,
    ):  # fmt: skip
        assert part in message
    assert len({failure.id for failure in result.failures}) == len(said)


def test_a_csv_row_of_the_wrong_width_is_a_failure(tree):
    (tree / "list.csv").write_text("path,label\nb.mp4,cat\na.JPG\nsub/c.webm,dog,7\nsub/deep/d.png,owl\n")
    result = scan_inputs(["data/list.csv"])
    assert [item.metadata["label"] for item in result.items] == ["cat", "owl"]
    assert ["row 2" in result.failures[0].message, "row 3" in result.failures[1].message] == [True, True]


@pytest.mark.parametrize(
    "content, how, said",
    [
        (b"path\nb.mp4\n", {"path_col": "file"}, "no column 'file'; its columns are path"),
        (b"path\nb.mp4\n", {"id_col": "key"}, "no column 'key'"),
        (b"path\nb.mp4\n", {"columns": ["label"]}, "no column 'label'"),
        (b"", {}, "cannot be read"),
        (b"path\n\xff\xfe\xfa.mp4\n", {}, "cannot be read"),
    ],
)
def test_an_unusable_manifest_stops_the_run(tree, content, how, said):
    (tree / "list.csv").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        scan_inputs(["data/list.csv"], **how)


def test_a_torn_parquet_manifest_stops_the_run(tree):
    (tree / "list.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UsageError, match="cannot be read"):
        scan_inputs(["data/list.parquet"])
