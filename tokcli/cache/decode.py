"""Rows of the data table back to an item, without copies beyond one where an item spans several rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tokcli.cache.encode import metadata_of
from tokcli.cache.schema import BLOBS
from tokcli.cache.tensors import ITEM_BYTES, tensor_view
from tokcli.errors import IntegrityError
from tokcli.types import EncodedItem, TokenSet, View

if TYPE_CHECKING:
    import torch

_HEAVY = (*BLOBS, "times", "indices", "stats")


def decode_item(rows: Iterator[pa.Table], *, own: bool) -> EncodedItem:
    """The item whose rows, as tables of one row each, come in order of ``chunk``.

    With ``own`` the tensors of a one-row item are the Arrow buffers themselves; without, they are copied. An item of
    several rows is copied into its tensors row by row.
    Raises ``IntegrityError`` (without a file name) where rows or lengths contradict one another.
    """
    first = next(rows)
    head = first.select([name for name in first.column_names if name not in _HEAVY]).to_pylist()[0]
    assignment = _buffer(first, "assignment")
    kept = TokenSet(
        **_tensors(first, rows, head, own=own),
        assignment=None if assignment is None else _owned(tensor_view(assignment, "int32"), own),
        stats=_stats(first),
    )
    return EncodedItem(
        id=head["id"],
        path=head["path"],
        kind=head["kind"],
        kept=kept,
        views=tuple(View(view["kind"], (view["t"], view["h"], view["w"])) for view in head["views"]),
        source_tokens=head["source_tokens"],
        times=_list(first, "times"),
        indices=_list(first, "indices"),
        frame_size=(head["frame_height"], head["frame_width"]),
        source_size=(head["source_height"], head["source_width"]),
        duration_seconds=head["duration_seconds"],
        source_fps=head["source_fps"],
        sample_fps=head["sample_fps"],
        seconds_per_step=head["seconds_per_step"],
        codec=head["codec"],
        decoder=head["decoder"],
        source_bytes=head["source_bytes"],
        source_modified_ns=head["source_modified_ns"],
        source_hash=head["source_blake3"],
        bad_packets=head["bad_packets"],
        corrupt_frames=head["corrupt_frames"],
        metadata=metadata_of(head),
    )


def row_problem(row: pa.Table, kept: int, hidden_size: int, dtype: str) -> str | None:
    """What is wrong with the lengths of one row's blobs; None if nothing is."""
    if dtype not in ITEM_BYTES:
        return f"unknown dtype {dtype!r}"
    sizes = {"tokens": hidden_size * ITEM_BYTES[dtype], "coords": 16, "source": 4, "mass": 4}
    for name, per_token in sizes.items():
        buffer = _buffer(row, name)
        if buffer is None and name != "mass":
            return f"{name} is missing"
        if buffer is not None and buffer.size != kept * per_token:
            return f"{name} has {buffer.size} bytes, {kept} tokens need {kept * per_token}"
    return None


def _tensors(first: pa.Table, rest: Iterator[pa.Table], head: dict[str, Any], *, own: bool) -> dict[str, torch.Tensor]:
    """``tokens``, ``coords``, ``mass`` and ``source`` of the whole item."""
    import torch

    total, whole = head["kept_tokens"], {}
    if head["num_chunks"] == 1:
        whole = {name: _owned(view, own) for name, view in _row_views(first, 0, head).items()}
        start = len(whole["tokens"])
    else:
        start = 0
        for number, row in enumerate(chain([first], rest)):
            for name, view in _row_views(row, number, head).items():
                if number == 0:
                    whole[name] = torch.empty((total, *view.shape[1:]), dtype=view.dtype)
                stop = start + len(view)
                if stop > total:
                    raise IntegrityError(f"row {number} of {head['id']} ends at token {stop} of {total}")
                whole[name][start:stop] = view
            start = stop
    if start != total:
        raise IntegrityError(f"{head['id']} has {start} of {total} tokens")
    return whole | {"source": whole["source"].long()}


def _row_views(row: pa.Table, number: int, head: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors over one row's buffers, after checking that the row is in its place."""
    import torch

    count = row["num_tokens"][0].as_py()
    if row["id"][0].as_py() != head["id"] or row["chunk"][0].as_py() != number:
        raise IntegrityError(f"row {number} of {head['id']} belongs to another item or place")
    if problem := row_problem(row, count, head["hidden_size"], head["dtype"]):
        raise IntegrityError(f"row {number} of {head['id']}: {problem}")
    mass = _buffer(row, "mass")
    return {
        "tokens": tensor_view(_buffer(row, "tokens"), head["dtype"], head["hidden_size"]),
        "coords": tensor_view(_buffer(row, "coords"), "int32", 4),
        "source": tensor_view(_buffer(row, "source"), "int32"),
        "mass": torch.ones(count) if mass is None else tensor_view(mass, "float32"),
    }


def _buffer(row: pa.Table, name: str) -> pa.Buffer | None:
    return row[name][0].as_buffer()


def _list(row: pa.Table, name: str) -> Any:
    values = row[name][0].values
    if values is None:
        raise IntegrityError(f"{name} of {row['id'][0].as_py()} are missing in its first row")
    return values.to_numpy(zero_copy_only=False).copy()


def _stats(row: pa.Table) -> dict[str, Any]:
    stats = row["stats"][0].as_py() or []
    return {stat["name"]: np.array(stat["values"], np.float64).astype(stat["dtype"]) for stat in stats}


def _owned(tensor: torch.Tensor, own: bool) -> torch.Tensor:
    return tensor if own else tensor.clone()
