"""Train the bundled sibling from nothing: ``python -m tokcli.models.nano_clip.train --out FOLDER``.

The tower and the projector first (``tower.py``), then a bank of clips that they have seen (``bank.py``), then the
language model on questions about those (``language.py``). Scenes, questions and loops are nano's. Seeds and numbers of
steps are fixed; rounding differs between machines, so weights agree closely and not to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from tokcli.models.nano.curriculum import ALL
from tokcli.models.nano.language import train_language
from tokcli.models.nano.optimizers import muon_and_adam
from tokcli.models.nano.scripts import autocast_on, run_stage, run_training, training_parser
from tokcli.models.nano.tower import seed_embeddings
from tokcli.models.nano_clip.architecture import build_config, build_tokenizer, save
from tokcli.models.nano_clip.bank import build_bank
from tokcli.models.nano_clip.evaluate import tables
from tokcli.models.nano_clip.language import COURSE, draw_prompt
from tokcli.models.nano_clip.start import prepare_tower
from tokcli.models.nano_clip.tower import free_measures, train_tower


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

    autocast = autocast_on(model.device)
    stage = partial(run_stage, work=work, device=device, log=log)

    def snapshot() -> None:
        save(model, tokenizer, out)

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
    run_training(training_parser(__doc__, "nano-clip-checkpoint"), train, tables)


if __name__ == "__main__":
    main()
