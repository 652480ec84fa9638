"""What the scripts that train and evaluate ``nano`` and ``nano_clip`` share: flags, a clock, stages that are kept."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from tokcli.models.placement import fast_in_bfloat16, pick_device

Tables = Callable[[Any, Path, int], Iterable[str]]
"""Gives lines of Markdown for a model, the folder that it is from, and a number of unseen scenes."""


def training_parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of every training script."""
    parser = _parser(description)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"checkpoint folder to write (default {out})")
    parser.add_argument("--device", default="auto", help="default: cuda where there is one, else cpu")
    parser.add_argument("--work", type=Path, help="folder that keeps finished stages for the next run")
    return parser


def run_training(parser: argparse.ArgumentParser, train: Callable[..., None], tables: Tables) -> None:
    """Train, then print the tables; flags that only one script has go to its ``train`` by their names."""
    options = vars(parser.parse_args())
    threads, scenes = options.pop("threads"), options.pop("scenes")
    _use_threads(threads)
    if options["work"]:
        options["work"].mkdir(parents=True, exist_ok=True)
    options["device"] = str(pick_device(options["device"]))
    start = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)

    train(**options, log=log)
    _print_tables(tables, options["out"], scenes, options["device"])


def run_evaluation(description: str | None, checkpoint: Path, tables: Tables) -> None:
    """Print the tables of the checkpoint that is named, of ``checkpoint`` if none is."""
    parser = _parser(description)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=checkpoint)
    options = parser.parse_args()
    _use_threads(options.threads)
    _print_tables(tables, options.checkpoint, options.scenes, "cpu")


def run_stage(
    name: str, stage: Callable[[], Any], *, work: Path | None, device: str, log: Callable[[str], None]
) -> Any:
    """Return what ``stage`` gives, from a file in ``work`` if an earlier run has left it there."""
    file = work / f"{name}.pt" if work else None
    if file and file.exists():
        log(f"{name} taken from {file.name}")
        # The bank is no tensor; the files are this script's own.
        return torch.load(file, map_location=device, weights_only=False)
    log(name)
    result = stage()
    if file:
        torch.save(result, file)
    return result


def autocast_on(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return what opens a context that computes in bfloat16 where the device is fast in it."""
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=fast_in_bfloat16(device))


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="unseen clips and stills to measure on (default 2000)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    return parser


def _use_threads(threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)


def _print_tables(tables: Tables, checkpoint: Path, scenes: int, device: str) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).to(device)
    for line in tables(model, checkpoint, scenes):
        print(line, flush=True)
