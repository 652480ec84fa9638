"""Train the bundled sibling from nothing: ``python -m tokcli.models.nano_clip.train --out FOLDER``.

The tower and the projector first (``tower.py``), then a bank of clips that they have seen (``bank.py``), then the
language model on questions about those (``language.py``). Scenes, questions and loops are nano's. Seeds and numbers of
steps are fixed; rounding differs between machines, so weights agree closely and not to the bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from tokcli.models.nano.curriculum import ALL
from tokcli.models.nano.language import train_language
from tokcli.models.nano.optimizers import muon_and_adam
from tokcli.models.nano.tower import seed_embeddings
from tokcli.models.nano_clip.architecture import build_config, build_tokenizer, save
from tokcli.models.nano_clip.bank import build_bank
from tokcli.models.nano_clip.evaluate import tables
from tokcli.models.nano_clip.language import COURSE, draw_prompt
from tokcli.models.nano_clip.start import prepare_tower
from tokcli.models.nano_clip.tower import free_measures, train_tower
from tokcli.models.placement import fast_in_bfloat16


@dataclass(frozen=True)
class Length:
    """How long each stage is: steps, and clips in the bank."""

    tower: int = 1200
    bank: int = 3500
    language: int = 900


def train(
    out: Path,
    *,
    device: str,
    work: Path | None = None,
    length: Length | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train, and save a checkpoint in ``out``.

    ``work`` is a folder where the results of stages are kept: a run that finds one there does not repeat the stage.
    """
    length = length or Length()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = LlavaForConditionalGeneration(build_config(tokenizer)).to(device)
    seed_embeddings(model, tokenizer)
    free_measures(model)
    prepare_tower(model)

    def autocast() -> AbstractContextManager[None]:
        return torch.autocast(model.device.type, torch.bfloat16, enabled=fast_in_bfloat16(model.device))

    def snapshot() -> None:
        save(model, tokenizer, out)

    def stage(name: str, run: Callable[[], Any]) -> Any:
        file = work / f"{name}.pt" if work else None
        if file and file.exists():
            log(f"{name} taken from {file.name}")
            # The bank is no tensor; the files are this script's own.
            return torch.load(file, map_location=device, weights_only=False)
        log(name)
        result = run()
        if file:
            torch.save(result, file)
        return result

    def tower() -> dict[str, torch.Tensor]:
        train_tower(model, tokenizer, ALL, length.tower, log, autocast)
        return model.state_dict()

    def language() -> dict[str, torch.Tensor]:
        language, steps = model.model.language_model, length.language
        optimizers = muon_and_adam(
            language.layers.parameters(), [language.embed_tokens.weight, language.norm.weight], COURSE.peak, 0.05
        )
        train_language(model, tokenizer, bank, steps, log, autocast, snapshot, COURSE, draw_prompt, optimizers)
        return model.state_dict()

    model.load_state_dict(stage("tower", tower))
    bank = stage("bank", lambda: build_bank(model, ALL, length.bank, log, autocast))
    model.load_state_dict(stage("language", language))
    snapshot()
    log(f"saved in {out}")


def main() -> None:
    """Train, then measure on unseen scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("nano-clip-checkpoint"), help="checkpoint folder to write")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--work", type=Path, help="folder that keeps finished stages for the next run")
    parser.add_argument("--scenes", type=int, default=2000, help="unseen clips to measure on (default 2000)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    train(options.out, device=device, work=options.work, log=log)
    checkpoint = AutoModelForImageTextToText.from_pretrained(options.out, dtype=torch.float32).to(device)
    for line in tables(checkpoint, options.out, options.scenes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
