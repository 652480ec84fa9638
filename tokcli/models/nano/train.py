"""Train the bundled model from nothing: ``python -m tokcli.models.nano.train --out FOLDER``.

The vision tower first (``tower.py``), then a bank of scenes that it has seen (``bank.py``), then the language model on
questions about those (``language.py``), with the hardest ones more often at the end. Seeds and numbers of steps are
fixed; rounding differs between machines and numbers of threads, so weights agree closely and not to the bit. About an
hour and a half on one busy core with AVX512-BF16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from tokcli.models.nano.architecture import build_config, build_tokenizer, save
from tokcli.models.nano.bank import FIRST_SEED, build_bank
from tokcli.models.nano.evaluate import measure
from tokcli.models.nano.language import train_language
from tokcli.models.nano.tower import seed_embeddings, train_tower

TOWER_STEPS = 1800
BANK_CLIPS = 10_000
LANGUAGE_STEPS = 3000
FINISHING_STEPS = 600


def train(
    out: Path,
    *,
    device: str,
    work: Path | None = None,
    tower_steps: int = TOWER_STEPS,
    bank_clips: int = BANK_CLIPS,
    language_steps: int = LANGUAGE_STEPS,
    finishing_steps: int = FINISHING_STEPS,
    log: Callable[[str], None] = print,
) -> None:
    """Train, and save a checkpoint in ``out``.

    ``work`` is a folder where the results of stages are kept: a run that finds one there does not repeat the stage.
    """
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).to(device)
    seed_embeddings(model, tokenizer)

    def autocast() -> AbstractContextManager[None]:
        return torch.autocast(model.device.type, torch.bfloat16)

    def snapshot() -> None:
        save(model, tokenizer, out)

    def stage(name: str, run: Callable[[], Any]) -> Any:
        file = work / f"{name}.pt" if work else None
        if file and file.exists():
            log(f"{name} taken from {file.name}")
            # The bank is no tensor; the files are this script's own.
            return torch.load(file, map_location=device, weights_only=False)
        result = run()
        if file:
            torch.save(result, file)
        return result

    def tower() -> dict[str, torch.Tensor]:
        train_tower(model, tokenizer, tower_steps, log, autocast)
        return model.state_dict()

    def language() -> dict[str, torch.Tensor]:
        train_language(model, tokenizer, bank, language_steps, log, autocast, snapshot)
        return model.state_dict()

    model.load_state_dict(stage("tower", tower))
    bank = stage("bank", lambda: build_bank(model, FIRST_SEED, bank_clips, log, autocast))
    model.load_state_dict(stage("language", language))
    log("finishing")
    train_language(model, tokenizer, bank, finishing_steps, log, autocast, snapshot, finishing=True)
    snapshot()
    log(f"saved in {out}")


def main() -> None:
    """Train, then measure on unseen scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("nano-checkpoint"), help="checkpoint folder to write")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--work", type=Path, help="folder that keeps finished stages for the next run")
    parser.add_argument("--scenes", type=int, default=500, help="unseen clips to measure on (default 500)")
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
    checkpoint = Qwen2_5_VLForConditionalGeneration.from_pretrained(options.out, dtype=torch.float32).to(device)
    for line in measure(checkpoint, build_tokenizer(), options.scenes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
