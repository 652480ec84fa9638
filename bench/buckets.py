"""Inputs and caches in a bucket against a folder, on the same clips: an S3-compatible server on loopback (moto's).

Loopback has no latency worth the name, and the server is Python on the same cores: the ratio is an upper bound of what
the client costs, requests and bytes are what any server would see. Needs the extra ``dev``.

    python -m bench buckets [--clips 6] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokcli.cache import open_cache
from tokcli.pipeline.compress import compress
from tokcli.pipeline.render import render
from tokcli.recipe import CompressRecipe, RenderRecipe

sys.path.append(str(Path(__file__).parents[1] / "tests" / "storage"))


def main(argv: list[str] | None = None) -> None:
    """Print seconds of each, their ratios, and requests and bytes for each item."""
    parser = argparse.ArgumentParser(prog="python -m bench buckets", description=__doc__)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    import fsspec
    from s3_server import empty_bucket, serving, variables

    with serving() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= variables(server)
        empty_bucket(server)
        clips = Path(folder) / "clips"
        render(RenderRecipe(output=str(clips), count=options.clips, seed=3))
        media = [path for path in clips.iterdir() if path.suffix != ".jsonl"]
        for path in media:
            fsspec.filesystem("s3").put_file(str(path), f"bucket/clips/{path.name}")
        places = {"folder": (str(clips), f"{folder}/cache"), "bucket": ("s3://bucket/clips/", "s3://bucket/cache")}
        result: dict[str, dict[str, Any]] = {}
        _compress(places["folder"][0], f"{folder}/warm-up")
        for name, (inputs, cache) in places.items():
            for what, call in {
                "compress": lambda: _compress(inputs, cache),  # noqa: B023 - called at once
                "resume": lambda: _compress(inputs, cache),  # noqa: B023
                "read": lambda: list(open_cache(cache)),  # noqa: B023
            }.items():
                server.forget()
                result.setdefault(what, {})[name] = _seconds(call)
                # What stays is of the last place, the bucket.
                result[what]["requests"] = dict(server.counts())
                result[what]["bytes_sent"] = server.sent
        items = len(open_cache(f"{folder}/cache"))
    for told in result.values():
        told["ratio"] = told["bucket"] / told["folder"]
        told["requests_per_item"] = sum(told["requests"].values()) / items
    if options.json:
        print(json.dumps({"items": items, "media_bytes": sum(path.stat().st_size for path in media), **result}))
        return
    for what, told in result.items():
        asked = ", ".join(f"{count} {method}" for method, count in sorted(told["requests"].items()))
        print(
            f"{what:9} folder {told['folder']:6.2f} s  bucket {told['bucket']:6.2f} s  ratio {told['ratio']:5.2f}  "
            f"{told['requests_per_item']:.1f} requests an item ({asked})  {told['bytes_sent']:,} bytes sent"
        )


def _compress(inputs: str, cache: str) -> None:
    compress(CompressRecipe(inputs=[inputs], output=cache, method="none", dtype="float32", workers=1))


def _seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
