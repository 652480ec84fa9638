"""What a cache's tokens are like, without asking the model: rate, drops over time, cuts, rank, coverage, density.

Functions of stored values only. Each says its formula, since several of these names mean different things elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokcli.types import EncodedItem

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

CUT_WINDOW, CUT_FACTOR, CUT_MARGIN = 4, 3, 0.2
"""The rule of ``scene_cuts``: steps looked at on either side, and how much more than their median a cut keeps."""
RANK_ROWS = 1024
"""Tokens that an effective rank is computed of, at most: its cost grows with their cube."""
THIRDS = ("top", "middle", "bottom")
TENTHS = 10
WHOLE_PICTURE = ("frames", "image", "thumbnail")
"""Views whose rows are rows of the picture; crops are left out of the coverage."""


@dataclass(frozen=True)
class Timeline:
    """What was kept of each temporal step of a video."""

    seconds: npt.NDArray[np.float64]
    """float64 (S,): time of each step's first frame."""
    kept_share: npt.NDArray[np.float64]
    """float64 (S,): tokens kept over tokens before any method."""

    @property
    def drop_ratio(self) -> npt.NDArray[np.float64]:
        return 1 - self.kept_share


def kept_timeline(item: EncodedItem) -> Timeline | None:
    """Counts the kept tokens of each step by their coordinates; None for stills.

    A merged token counts where its anchor is. A step's tokens before any method are an even part of the item's, so
    that what a smaller frame before the encoder saved counts as dropped too.
    """
    if item.kind != "video" or not item.views or item.views[0].kind != "frames" or not len(item.times):
        return None
    steps, height, width = item.views[0].grid
    coords = item.kept.coords.numpy()
    counts = np.bincount(coords[coords[:, 0] == 0, 1], minlength=steps)
    source_per_step = item.source_tokens / sum(view.num_tokens for view in item.views) * height * width
    frames_per_step = math.ceil(len(item.times) / steps)
    first_frames = np.minimum(np.arange(steps) * frames_per_step, len(item.times) - 1)
    return Timeline(item.times[first_frames], counts / source_per_step)


def scene_cuts(kept_share: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Steps that keep far more than their neighbours, ascending.

    A step after the first is one if it keeps at least ``CUT_FACTOR`` times the median of the ``CUT_WINDOW`` steps on
    either side (fewer at the ends; itself and the first step left out), and at least ``CUT_MARGIN`` of a whole step
    more. Of consecutive ones the first is the cut. Methods that keep as much of every step have none, whatever is seen.
    """
    found: set[int] = set()
    for step in range(1, len(kept_share)):
        around = np.concatenate([kept_share[max(1, step - CUT_WINDOW) : step], kept_share[step + 1 :][:CUT_WINDOW]])
        if len(around) < 2:
            continue
        usual = float(np.median(around))
        if kept_share[step] >= max(CUT_FACTOR * usual, usual + CUT_MARGIN):
            found.add(step)
    return np.array(sorted(step for step in found if step - 1 not in found), dtype=np.int64)


def effective_rank(tokens: torch.Tensor, max_rows: int = RANK_ROWS) -> float:
    """:func:`tokcli.ops.complexity.effective_rank` of float (K, D) tokens.

    Of more than ``max_rows`` tokens as many are taken, evenly spaced.
    """
    import torch

    from tokcli.ops import complexity

    if len(tokens) > max_rows:
        tokens = tokens[torch.linspace(0, len(tokens) - 1, max_rows).round().long()]
    return complexity.effective_rank(tokens)


def third_counts(item: EncodedItem) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Kept tokens, and places of the grid, in the top, middle and bottom third of the picture: int64 (3,) each.

    Row y of h is in third ``floor(3 y / h)``. Of a picture with crops only the thumbnail counts.
    """
    kept, places = np.zeros(3, np.int64), np.zeros(3, np.int64)
    coords = item.kept.coords.numpy()
    for number, view in enumerate(item.views):
        if view.kind in WHOLE_PICTURE:
            steps, height, width = view.grid
            rows = coords[coords[:, 0] == number, 2].astype(np.int64)
            kept += np.bincount(3 * rows // height, minlength=3)
            places += np.bincount(3 * np.arange(height) // height, minlength=3) * steps * width
    return kept, places


def tok_dense(accuracy: float, tokens_per_item: float) -> float | None:
    """TokDense of VQToken (arXiv:2503.16980): accuracy, in points of 100, for each visual token of a question.

    It is our reading of it: tokens are the mean of an item's visual tokens, as each question is asked about one item;
    the words of the question, the same for all methods, are not counted. None without tokens.
    """
    return 100 * accuracy / tokens_per_item if tokens_per_item else None


def table_statistics(items: pa.Table, accuracy: float | None = None) -> dict[str, Any]:
    """From the table of items alone, no token is read; JSON values, null for what this cache can't tell.

    ``drop_ratio`` and ``triggers`` are those that the method stored (dtd): the mean over all steps but the first of
    each item, and how many steps were taken for changes of the scene.
    """
    import pyarrow.compute as pc

    videos = items.filter(pc.greater(items["duration_seconds"], 0.0))
    kept, source = items["kept_tokens"].to_numpy(), items["source_tokens"].to_numpy()
    shares, per_item = kept / np.maximum(source, 1), float(kept.mean()) if len(kept) else 0.0
    ratios, triggers = (_stored(items, name) for name in ("drop_ratio", "trigger_seconds"))
    quantiles = {"min": 0.0, "median": 0.5, "max": 1.0}
    return {
        "tokens_per_second": _rates(
            *(float(pc.sum(videos[name]).as_py() or 0) for name in ("kept_tokens", "source_tokens", "duration_seconds"))
        ),
        "tokens_per_item": per_item if len(kept) else None,
        "kept_share": {name: float(np.quantile(shares, at)) for name, at in quantiles.items()} if len(kept) else None,
        "drop_ratio": float(ratios.mean()) if ratios is not None and len(ratios) else None,
        "triggers": None if triggers is None else len(triggers),
        "accuracy": accuracy,
        "tok_dense": None if accuracy is None else tok_dense(accuracy, per_item),
    }


def _rates(kept: float, source: float, seconds: float) -> dict[str, float] | None:
    """Tokens for each second of media; None for stills."""
    return {"kept": kept / seconds, "source": source / seconds} if seconds > 0 else None


def _stored(items: pa.Table, name: str) -> npt.NDArray[np.float64] | None:
    """All values of a stored array, of all items; None if no item has it."""
    import pyarrow.compute as pc

    arrays = pc.list_flatten(items["stats"])
    own = arrays.filter(pc.equal(pc.struct_field(arrays, "name"), name))
    return pc.list_flatten(pc.struct_field(own, "values")).to_numpy() if len(own) else None


def item_statistics(item: EncodedItem, accuracy: float | None = None) -> dict[str, Any]:
    """Everything about one item; JSON values, null for what it can't tell."""
    kept, timeline = len(item.kept), kept_timeline(item)
    triggers = item.kept.stats.get("trigger_seconds")
    cuts = None if timeline is None else timeline.seconds[scene_cuts(timeline.kept_share)].tolist()
    return {
        "tokens_per_second": _rates(kept, item.source_tokens, item.duration_seconds),
        "kept_share": kept / item.source_tokens if item.source_tokens else None,
        "timeline": timeline and {"seconds": timeline.seconds.tolist(), "drop_ratio": timeline.drop_ratio.tolist()},
        "scene_cut_seconds": cuts,
        "trigger_seconds": None if triggers is None else triggers.tolist(),
        "effective_rank": effective_rank(item.kept.tokens),
        "rank_tokens": min(kept, RANK_ROWS),
        "coverage": coverage(*third_counts(item)),
        "accuracy": accuracy,
        "tok_dense": None if accuracy is None else tok_dense(accuracy, kept),
    }


def sample_statistics(items: Iterable[EncodedItem]) -> dict[str, Any]:
    """What needs the tokens, over a sample of a cache's items; JSON values.

    ``drop_ratio_by_tenth``: mean over the steps that fall into each tenth of their video, null for a tenth without any.
    ``effective_rank`` and ``rank_tokens``: means over the items. ``coverage``: over all tokens of the sample.
    """
    count, ranks, rank_tokens, cuts, seconds = 0, 0.0, 0, 0, 0.0
    dropped, steps = np.zeros(TENTHS), np.zeros(TENTHS, np.int64)
    kept, places = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for item in items:
        count += 1
        ranks += effective_rank(item.kept.tokens)
        rank_tokens += min(len(item.kept), RANK_ROWS)
        counted = third_counts(item)
        kept, places = kept + counted[0], places + counted[1]
        timeline = kept_timeline(item)
        if timeline is not None:
            size = len(timeline.seconds)
            tenth = TENTHS * np.arange(size) // size
            dropped += np.bincount(tenth, timeline.drop_ratio, minlength=TENTHS)
            steps += np.bincount(tenth, minlength=TENTHS)
            cuts += len(scene_cuts(timeline.kept_share))
            seconds += item.duration_seconds
    return {
        "items": count,
        "drop_ratio_by_tenth": [float(total / number) if number else None for total, number in zip(dropped, steps)],
        "scene_cuts": cuts,
        "scene_cuts_per_minute": 60 * cuts / seconds if seconds else None,
        "effective_rank": ranks / count if count else None,
        "rank_tokens": rank_tokens / count if count else None,
        "coverage": coverage(kept, places),
    }


def coverage(kept: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> Mapping[str, Any] | None:
    """Share of the kept tokens in each third of the picture, and that of an even spread; None without tokens."""
    if not kept.sum() or not places.sum():
        return None
    return {
        name: {"share": float(own / kept.sum()), "even": float(all_ / places.sum())}
        for name, own, all_ in zip(THIRDS, kept, places)
    }
