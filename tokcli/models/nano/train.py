"""Train the bundled model from nothing: ``python -m tokcli.models.nano.train --out FOLDER``.

The vision tower first (``tower.py``), then a bank of scenes that it has seen (``bank.py``), then the language model on
questions about those (``language.py``): once with the simplest scenes, then again with all kinds (``curriculum.py``).
Seeds and numbers of steps are fixed; rounding differs between machines and numbers of threads, so weights agree closely
and not to the bit. ``--start`` begins with the second half from a checkpoint that has gone through the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from tokcli.models.nano.architecture import build_config, build_tokenizer, save
from tokcli.models.nano.bank import SeenClip, build_bank
from tokcli.models.nano.coordinates import CoordinateProbe
from tokcli.models.nano.curriculum import (
    AGAIN,
    ALL,
    CATCHING_UP,
    COMPARING,
    DEEPENING,
    FINE,
    FINEST,
    FINISHING,
    FIRST_COURSE,
    FLASHES,
    FOLLOWING,
    MORE,
    ORDERING,
    SETTLING,
    SHARP,
    SHARPER,
    SIMPLE,
    WIDENING,
    WORDS,
    Course,
    Mix,
)
from tokcli.models.nano.evaluate import tables
from tokcli.models.nano.helps import Help, LayerProbe
from tokcli.models.nano.language import train_language
from tokcli.models.nano.optimizers import muon_and_adam
from tokcli.models.nano.pointing import Pointing
from tokcli.models.nano.scripts import autocast_on, run_stage, run_training, training_parser
from tokcli.models.nano.sequence import SequenceProbe
from tokcli.models.nano.takeover import take_over
from tokcli.models.nano.tower import seed_embeddings, train_tower


@dataclass(frozen=True)
class Length:
    """How long each stage is: steps, and clips in the banks."""

    tower: int = 1800
    bank: int = 10_000
    language: int = 3000
    finishing: int = 600
    wide_tower: int = 1500
    fine_tower: int = 1000
    finest_tower: int = 700
    last_tower: int = 800
    wide_bank: int = 6500
    wide_language: int = 1000
    word_tower: int = 330
    word_bank: int = 5000
    deepening: int = 1000
    catching_up: int = 1450
    last_bank: int = 8000
    comparing: int = 2000
    ordering: int = 500
    following: int = 600
    sharp_tower: int = 2400
    sharp_bank: int = 6000
    settling: int = 1000


def train(
    out: Path,
    *,
    device: str,
    work: Path | None = None,
    start: Path | None = None,
    length: Length | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train, and save a checkpoint in ``out``.

    ``work`` is a folder where the results of stages are kept: a run that finds one there does not repeat the stage.
    ``start`` is a checkpoint that knows the simplest scenes already.
    """
    length = length or Length()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).to(device)
    seed_embeddings(model, tokenizer)

    autocast = autocast_on(model.device)
    stage = partial(run_stage, work=work, device=device, log=log)

    def snapshot() -> None:
        save(model, tokenizer, out)

    def tower(steps: int, mix: Mix, peak: float, *, muon: bool = False) -> Callable[[], dict[str, torch.Tensor]]:
        def run() -> dict[str, torch.Tensor]:
            train_tower(model, tokenizer, steps, log, autocast, mix, peak, muon)
            return model.state_dict()

        return run

    def language(steps: int, course: Course, bank: list[SeenClip]) -> Callable[[], dict[str, torch.Tensor]]:
        def run() -> dict[str, torch.Tensor]:
            train_language(model, tokenizer, bank, steps, log, autocast, snapshot, course)
            return model.state_dict()

        return run

    def with_help(
        steps: int, course: Course, bank: list[SeenClip], *, points: bool = False, follows: bool = False
    ) -> Callable[[], dict[str, torch.Tensor]]:
        def run() -> dict[str, torch.Tensor]:
            inner = model.model.language_model
            helps: list[Help] = [CoordinateProbe(inner.layers[1], inner.config.hidden_size).to(device)]
            helps += [Pointing(inner.layers[2])] if points else []
            helps += [SequenceProbe(inner.layers[1], inner.config.hidden_size).to(device)] if follows else []
            others = [*inner.embed_tokens.parameters(), *inner.norm.parameters()]
            others += [weight for one in helps if isinstance(one, LayerProbe) for weight in one.parameters()]
            optimizers = muon_and_adam(inner.layers.parameters(), others, course.peak, 0.05)
            train_language(
                model, tokenizer, bank, steps, log, autocast, snapshot, course, optimizers=optimizers, helps=helps
            )
            for one in helps:
                one.close()
            return model.state_dict()

        return run

    def bank_of(name: str, mix: Mix, count: int) -> list[SeenClip]:
        bank: list[SeenClip] = stage(name, lambda: build_bank(model, mix, count, log, autocast))
        return bank

    if start is None:
        model.load_state_dict(stage("tower", tower(length.tower, SIMPLE, 2e-3)))
        bank = bank_of("bank", SIMPLE, length.bank)
        model.load_state_dict(stage("language", language(length.language, FIRST_COURSE, bank)))
        model.load_state_dict(stage("finishing", language(length.finishing, FINISHING, bank)))
    else:
        take_over(model, tokenizer, start)
    model.load_state_dict(stage("wide-tower", tower(length.wide_tower, ALL, 1.5e-3)))
    model.load_state_dict(stage("fine-tower", tower(length.fine_tower, FINE, 1e-3)))
    model.load_state_dict(stage("finest-tower", tower(length.finest_tower, FINEST, 1e-3)))
    bank = bank_of("wide-bank", ALL, length.wide_bank)
    model.load_state_dict(stage("last-tower", tower(length.last_tower, FLASHES, 1e-3)))
    model.load_state_dict(stage("wide-language", with_help(length.wide_language, WIDENING, bank)))
    # Against the words as the language model has them by now.
    model.load_state_dict(stage("word-tower", tower(length.word_tower, WORDS, 1e-3)))
    bank = bank_of("word-bank", AGAIN, length.word_bank)
    model.load_state_dict(stage("deepening", with_help(length.deepening, DEEPENING, bank)))
    model.load_state_dict(stage("catching-up", with_help(length.catching_up, CATCHING_UP, bank)))
    bank = bank_of("last-bank", MORE, length.last_bank)
    model.load_state_dict(stage("comparing", with_help(length.comparing, COMPARING, bank, points=True)))
    model.load_state_dict(stage("ordering", with_help(length.ordering, ORDERING, bank, points=True)))
    model.load_state_dict(stage("following", with_help(length.following, FOLLOWING, bank, points=True, follows=True)))
    model.load_state_dict(stage("sharp-tower", tower(length.sharp_tower, SHARP, 5e-4, muon=True)))
    bank = bank_of("sharp-bank", SHARPER, length.sharp_bank)
    model.load_state_dict(stage("settling", with_help(length.settling, SETTLING, bank, points=True, follows=True)))
    snapshot()
    log(f"saved in {out}")


def main() -> None:
    """Train, then measure on unseen scenes."""
    parser = training_parser(__doc__, "nano-checkpoint")
    parser.add_argument("--start", type=Path, help="checkpoint that knows the simplest scenes: begin with all kinds")
    run_training(parser, train, tables)


if __name__ == "__main__":
    main()
