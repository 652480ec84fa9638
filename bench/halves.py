"""Peak memory of opening one half of a checkpoint against the half's own bytes: the other half must not be read.

Each half is opened, and every weight of it read, in a process of its own. Its peak is counted from when torch,
transformers and the model's code are loaded; the whole model opened by transformers stands beside it.

    python -m bench.halves [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.checkpoint import make_checkpoint

TARGET = 1.15
PROGRAM = """
import sys
from bench.peak import peak_bytes
from tokcli.models import load_language_model, load_tower, resolve_checkpoint
from transformers import AutoModelForImageTextToText
half, folder = sys.argv[1:]
def whole(folder, device):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
load = {"tower": load_tower, "language model": load_language_model, "whole": whole}[half]
load(str(resolve_checkpoint("nano")), device="cpu")  # code that is imported on first use, and a small model's weights
before = peak_bytes()
opened = load(folder, device="cpu")
for weight in getattr(opened, "model", opened).parameters():
    weight.sum()  # files are mapped: a weight takes memory when it is read
print(peak_bytes() - before)
"""


def growth_of(half: str, folder: Path) -> int:
    """Growth of the process's peak memory (Linux) by opening ``half`` of the checkpoint."""
    command = [sys.executable, "-c", PROGRAM, half, str(folder)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure() -> dict[str, dict[str, float]]:
    """Peak and size in MiB by half, and their ratio."""
    from tokcli.models import describe_model

    with tempfile.TemporaryDirectory() as name:
        folder = make_checkpoint(Path(name), large_language_model=True)
        checkpoint = describe_model(str(folder))["checkpoint"]
        sizes = {"tower": checkpoint["tower_bytes"], "language model": checkpoint["language_bytes"]}
        sizes["whole"] = sum(sizes.values())
        result = {}
        for half, size in sizes.items():
            peak = growth_of(half, folder)
            result[half] = {"peak": peak / 2**20, "size": size / 2**20, "ratio": peak / size}
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.halves", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    result = measure()
    if chosen.json:
        print(json.dumps(result))
        return 0
    print(f"peak memory of opening one half (target: at most {TARGET} of its own bytes)")
    for half, row in result.items():
        print(f"  {half:15} peak {row['peak']:6.0f} MiB   size {row['size']:6.0f} MiB   ratio {row['ratio']:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
