"""What the bundled model knows survives real codecs: clips are encoded to files and decoded again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nano_native import answer, medium_of_frames

from tokcli.media import Limits, Sampling, open_media, write_video
from tokcli.synthetic import make_scene, questions, render_frames

UNSEEN = 500_000

Options = dict[str, str] | None


def ask_through_file(path: Path, seed: int, options: Options = None) -> Iterator[tuple[str, bool]]:
    """Encode a clip, decode it at one frame a second, ask a question of each kind: (kind, right)."""
    scene = make_scene("short", seed)
    write_video(path, render_frames(scene), scene.fps, options=options)
    with open_media(str(path), sampling=Sampling(fps=1.0), limits=Limits()) as reader:
        frames = np.concatenate([chunk.pixels for chunk in reader.chunks(8)])
    medium = medium_of_frames("video", frames, 1.0)
    last_of_kind = {question.kind: question for question in questions(scene, seed)}
    for question in (last_of_kind[kind] for kind in ("color", "shape", "motion", "count")):
        yield question.kind, answer(medium, question.question) == question.answer


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        pytest.param(".mp4", {"crf": "18"}, id="h264 fine", marks=pytest.mark.long),
        pytest.param(".mp4", {"crf": "30"}, id="h264 coarse"),
        pytest.param(".webm", None, id="vp9"),
        pytest.param(".mkv", None, id="mkv"),
        pytest.param(".avi", None, id="mpeg4"),
    ],
)
def test_answers_hold_on_encoded_clips(tmp_path: Path, suffix: str, options: Options) -> None:
    rights = [
        right
        for seed in range(UNSEEN, UNSEEN + 10)
        for _, right in ask_through_file(tmp_path / f"{seed}{suffix}", seed, options)
    ]
    assert len(rights) == 40
    assert sum(rights) >= 38


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_95_of_100_answers_of_each_kind_on_500_encoded_clips(tmp_path: Path) -> None:
    rights: dict[str, list[bool]] = {kind: [] for kind in ("color", "shape", "motion", "count")}
    for seed in range(UNSEEN, UNSEEN + 500):
        suffix = (".mp4", ".webm", ".mkv")[seed % 3]
        for kind, right in ask_through_file(tmp_path / f"clip{suffix}", seed):
            rights[kind].append(right)
    shares = {kind: sum(hits) / len(hits) for kind, hits in rights.items()}
    assert min(shares.values()) >= 0.95, shares
