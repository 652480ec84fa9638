"""Items that keep clearly more than their method was asked for: a budget that is not met is said, not passed over."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tokcli.methods import Compressor
from tokcli.methods.budget import share_count
from tokcli.pipeline.progress import OverBudget

CLEARLY = 1.1
"""By what factor, and by more than a token: rounding, and towers that take frames in few sizes, are no news."""


def over_budget(compressor: Compressor, items: pa.Table) -> OverBudget | None:
    """What a cache's items keep beyond the ``keep`` of the last method; None where they don't.

    Needs the columns id, source_tokens, kept_tokens and views. Structural rows are kept on top of any budget.
    """
    keep = compressor.to_json()["methods"][-1]["options"].get("keep")
    if keep is None or not len(items):
        return None
    source, kept = items["source_tokens"].to_numpy(), items["kept_tokens"].to_numpy()
    # Views of frames that were made smaller tell nothing of structural rows, and there are none.
    structural = source - _grid_tokens(items["views"]) if compressor.pixel_scale == 1 else np.zeros_like(source)
    asked = np.array([share_count(keep, int(count)) for count in source - structural])
    over = kept - structural > np.maximum(CLEARLY * asked, asked + 1)
    if not over.any():
        return None
    shares = np.where(over, (kept - structural) / np.maximum(1, source - structural), 0.0)
    worst = int(shares.argmax())
    return OverBudget(int(over.sum()), keep, round(float(shares[worst]), 4), items["id"][worst].as_py())


def _grid_tokens(views: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """int64 (items,): the products of the items' grids, summed over the views of each."""
    array = views.combine_chunks()
    t, h, w = (pc.struct_field(pc.list_flatten(array), name).to_numpy().astype(np.int64) for name in "thw")
    sums = np.bincount(pc.list_parent_indices(array).to_numpy(), weights=t * h * w, minlength=len(array))
    return sums.astype(np.int64)
