"""vLLM: embeddings for ``multi_modal_data`` or ``prompt_embeds``, a list of requests, and how to load them."""

from __future__ import annotations

from pathlib import Path

import torch

from tokcli.models import Request
from tokcli.pipeline.export.engine import REQUESTS, Asking, Lines
from tokcli.pipeline.export.items import safe_name
from tokcli.pipeline.export.writer import save_tensors
from tokcli.types import EncodedItem

README = """# Requests for vLLM

`requests.jsonl` has a request a line, with the file of its tensors in `items/`. `export.json` says which model made
them. Written from vLLM's documentation as of 0.32; nothing here was run in vLLM.

```python
import json
from pathlib import Path

from safetensors.torch import load_file


def requests(folder):
    \"\"\"(id, what `LLM.generate` takes) for every request.\"\"\"
    for line in (Path(folder) / "requests.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        tensors = load_file(Path(folder) / row["file"])
        if row["form"] == "prompt_embeds":
            yield row["id"], {"prompt_embeds": tensors["prompt_embeds"]}
            continue
        data = tensors if row["form"] == "grid" else [tensors["image"]]
        yield row["id"], {"prompt": row["prompt"], "multi_modal_data": {row["modality"]: data}}
```

```text
from vllm import LLM

llm = LLM(model=..., enable_mm_embeds=True, limit_mm_per_prompt={"image": 1, "video": 1})
# for requests of the form prompt_embeds: LLM(model=..., enable_prompt_embeds=True)
outputs = llm.generate([request for _, request in requests(".")])
```

Let nobody else send embeddings to a server that has these switches on: vLLM warns that wrong shapes may end it.

| form | what it is | positions |
|---|---|---|
| `items` | the tokens of one item, in place of its placeholder | in a row, by the engine |
| `grid` | all tokens of one item with its grid | by the engine, from the grid |
| `prompt_embeds` | embeddings of the whole prompt, text too | in a row, by the engine; with M-RoPE from 0.24 on |

`positions` of a request is `exact` where the model gets the positions that it has from the cache, and `compact` where
tokens that a method dropped leave no gaps: `tokcli infer --positions compact` answers alike.
"""


class VllmWriter:
    """``items/NAME.safetensors``, ``requests.jsonl`` and a README."""

    def __init__(self, folder: Path, asking: Asking) -> None:
        self._folder, self._asking = folder, asking
        (folder / "items").mkdir()
        (folder / "README.md").write_text(README, encoding="utf-8")
        self._lines = Lines(folder / REQUESTS)
        self._number = 0

    def write(self, item: EncodedItem) -> None:
        name = f"items/{safe_name(self._number, item.id)}"
        self._number += 1
        if self._asking.plan[item.id].form == "prompt":
            for number, request in enumerate(self._asking.requests(item)):
                file = f"{name}-{number:03d}.safetensors"
                self._save(file, {"prompt_embeds": self._asking.embedded(request)})
                self._add(item, request, file, {"form": "prompt_embeds"})
            return
        tokens, grid = self._asking.tokens(item), self._asking.plan[item.id].form == "grid"
        tensors = {"image": tokens}
        if grid:
            kind = item.kind
            tensors = {f"{kind}_embeds": tokens, f"{kind}_grid_thw": self._asking.patch_grid(item)}
        self._save(f"{name}.safetensors", tensors)
        told = {"form": "grid" if grid else "items", "modality": item.kind if grid else "image"}
        for request in self._asking.requests(item):
            text = self._asking.layout.text(request)
            self._add(item, request, f"{name}.safetensors", {**told, "prompt": text})

    def close(self) -> None:
        self._lines.close()

    def _save(self, file: str, tensors: dict[str, torch.Tensor]) -> None:
        save_tensors(tensors, self._folder / file)

    def _add(self, item: EncodedItem, request: Request, file: str, told: dict[str, str]) -> None:
        positions = self._asking.plan[item.id].word
        row = {"id": item.id, "question": request.prompt, "file": file, **told}
        self._lines.add({**row, "tokens": len(item.kept), "positions": positions})
