"""Media behind URLs: the same items as from folders, with as few requests as that takes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import pytest

from tokcli.cache import open_cache
from tokcli.errors import UsageError
from tokcli.media import scan_inputs
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe
from tokcli.storage.scratch import PREFIX, scratch_folder

MEDIA = r"^/bucket/videos/"
LISTINGS = r"list-type"


@pytest.fixture
def videos(s3, clips: Path) -> list[str]:
    """URLs of three clips, beside things that are no media."""
    s3_files = fsspec.filesystem("s3")
    names = sorted(path.name for path in clips.iterdir() if path.suffix in (".mp4", ".webm", ".mkv"))[:3]
    for name in names:
        s3_files.put_file(str(clips / name), f"bucket/videos/{name}")
    for name in ("notes.txt", ".hidden.mp4", ".cache/x.mp4"):
        s3_files.pipe_file(f"bucket/videos/{name}", b"no media")
    s3_files.pipe_file("bucket/elsewhere/y.mp4", b"not asked for")
    s3.forget()
    return [f"s3://bucket/videos/{name}" for name in names]


def recipe(inputs: list[str], output: Path, **how: object) -> CompressRecipe:
    return CompressRecipe(inputs=inputs, output=str(output), method="dtd", workers=1, dtype="float32", **how)


def tokens(cache: Path) -> dict[str, bytes]:
    """By the last part of the id: the tokens with their coordinates, as bytes."""
    return {
        Path(item.id).name: item.kept.tokens.numpy().tobytes() + item.kept.coords.numpy().tobytes()
        for item in open_cache(cache)
    }


def test_a_folder_is_listed_once_and_nothing_else_is_asked(s3, videos):
    found = scan_inputs(["s3://bucket/videos/"])
    assert [item.id for item in found.items] == videos == [item.path for item in found.items]
    assert found.passed_over == 1
    assert all(item.size_bytes > 0 and item.modified_ns > 0 for item in found.items)
    assert s3.counts() == {"GET": 1}
    assert re.search("prefix=videos", s3.requests[0][1])


def test_patterns_objects_and_folders_without_slash(s3, videos):
    assert [item.id for item in scan_inputs(["s3://bucket/videos/*.webm"]).items] == [
        url for url in videos if url.endswith(".webm")
    ]
    assert [item.id for item in scan_inputs(["s3://bucket/vid*"]).items] == videos
    assert [item.id for item in scan_inputs([videos[0], videos[0]]).items] == [videos[0]]
    assert [item.id for item in scan_inputs(["s3://bucket/videos"]).items] == videos
    assert not s3.counts("elsewhere")


def test_manifests_name_urls_and_lie_behind_them(s3, videos, tmp_path):
    local = tmp_path / "list.csv"
    local.write_text("path,label\n" + "".join(f"{url},{number}\n" for number, url in enumerate(videos)))
    found = scan_inputs([str(local)])
    assert [(item.id, item.metadata["label"]) for item in found.items] == [(url, n) for n, url in enumerate(videos)]
    lines = [f'{{"path": "videos/{Path(url).name}", "id": "{n}"}}\n' for n, url in enumerate(videos)]
    lines.append('{"path": "videos/gone.mp4", "id": "gone"}\n')
    fsspec.filesystem("s3").pipe_file("bucket/list.jsonl", "".join(lines).encode())
    found = scan_inputs(["s3://bucket/list.jsonl"], id_col="id")
    assert [(item.id, item.path) for item in found.items] == [(str(n), url) for n, url in enumerate(videos)]
    assert [failure.id for failure in found.failures] == ["gone"]
    assert "s3://bucket/videos/gone.mp4" in found.failures[0].message


def test_a_manifest_of_many_objects_lists_their_folder(s3, videos, tmp_path):
    local = tmp_path / "list.csv"
    more = [f"s3://bucket/videos/none-{number}.mp4" for number in range(20)]
    local.write_text("path\n" + "\n".join([*videos, *more]))
    found = scan_inputs([str(local)])
    assert (len(found.items), len(found.failures)) == (3, 20)
    assert s3.counts() == {"GET": 1}


@pytest.mark.parametrize(
    "given, said",
    [
        ("s3://bucket/nothing.mp4", "no such object or folder"),
        ("s3://nobucket/videos/", "bucket does not exist"),
        ("s3://bucket/nothing/", "no media found in s3://bucket/nothing/"),
        ("s3://bucket/*.mov", "no media matches"),
        ("gs://bucket/a.mp4", "not installed: .*gcsfs"),
    ],
)
def test_what_is_not_there_is_one_line(s3, videos, given, said):
    with pytest.raises(UsageError, match=said) as caught:
        scan_inputs([given])
    assert "\n" not in str(caught.value)


def test_a_refusal_is_one_line_and_not_tried_again(s3, videos):
    s3.refuse = lambda method, path: 403
    with pytest.raises(UsageError, match=r"refuses it \(AccessDenied for the test\); check the credentials"):
        scan_inputs(["s3://bucket/videos/"])
    assert s3.counts() == {"GET": 1}


def test_without_the_package_one_line_says_what_to_install():
    code = "import sys; sys.modules['s3fs'] = None; from tokcli.media import scan_inputs; scan_inputs(['s3://b/a.mp4'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip().splitlines()[-1].endswith("is not installed: pip install 'tokcli[s3]'")


def test_the_same_cache_as_from_the_folder_one_request_an_item_and_nothing_on_resume(
    s3, videos, clips, tmp_path, monkeypatch
):
    scratch_folder()  # that of this process, where its decoders' socket is, stays as long as it does
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))  # other workers of the suite have copies of their own
    summary = compress(recipe(["s3://bucket/videos/"], tmp_path / "remote"))
    assert (summary.done, summary.failed) == (3, 0)
    assert s3.counts(MEDIA) == {"GET": 3}
    assert s3.counts(LISTINGS) == {"GET": 1}
    compress(recipe([str(clips / Path(url).name) for url in videos], tmp_path / "local"))
    assert tokens(tmp_path / "remote") == tokens(tmp_path / "local")
    table = open_cache(tmp_path / "remote").table(["id", "path"]).to_pylist()
    assert sorted(row["path"] for row in table) == sorted(row["id"] for row in table) == videos
    assert list(temporary.glob(f"{PREFIX}*")) == []

    s3.forget()
    again = compress(recipe(["s3://bucket/videos/"], tmp_path / "remote"))
    assert (again.done, again.skipped) == (0, 3)
    assert s3.counts() == {"GET": 1}

    # Written again with other bytes: redone. With the same bytes: read to be compared, and left.
    s3_files = fsspec.filesystem("s3")
    s3_files.put_file(str(clips / Path(videos[1]).name), videos[0])
    s3.forget()
    again = compress(recipe(["s3://bucket/videos/"], tmp_path / "remote"))
    assert (again.done, again.skipped) == (1, 2)
    changed = tokens(tmp_path / "remote")
    assert changed[Path(videos[0]).name] == changed[Path(videos[1]).name]


def test_failures_cost_one_item_each_and_are_told(s3, videos, clips, tmp_path):
    fsspec.filesystem("s3").pipe_file("bucket/videos/broken.mp4", b"not a video at all, but long enough to be read")
    s3.forget()
    tries = dict.fromkeys(videos, 0)

    def refuse(method: str, path: str) -> int | None:
        for number, url in enumerate(videos):
            if method == "GET" and path.startswith(f"/bucket/videos/{Path(url).name}"):
                tries[url] += 1
                # The first works at the third try; the second is gone; the third is always broken.
                return ((500 if tries[url] < 3 else None), 404, 500)[number]
        return None

    s3.refuse = refuse
    summary = compress(recipe(["s3://bucket/videos/"], tmp_path / "cache"))
    assert (summary.done, summary.failed) == (1, 3)
    rows = {row["id"]: row for row in open_cache(tmp_path / "cache").errors().to_pylist()}
    assert tries == {videos[0]: 3, videos[1]: 1, videos[2]: 4}
    gone, broken = rows[videos[1]], rows[videos[2]]
    assert (gone["stage"], gone["error_class"], gone["attempts"]) == ("fetch", "FileNotFoundError", 1)
    assert gone["message"].startswith(f"{videos[1]}: gone; it was there when it was listed")
    assert (broken["stage"], broken["attempts"]) == ("fetch", 4)
    assert "InternalError for the test" in broken["message"]
    no_video = rows["s3://bucket/videos/broken.mp4"]
    assert no_video["stage"] == "open" and PREFIX not in no_video["message"] + no_video["log_tail"]


def test_too_large_objects_are_not_fetched(s3, videos, tmp_path):
    summary = compress(recipe(["s3://bucket/videos/"], tmp_path / "cache", limits={"max_bytes": 10}))
    assert (summary.done, summary.failed) == (0, 3)
    assert s3.counts(MEDIA) == {}
    assert (
        "over the limit of 10; raise it with --limit-bytes"
        in open_cache(tmp_path / "cache").errors()["message"][0].as_py()
    )


def test_one_object_is_looked_into(s3, videos):
    from tokcli.errors import MediaError
    from tokcli.media import Limits, Sampling
    from tokcli.pipeline.decoder import Supervision
    from tokcli.pipeline.probing import diagnose_file

    def diagnose(url: str):
        return diagnose_file(url, Sampling(fps=1.0), Limits(), "auto", Supervision())

    found = diagnose(videos[0])
    assert found.sound and found.path == videos[0]
    broken = diagnose("s3://bucket/videos/notes.txt")
    assert not broken.sound and PREFIX not in (broken.reason or "")
    with pytest.raises(MediaError, match=r"s3://bucket/videos/gone\.mp4: cannot be read"):
        diagnose("s3://bucket/videos/gone.mp4")
