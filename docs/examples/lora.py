"""Fine-tune a language model with LoRA on cached tokens: no decoding, no vision tower, in any epoch.

    tokcli render -o clips && tokcli compress clips -o cache --method dtd --keep 0.2
    python docs/examples/lora.py cache clips/qa.jsonl

Begins to teach the cache's model to answer in whole sentences: on six clips nano's loss falls from 15.7 to 2.9 in 20
epochs. It has never written such words, so that isn't enough for it to get them right.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

import tokcli


def read_questions(path: str) -> dict[str, list[tuple[str, str]]]:
    """Questions and the answers to learn, by the name of the clip."""
    questions: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        questions[Path(row["id"]).name].append((row["question"], f"the answer is {row['answer']}"))
    return questions


def train(cache_path: str, qa_path: str, epochs: int = 8) -> tuple[Any, list[float]]:
    """The model with its adapters, and the mean loss of each epoch."""
    torch.manual_seed(0)
    draw = random.Random(0)
    cache, questions = tokcli.open_cache(cache_path), read_questions(qa_path)
    name = cache.manifest.configuration["model"]["model"]
    language = tokcli.load_language_model(name, dtype="float32")  # the language half alone: no weight of the tower
    model = get_peft_model(language.model, LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=5e-3)
    dataset = cache.as_torch_dataset(iterable=True, shuffle=True)
    # Workers read items; inputs are made here, where the model is.
    loader = DataLoader(dataset, batch_size=2, collate_fn=list)
    losses = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        model.train()
        steps = []
        for items in loader:
            rows = [
                cache.to_inputs(item, question, model, answer=answer)
                for item in items
                for question, answer in draw.sample(questions[Path(item.id).name], 2)
            ]
            loss = model(**tokcli.collate(rows)).loss  # ragged rows, padded on the right; labels are the answers
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.append(float(loss.detach()))
        losses.append(sum(steps) / len(steps))
    return model.eval(), losses


if __name__ == "__main__":
    model, losses = train(sys.argv[1], sys.argv[2])
    print("mean loss by epoch:", *(f"{loss:.3f}" for loss in losses))
