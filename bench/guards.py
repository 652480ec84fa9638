"""What page checksums, row checksums and fsync add to a run: what the writer takes with and without each.

The items of a run are written again, in turns, with all of it and without one; what one adds is the difference of the
least times, as a share of the run. The digest by which a footer names its pages is written in all of them.

    python -m bench.guards [--clips 60] [--fps 1] [--repeats 9] [--json]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

import tokcli.cache.shard
from bench.checkpoint import make_checkpoint
from bench.clips import clips_parser, recipe_of, videos
from bench.local import run_locally
from tokcli.cache import CacheWriter, open_cache

TARGET = 0.05


def _without_page_checksums() -> AbstractContextManager[Any]:
    usual = tokcli.cache.shard.writer_options

    def options(schema: pa.Schema) -> dict[str, Any]:
        return usual(schema) | {"write_page_checksum": False}

    return patch("tokcli.cache.shard.writer_options", options)


def _without_row_checksums() -> AbstractContextManager[Any]:
    return patch("tokcli.cache.encode.row_checksum", lambda *_: 0)


def _without_fsync() -> AbstractContextManager[Any]:
    return patch("os.fsync", lambda _: None)


GUARDS = {
    "page checksums": _without_page_checksums,
    "row checksums": _without_row_checksums,
    "fsync": _without_fsync,
}


def measure(clips: int, fps: float, repeats: int) -> dict[str, object]:
    """Shares of a run by guard, and of all together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(folder / "model")
        paths = videos(folder / "clips", clips)
        # As runs are by default: the faster the encoder, the larger the share.
        run = run_locally(recipe_of(paths, model, folder / "cache", fps, dtype="auto", method="dtd"))
        run_seconds = run.ended - run.work_began
        cache = open_cache(folder / "cache")
        items = list(cache)

        def write(left_out: Sequence[str]) -> float:
            with ExitStack() as stack:
                for guard in left_out:
                    stack.enter_context(GUARDS[guard]())
                started = time.perf_counter()
                with CacheWriter(folder / "again", cache.manifest, overwrite=True) as writer:
                    for item in items:
                        writer.write(item)
                return time.perf_counter() - started

        variants: dict[str, list[str]] = {"": [], **{name: [name] for name in GUARDS}, "all of them": list(GUARDS)}
        least = dict.fromkeys(variants, float("inf"))
        for _ in range(repeats):
            for variant, left_out in variants.items():
                least[variant] = min(least[variant], write(left_out))
    return {
        "clips": len(items),
        "run_seconds": round(run_seconds, 3),
        "write_seconds": round(least[""], 4),
        "added": {name: round((least[""] - least[name]) / run_seconds, 5) for name in variants if name},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = clips_parser("guards", __doc__)
    parser.set_defaults(clips=60, repeats=9)
    chosen = parser.parse_args(arguments)
    result = measure(chosen.clips, chosen.fps, chosen.repeats)
    if chosen.json:
        print(json.dumps(result))
        return 0
    print(
        f"added to a run of {result['clips']} clips: {result['run_seconds']} s, {result['write_seconds']} s of writing"
    )
    added = result["added"]
    assert isinstance(added, dict)
    for name, share in added.items():
        print(f"  {name:16} {share:8.3%}" + (f"   (target below {TARGET:.0%})" if name == "all of them" else ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
