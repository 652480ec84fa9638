"""Rows of the data table back to an item, with one copy at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tokcli.cache.checksum import checksum_problem
from tokcli.cache.levels import parted
from tokcli.cache.row import StoredRow
from tokcli.cache.tensors import tensor_view
from tokcli.errors import IntegrityError
from tokcli.types import EncodedItem, TokenSet, View

if TYPE_CHECKING:
    import torch


def decode_item(rows: Iterator[StoredRow]) -> EncodedItem:
    """The item whose rows come in order of ``chunk``.

    The large tensors of a one-row item are its buffers themselves where nobody else sees these; else they are copied.
    An item of several rows is copied into its tensors row by row.
    Raises ``IntegrityError`` (without a file name) where rows or lengths contradict one another.
    """
    first = next(rows)
    head = first.head()
    times, indices = first.numbers("times"), first.numbers("indices")
    if times is None or indices is None:
        raise IntegrityError(f"times or indices of {head['id']} are missing in its first row")
    assignment = first.buffer("assignment")
    tensors = _tensors(first, rows, head)
    tokens, deepstack = parted(tensors.pop("tokens"), head.get("deepstack_levels", 0))
    kept = TokenSet(
        tokens=tokens,
        **tensors,
        deepstack=deepstack,
        assignment=None if assignment is None else tensor_view(assignment, "int32").clone(),
        stats={
            stat["name"]: np.array(stat["values"], np.float64).astype(stat["dtype"]) for stat in first["stats"] or ()
        },
    )
    return EncodedItem(
        id=head["id"],
        path=head["path"],
        kind=head["kind"],
        kept=kept,
        views=tuple(View(view["kind"], (view["t"], view["h"], view["w"])) for view in head["views"]),
        source_tokens=head["source_tokens"],
        times=times.copy(),
        indices=indices.copy(),
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
        metadata=first.metadata(),
    )


def _tensors(first: StoredRow, rest: Iterator[StoredRow], head: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """``tokens``, ``coords``, ``mass`` and ``source`` of the whole item."""
    import torch

    total, start = head["kept_tokens"], 0
    whole: dict[str, torch.Tensor] = {}
    if head["num_chunks"] == 1:
        whole = _row_tensors(first, 0, head["id"], head)
        if not first.owned:
            whole = {name: view.clone() for name, view in whole.items()}
        start = len(whole["tokens"])
    else:
        for number, row in enumerate(chain([first], rest)):
            parts = _row_tensors(row, number, head["id"])
            stop = start + len(parts["tokens"])
            if stop > total:
                raise IntegrityError(f"row {number} of {head['id']} ends at token {stop} of {total}")
            for name, part in parts.items():
                if number == 0:
                    whole[name] = torch.empty((total, *part.shape[1:]), dtype=part.dtype)
                whole[name][start:stop] = part
            start = stop
    if start != total:
        raise IntegrityError(f"{head['id']} has {start} of {total} tokens")
    return whole | {"source": whole["source"].long()}


def _row_tensors(
    row: StoredRow, number: int, item_id: str, head: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors over one row's buffers, after checking that the row is in its place."""
    import torch

    if row["id"] != item_id or row["chunk"] != number:
        raise IntegrityError(f"row {number} of {item_id} belongs to another item or place")
    if problem := row.lengths_problem() or checksum_problem(row, head):
        raise IntegrityError(f"row {number} of {item_id}: {problem}")
    tensors = {name: tensor_view(row.buffer(name), "int32", width) for name, width in (("coords", 4), ("source", None))}
    tensors["tokens"] = row.tokens()
    mass = row.buffer("mass")
    return tensors | {"mass": torch.ones(row["num_tokens"]) if mass is None else tensor_view(mass, "float32").clone()}
