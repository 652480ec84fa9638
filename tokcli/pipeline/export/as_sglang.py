"""SGLang: precomputed embeddings, with the ids of prompts in which every placeholder is there already."""

from __future__ import annotations

from pathlib import Path

from tokcli.pipeline.export.engine import REQUESTS, Asking, Lines
from tokcli.pipeline.export.items import safe_name
from tokcli.pipeline.export.writer import save_tensors
from tokcli.types import EncodedItem

README = """# Requests for SGLang

`requests.jsonl` has a request a line: `input_ids`, a placeholder for every token of the item, and the file of its
tensors in `items/`. `export.json` says which model made them. Written from what is known of SGLang's input; nothing
here was run in SGLang.

```python
import json
from pathlib import Path

from safetensors.torch import load_file


def requests(folder):
    \"\"\"(id, what `Engine.generate` takes) for every request.\"\"\"
    for line in (Path(folder) / "requests.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        data = {"format": "precomputed_embedding", **load_file(Path(folder) / row["file"])}
        yield row["id"], {"input_ids": row["input_ids"], "image_data": [data]}
```

```text
import sglang

engine = sglang.Engine(model_path=...)
for item_id, request in requests("."):
    print(item_id, engine.generate(**request, sampling_params={"temperature": 0}))
```

All items of a request have one format. Which models take embeddings differs between versions, and one was reported to
encode the picture again without a word: make sure once that the vision tower does not run.

`positions` of a request is `exact` where the model gets the positions that it has from the cache, and `compact` where
tokens that a method dropped leave no gaps: `tokcli infer --positions compact` answers alike.
"""


class SglangWriter:
    """``items/NAME.safetensors`` with ``feature`` and, where the model needs it, ``image_grid_thw``; ``requests.jsonl``
    and a README."""

    def __init__(self, folder: Path, asking: Asking, *, grids: bool) -> None:
        self._folder, self._asking, self._grids = folder, asking, grids
        (folder / "items").mkdir()
        (folder / "README.md").write_text(README, encoding="utf-8")
        self._lines = Lines(folder / REQUESTS)
        self._number = 0

    def write(self, item: EncodedItem) -> None:
        file = f"items/{safe_name(self._number, item.id)}.safetensors"
        self._number += 1
        tensors = {"feature": self._asking.tokens(item)}
        if self._grids:
            tensors["image_grid_thw"] = self._asking.patch_grid(item)
        save_tensors(tensors, self._folder / file)
        for request in self._asking.requests(item):
            ids = self._asking.layout.prompt(request, "compact").ids.tolist()
            row = {"id": item.id, "question": request.prompt, "file": file, "input_ids": ids}
            positions = self._asking.plan[item.id].word
            self._lines.add({**row, "tokens": len(item.kept), "positions": positions})

    def close(self) -> None:
        self._lines.close()
