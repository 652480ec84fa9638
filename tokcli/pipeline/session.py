"""One item on its way from frames to a token set: encode, compress, collect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokcli.methods import Compressor
from tokcli.models import VisionTower
from tokcli.pipeline.messages import Chunk, Finished, Opened
from tokcli.pipeline.spool import TokenSpool
from tokcli.types import EncodedItem, MediaItem, TokenSet, VisualTokens

Rows = tuple[torch.Tensor, ...]


class ItemSession:
    """Takes an item's chunks in order; memory does not grow with the item where the method streams.

    A streaming method sees every chunk as it comes and only what it keeps is collected. Any other method sees the
    whole item at the end, with its tokens in a ``TokenSpool``.
    """

    def __init__(
        self,
        item: MediaItem,
        opened: Opened,
        tower: VisionTower,
        compressor: Compressor,
        folder: Path,
        tokens_dtype: torch.dtype | None,
    ) -> None:
        self.item, self.info, self.size = item, opened.info, opened.size
        self.tower, self.compressor, self.tokens_dtype = tower, compressor, tokens_dtype
        self.encoding = tower.start(opened.info, opened.size, compressor.needs)
        self.stream = compressor.start(item.id, self.encoding.views) if compressor.streaming else None
        self.spool = TokenSpool(folder)
        self.rows: list[Rows] = []
        self.signals: list[dict[str, torch.Tensor]] = []
        self.times: list[npt.NDArray[np.float64]] = []
        self.indices: list[npt.NDArray[np.int64]] = []
        self.tokens_seen = 0

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], VisualTokens]:
        """Take uint8 (n, h, w, 3) frames at the tower's size; calling the result runs the tower, in any thread."""
        return self.encoding.prepare(pixels)

    def collect(self, visual: VisualTokens, chunk: Chunk) -> None:
        """Compress the tokens of a chunk as far as the method can; chunks must come in order."""
        self.times.append(chunk.times)
        self.indices.append(chunk.indices)
        self.tokens_seen += len(visual)
        if self.stream is None:
            self.spool.append(visual.tokens)
            self.rows.append((visual.coords, visual.structural))
            self.signals.append(dict(visual.signals))
            return
        kept = self.stream.push(visual)
        if kept is not None and len(kept):
            self._collect(kept)

    def _collect(self, kept: TokenSet) -> None:
        tokens = kept.tokens if self.tokens_dtype is None else kept.tokens.to(self.tokens_dtype)
        self.spool.append(tokens)
        self.rows.append((kept.coords, kept.mass, kept.source))

    def finish(self, done: Finished) -> EncodedItem:
        """The compressed item. The spool must stay open until it is written; see ``close``."""
        kept = self._kept()
        info = self.info
        return EncodedItem(
            id=self.item.id,
            path=self.item.path,
            kind=info.kind,
            kept=kept,
            views=self.encoding.encoded_views,
            source_tokens=self._source_tokens(),
            times=np.concatenate(self.times),
            indices=np.concatenate(self.indices),
            frame_size=self.size,
            source_size=(info.height, info.width),
            duration_seconds=info.duration_seconds,
            source_fps=info.source_fps,
            sample_fps=info.sample_fps,
            seconds_per_step=self.encoding.seconds_per_step,
            codec=info.codec,
            decoder=info.decoder,
            source_bytes=done.source_bytes,
            source_modified_ns=done.source_modified_ns,
            source_hash=done.source_hash,
            bad_packets=done.bad_packets,
            corrupt_frames=done.corrupt_frames,
            metadata=self.item.metadata,
        )

    def _kept(self) -> TokenSet:
        columns = [torch.cat(column) for column in zip(*self.rows)]
        if self.stream is not None:
            coords, mass, source = columns
            return TokenSet(self.spool.tensor(), coords, mass, source, stats=dict(self.stream.finish()))
        visual = VisualTokens(
            tokens=self.spool.tensor(),
            coords=columns[0],
            views=self.encoding.encoded_views,
            structural=columns[1],
            signals={name: torch.cat([part[name] for part in self.signals]) for name in self.signals[0]},
            seconds_per_step=self.encoding.seconds_per_step,
        )
        kept = self.compressor.compress(visual, self.item.id)
        return kept if self.tokens_dtype is None else replace(kept, tokens=kept.tokens.to(self.tokens_dtype))

    def _source_tokens(self) -> int:
        """Tokens at full resolution, also where the method shrank the frames before the encoder."""
        if self.compressor.pixel_scale == 1.0:
            return self.tokens_seen
        _, height, width = self.tower.sizer.grid(self.info, self.tower.sizer(self.info))
        return self.encoding.encoded_views[0].grid[0] * height * width

    def close(self) -> None:
        self.spool.close()


def torch_dtype(name: str) -> torch.dtype | None:
    """``float16`` and the like; None for ``auto``, which stores what the tower gives."""
    return None if name == "auto" else _DTYPES[name]


_DTYPES: dict[str, Any] = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
