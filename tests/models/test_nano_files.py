"""What the bundled model knows survives real codecs: clips are encoded to files and decoded again."""

from pathlib import Path

import numpy as np
import pytest
from nano_native import answer, medium_of_frames

from tokcli.media import Limits, Sampling, open_media, write_video
from tokcli.synthetic import make_scene, questions, render_frames

UNSEEN = 800_000


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".mp4", {"crf": "18"}), (".mp4", {"crf": "30"}), (".webm", None), (".mkv", None), (".avi", None)],
    ids=["h264 fine", "h264 coarse", "vp9", "mkv", "mpeg4"],
)
def test_answers_hold_on_encoded_clips(tmp_path: Path, suffix: str, options: dict[str, str] | None) -> None:
    right, asked = 0, 0
    for seed in range(UNSEEN, UNSEEN + 15):
        scene = make_scene("static", seed)
        path = str(tmp_path / f"{seed}{suffix}")
        write_video(path, render_frames(scene), scene.fps, options=options)
        with open_media(path, sampling=Sampling(fps=1.0), limits=Limits()) as reader:
            frames = np.concatenate([chunk.pixels for chunk in reader.chunks(8)])
        medium = medium_of_frames("video", frames, 1.0)
        for question in questions(scene, seed)[-4:]:
            asked += 1
            right += answer(medium, question.question) == question.answer
    assert asked == 60
    assert right >= 54
