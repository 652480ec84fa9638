"""CPU seconds of decoding, as ratios to what the ffmpeg program needs to decode the same files.

    python -m bench.decode [--fps 1] [--repeats 3] [--json] [FILE ...]

Without files: the clips in the folder ``video`` of $TOKCLI_MEDIA, or clips rendered on the spot where there is none.
The reference is ``ffmpeg -threads 1 -i FILE -an -f null -``. Starting that program costs as much as decoding a second
or two of small video, so ratios are given with its start (``ratios``) and without (``ratios_without_start``: stricter).
The ways deliver RGB frames at a size that a vision tower would take: ``naive`` converts every frame and then picks,
``linear`` decodes every frame and converts the wanted ones, ``short`` is what ``open_media`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from tokcli.media import Limits, Sampling, write_video
from tokcli.media.video_pyav import open_pyav
from tokcli.types import MediaInfo

FACTOR = 28
MOST_PIXELS = 448 * 448


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table, or one JSON document with ``--json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.decode", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3, help="alternating runs; the median counts")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if shutil.which("ffmpeg") is None:
        print("the ffmpeg program is needed as the reference and was not found", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        files = chosen.files or _real_clips() or _rendered_clips(Path(folder))
        result = measure(files, chosen.fps, chosen.repeats)
    if chosen.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


def measure(files: Sequence[Path], fps: float, repeats: int) -> dict[str, object]:
    """Medians of CPU seconds a file and way, and their ratios to ffmpeg's, by file and over all."""
    sampling = Sampling(fps=fps)
    ways: dict[str, Callable[[Path], None]] = {
        "ffmpeg": _ffmpeg,
        "naive": lambda file: _naive(file, sampling),
        "linear": lambda file: _tokcli(file, sampling, short=False),
        "short": lambda file: _tokcli(file, sampling, short=True),
    }
    seconds: dict[str, dict[str, float]] = {}
    for file in files:
        runs: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, action in ways.items():
                before = _cpu_seconds()
                action(file)
                runs[way].append(_cpu_seconds() - before)
        seconds[file.name] = {way: statistics.median(values) for way, values in runs.items()}
    start = _start_seconds()
    net = {name: {**row, "ffmpeg": max(row["ffmpeg"] - start, 1e-3)} for name, row in seconds.items()}
    total, net_total = ({way: sum(row[way] for row in rows.values()) for way in ways} for rows in (seconds, net))
    return {
        "fps": fps,
        "files": len(files),
        "ffmpeg_cpu_seconds": round(total["ffmpeg"], 3),
        "ffmpeg_start_cpu_seconds": round(start, 4),
        "ratios": _ratios(total),
        "ratios_without_start": _ratios(net_total),
        "by_file_without_start": {name: _ratios(row) for name, row in net.items()},
    }


def _ratios(row: dict[str, float]) -> dict[str, float]:
    return {way: round(value / row["ffmpeg"], 3) for way, value in row.items() if way != "ffmpeg"}


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _ffmpeg(file: Path) -> None:
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-threads", "1", "-i", str(file), "-an", "-f", "null", "-"]
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL)


def _start_seconds() -> float:
    """CPU seconds of an ffmpeg that has nothing to do; the median of nine."""
    runs = []
    for _ in range(9):
        before = _cpu_seconds()
        subprocess.run(["ffmpeg", "-v", "quiet", "-version"], check=False, stdout=subprocess.DEVNULL)
        runs.append(_cpu_seconds() - before)
    return statistics.median(runs)


def _naive(file: Path, sampling: Sampling) -> None:
    with av.open(str(file)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_count = 1
        frames = [(frame.time, _shrunk(frame.to_ndarray(format="rgb24"))) for frame in container.decode(stream)]
    step = 1 / (sampling.fps or 1)
    [frames[0]] + [frame for last, frame in pairwise(frames) if last[0] // step != frame[0] // step]


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """A small part of the frame, so that a clip's frames fit in memory; costs nothing."""
    return pixels[:8, :8].copy()


def _tokcli(file: Path, sampling: Sampling, *, short: bool) -> None:
    with open_pyav(str(file), sampling, Limits(), _tower_size, short=short) as reader:
        for _ in reader.chunks(8):
            pass


def _tower_size(info: MediaInfo) -> tuple[int, int]:
    """Multiples of a patch pair, the area bounded, the shape kept as far as that allows."""
    scale = min(1.0, (MOST_PIXELS / (info.width * info.height)) ** 0.5)
    height, width = (max(round(side * scale / FACTOR), 1) * FACTOR for side in (info.height, info.width))
    return height, width


def _real_clips() -> list[Path]:
    folder = Path(os.environ.get("TOKCLI_MEDIA", Path(__file__).resolve().parents[2] / "shared" / "media")) / "video"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _rendered_clips(folder: Path) -> list[Path]:
    """Ten seconds at 25 fps of a texture that drifts under a moving square, in three containers."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(60, 200, (60, 100, 3)), np.ones((12, 12, 1))).astype(np.uint8)

    def frames() -> list[np.ndarray]:
        result = []
        for number in range(250):
            frame = texture[number // 4 : number // 4 + 480, number : number + 640].copy()
            frame[200:280, 2 * number : 2 * number + 80] = (220, 40, 40)
            result.append(frame)
        return result

    files = [folder / name for name in ("rendered.mp4", "rendered.mkv", "rendered.webm")]
    for file in files:
        write_video(file, frames(), 25)
    return files


def _print(result: dict[str, object]) -> None:
    rows: dict[str, dict[str, float]] = {
        **result["by_file_without_start"],  # type: ignore[dict-item]
        "ALL": result["ratios_without_start"],
        "ALL, against ffmpeg with its start": result["ratios"],
    }
    print(f"CPU seconds of decoding at {result['fps']} fps, ffmpeg -threads 1 without its start = 1.00")
    print(f"{'':50}{'naive':>8}{'linear':>8}{'short':>8}")
    for name, row in rows.items():
        print(f"{name[:48]:50}" + "".join(f"{row[way]:8.2f}" for way in ("naive", "linear", "short")))


if __name__ == "__main__":
    sys.exit(main())
