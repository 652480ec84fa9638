"""vLLM's encoder cache connector: the file that it looks for before it runs the vision tower. Experimental.

All that is known of the layout is ``<folder>/<hash or uuid>/encoder_cache.safetensors`` with one tensor, ``ec_cache``,
what the encoder gives for one picture. The hash is vLLM's own affair, the uuid is the user's: so a uuid names it.
"""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from tokcli.pipeline.export.engine import Lines
from tokcli.pipeline.export.items import as_dtype
from tokcli.pipeline.export.writer import save_tensors
from tokcli.types import EncodedItem

FILE, TENSOR, ITEMS = "encoder_cache.safetensors", "ec_cache", "items.jsonl"
README = """# An encoder cache for vLLM

Experimental. vLLM's example of an encoder cache connector reads `<this folder>/<uuid>/encoder_cache.safetensors`,
tensor `ec_cache`, for a picture that a request calls by that uuid (`multi_modal_uuids={"image": [uuid]}`), in the place
of running the vision tower. `items.jsonl` has the uuid of every picture.

The request still needs the picture: vLLM counts the placeholders from it. The connector calls itself an example for
debugging, checks only that the file is there, and its options move between versions: this was written from the
documentation of vLLM 0.32 and not run. Pin your version, and compare answers with and without it.
"""


class EncoderCacheWriter:
    """``UUID/encoder_cache.safetensors`` for each item, ``items.jsonl`` and a README."""

    def __init__(self, folder: Path, dtype: str, fingerprint: str) -> None:
        self._folder, self._dtype, self._fingerprint = folder, dtype, fingerprint
        (folder / "README.md").write_text(README, encoding="utf-8")
        self._lines = Lines(folder / ITEMS)

    def write(self, item: EncodedItem) -> None:
        # Another tower or another file must never meet an old entry.
        uuid = "tokcli-" + blake3(f"{self._fingerprint} {item.source_hash} {item.id}".encode()).hexdigest()[:32]
        tokens = as_dtype(item.kept.tokens, self._dtype, item.id).contiguous()
        (self._folder / uuid).mkdir()
        save_tensors({TENSOR: tokens}, self._folder / uuid / FILE)
        self._lines.add({"id": item.id, "path": item.path, "uuid": uuid, "tokens": len(tokens)})

    def close(self) -> None:
        self._lines.close()
