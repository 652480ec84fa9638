"""Parquet as the ``datasets`` library of Hugging Face writes it: rows are items, columns have its types.

The library itself isn't needed to write it: types stand as JSON in the schema's metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tokcli.errors import UsageError
from tokcli.pipeline.export.writer import Sharded

GROUP_BYTES = 16 << 20
"""Rows that are written together: what a reader has to take at once."""
MOST_NUMBERS = np.iinfo(np.int32).max - GROUP_BYTES
"""Of a tensor: lists in Parquet count what is before them with 32 bits."""
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

Visual tokens, a row for each image or video, exported by tokcli; `export.json` says with which model and method.

```python
from datasets import load_dataset

rows = load_dataset("{folder}", split="train").with_format("torch")
rows[0]["tokens"]  # (kept tokens, width)
```
"""
_SCALARS = {
    "id": "string",
    "path": "string",
    "kind": "string",
    "source_tokens": "int64",
    "kept_tokens": "int64",
    "duration_seconds": "float64",
    "source_fps": "float64",
    "sample_fps": "float64",
    "seconds_per_step": "float64",
    "codec": "string",
    "decoder": "string",
    "source_bytes": "int64",
    "source_blake3": "string",
    "bad_packets": "int64",
    "corrupt_frames": "int64",
    "metadata": "string",
}
"""Columns with one value; ``metadata`` is JSON, since users' columns need not have one type."""
_VECTORS = {"mass": "float32", "source": "int64", "times": "float64", "indices": "int64", "assignment": "int32"}
_ARROW = {"string": pa.string(), "float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}
_ARROW |= {"int32": pa.int32(), "int64": pa.int64()}


class DatasetsWriter(Sharded):
    """``data/train-00000.parquet`` and so on, with a card that ``load_dataset`` reads.

    ``tokens`` is an Array2D, ``deepstack`` an Array3D. Arrow has no bfloat16; float32 holds it without loss.

    Args:
        name: The folder as the card calls it.
    """

    def __init__(self, folder: Path, dtype: str, limits: tuple[int, int], name: str) -> None:
        super().__init__(folder, dtype, limits)
        (folder / "data").mkdir()
        (folder / "README.md").write_text(_CARD.format(folder=name), encoding="utf-8")

    def begin(self, shard: int) -> None:
        self._writer: pq.ParquetWriter | None = None
        self._path = self.folder / "data" / f"train-{shard:05d}.parquet"
        self._rows: list[dict[str, Any]] = []
        self._waiting = 0

    def add(self, name: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        arrays = {
            key: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            for key, tensor in tensors.items()
        }
        if any(array.size > MOST_NUMBERS for array in arrays.values()):
            raise UsageError(f"{facts['id']} has more numbers than a row of Parquet can hold; export it as safetensors")
        row = {key: facts[key] for key in _SCALARS if key != "metadata"}
        row["metadata"] = json.dumps(facts["metadata"], ensure_ascii=False)
        row |= {"views": facts["views"], "grids": np.array(facts["grids"], np.int32)}
        row |= {key: np.array(facts[key], np.int64) for key in ("frame_size", "source_size")}
        self._rows.append(row | arrays)
        self._waiting += sum(array.nbytes for array in arrays.values())
        if self._waiting >= GROUP_BYTES:
            self._flush()

    def end(self) -> None:
        self._flush()
        assert self._writer is not None
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        tokens = self._rows[0]["tokens"]
        features = _features(str(tokens.dtype), tokens.shape[1], self._rows[0].get("deepstack"))
        fields = [_field(name, feature) for name, feature in features.items()]
        told = json.dumps({"info": {"features": features}})
        columns = [_column([row.get(name) for row in self._rows], feature) for name, feature in features.items()]
        table = pa.table(columns, schema=pa.schema(fields, metadata={"huggingface": told}))
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, use_dictionary=["kind", "codec", "decoder"], write_page_checksum=True
            )
        self._writer.write_table(table, row_group_size=len(self._rows))
        self._rows, self._waiting = [], 0


def _features(dtype: str, width: int, deepstack: Any) -> dict[str, Any]:
    """Types of the columns, as the library writes them down."""
    features: dict[str, Any] = {name: {"dtype": kind, "_type": "Value"} for name, kind in _SCALARS.items()}
    lists = {"views": "string", "frame_size": "int64", "source_size": "int64", **_VECTORS}
    features |= {
        name: {"feature": {"dtype": kind, "_type": "Value"}, "_type": "Sequence"} for name, kind in lists.items()
    }
    features["grids"] = {"shape": [None, 3], "dtype": "int32", "_type": "Array2D"}
    features["coords"] = {"shape": [None, 4], "dtype": "int32", "_type": "Array2D"}
    features["tokens"] = {"shape": [None, width], "dtype": dtype, "_type": "Array2D"}
    if deepstack is not None:
        features["deepstack"] = {"shape": [None, *deepstack.shape[1:]], "dtype": dtype, "_type": "Array3D"}
    return features


def _type(feature: dict[str, Any]) -> pa.DataType:
    """How a column is stored."""
    if feature["_type"] == "Value":
        return _ARROW[feature["dtype"]]
    if feature["_type"] == "Sequence":
        return pa.list_(_type(feature["feature"]))
    kind = _ARROW[feature["dtype"]]
    for _ in feature["shape"]:
        kind = pa.list_(kind)
    return kind


def _field(name: str, feature: dict[str, Any]) -> pa.Field:
    """A column with its type; arrays also carry the name of the library's own type for them, as its files do."""
    if "shape" not in feature:
        return pa.field(name, _type(feature))
    own = {
        "ARROW:extension:name": f"datasets.features.features.{feature['_type']}ExtensionType",
        "ARROW:extension:metadata": json.dumps([feature["shape"], feature["dtype"]]),
    }
    return pa.field(name, _type(feature), metadata=own)


def _column(values: list[Any], feature: dict[str, Any]) -> pa.Array:
    if feature["_type"] == "Value":
        return pa.array(values, _ARROW[feature["dtype"]])
    kind = _ARROW[feature["feature"]["dtype"] if feature["_type"] == "Sequence" else feature["dtype"]]
    if kind == pa.string():
        return pa.array(values, pa.list_(kind))
    return _nested([None if value is None else np.ascontiguousarray(value) for value in values], kind)


def _nested(arrays: list[np.ndarray[Any, Any] | None], kind: pa.DataType) -> pa.Array:
    """Arrays of the same number of dimensions as lists of lists, without a Python object for each number."""
    known = [array for array in arrays if array is not None]
    flat: pa.Array = pa.array(np.concatenate([array.reshape(-1) for array in known]) if known else [], kind)
    rest = known[0].shape[1:] if known else ()
    for length in reversed(rest):
        offsets = np.arange(0, len(flat) + 1, length, dtype=np.int32) if length else np.zeros(1, np.int32)
        flat = pa.ListArray.from_arrays(offsets, flat)
    ends = np.cumsum([0 if array is None else len(array) for array in arrays], dtype=np.int32)
    missing = pa.array([array is None for array in arrays]) if len(known) < len(arrays) else None
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), flat, mask=missing)
