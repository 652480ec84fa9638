"""One item on its way from frames to token sets: encode, compress for every cache that misses it, collect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tokcli.cache.levels import joined, parted
from tokcli.methods.compose import after_tower
from tokcli.methods.deepstack import DEEPSTACK
from tokcli.models import VisionTower
from tokcli.models.describing import Describe
from tokcli.ops.frames import Floats
from tokcli.pipeline.decoder import Event
from tokcli.pipeline.keyframing import Keyframing
from tokcli.pipeline.messages import Chunk, Finished, Opened
from tokcli.pipeline.reduction import Reduction
from tokcli.pipeline.restore import with_announced, with_damage
from tokcli.pipeline.spool import TokenSpool
from tokcli.pipeline.targets import Target
from tokcli.types import EncodedItem, MediaItem, Reduced, VisualTokens


class ItemSession:
    """Takes an item's chunks in order; memory does not grow with the item where all methods stream.

    A streaming method sees every chunk as it comes and only what it keeps is collected. Any other method sees the
    whole item at the end, with its tokens in a ``TokenSpool`` that all such methods share.
    """

    def __init__(
        self,
        item: MediaItem,
        opened: Opened,
        tower: VisionTower,
        targets: Sequence[Target],
        folder: Path,
        reuse: float | None = None,
        describe: Describe | None = None,
    ) -> None:
        """``folder`` is where tokens lie that are too many for memory; ``describe`` is what frames are chosen by, where
        some are not to be encoded. Raises ``MethodError``, ``ModelError``."""
        self.item, self.info, self.size, self.tower = item, opened.info, opened.size, tower
        needs = frozenset[str]().union(*(target.compressor.needs for target in targets))
        inside = targets[0].compressor.in_tower
        self.encoding = tower.start(opened.info, opened.size, needs, reuse, inside)
        choice = targets[0].compressor.frame_choice
        self.keyframing: Keyframing | None = None
        if choice is not None and describe is not None and opened.info.kind == "video":
            self.keyframing = Keyframing(choice, describe, self.encoding, tower.frames_per_step, folder)
        self.reductions = {
            target: Reduction(target.compressor.on_tokens, item.id, self.encoding.views, folder, target.torch_dtype)
            for target in targets
        }
        self.spool = TokenSpool(folder)
        self.rows: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.signals: list[dict[str, torch.Tensor]] = []
        self.reduced: list[Reduced] = []
        self.times: list[npt.NDArray[np.float64]] = []
        self.indices: list[npt.NDArray[np.int64]] = []
        self.tokens_seen = 0
        self.levels = 0
        self._whole: VisualTokens | None = None
        self._closed = False
        self._failed_at_end: dict[Target, Exception] = {}

    @property
    def targets(self) -> list[Target]:
        """The caches that the item is still made for."""
        return list(self.reductions)

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], VisualTokens | Floats]:
        """Take uint8 (n, h, w, 3) frames at the tower's size; calling the result, in any thread, runs the tower.

        Where frames are chosen first, it only describes them.
        """
        if self.keyframing is not None:
            return self.keyframing.describe(pixels)
        return self.encoding.prepare(pixels)

    def collect(
        self, event: Event, chunk: Chunk, result: VisualTokens | Floats, errors: tuple[type[Exception], ...]
    ) -> dict[Target, Exception]:
        """Compress the tokens of a chunk as far as the methods can; chunks must come in order.

        A target whose method raises one of ``errors`` is given up and returned; the others go on.
        """
        self.times.append(chunk.times)
        self.indices.append(chunk.indices)
        if isinstance(result, VisualTokens):
            return self._take(result, errors)
        assert self.keyframing is not None and event.pixels is not None
        self.keyframing.collect(result, event.pixels)
        return {}

    def chosen_runs(self, most: int) -> Iterator[Callable[[], VisualTokens]]:
        """Calls that encode frames which waited for the end of the clip, until ``most`` are under way.

        What they give goes to ``collect_chosen``, in order. Raises ``MethodError`` where the choice is impossible.
        """
        if self.keyframing is not None:
            yield from self.keyframing.runs(most)

    def collect_chosen(
        self, visual: VisualTokens | Floats, errors: tuple[type[Exception], ...]
    ) -> dict[Target, Exception]:
        """As ``collect``, for what a call of ``chosen_runs`` gave."""
        assert self.keyframing is not None and isinstance(visual, VisualTokens)
        self.keyframing.outstanding -= 1
        return self._take(visual, errors)

    @property
    def encoding_on(self) -> bool:
        """Whether calls of ``chosen_runs`` have yet to come back."""
        return self.keyframing is not None and self.keyframing.outstanding > 0

    def _take(self, visual: VisualTokens, errors: tuple[type[Exception], ...]) -> dict[Target, Exception]:
        if visual.reduced is not None:
            self.reduced.append(visual.reduced)
        self.tokens_seen += len(visual) if visual.reduced is None else visual.reduced.rows
        failed: dict[Target, Exception] = {}
        for target, reduction in self.reductions.items():
            try:
                reduction.push(visual)
            except errors as error:
                failed[target] = error
        for target in failed:
            self.reductions.pop(target).close()
        if not all(reduction.streaming for reduction in self.reductions.values()):
            signals = dict(visual.signals)
            levels = signals.pop(DEEPSTACK, None)
            self.levels = 0 if levels is None else levels.shape[1]
            self.spool.append(joined(visual.tokens, levels))
            self.rows.append((visual.coords, visual.structural))
            self.signals.append(signals)
        return failed

    def finish(self, target: Target, done: Finished) -> EncodedItem:
        """The item as the target keeps it. The session must stay open until it is written; see ``close``.

        Raises what the target's method raised, also where it could not take the separator behind the last frame."""
        if not self._closed:
            self._closed = True
            closing = self.encoding.closing()
            if closing is not None:
                # Every other target gets it all the same: without it an item would be stored one token short.
                self._failed_at_end = self._take(closing, (Exception,))
        if target in self._failed_at_end:
            raise self._failed_at_end[target]
        kept = after_tower(self.reduced, self.reductions[target].finish(self._all_tokens))
        if self.keyframing is not None:
            kept = self.keyframing.in_clip(kept, self.tokens_seen)
        kept = with_announced(kept, self.encoding.views, self.encoding.encoded_views)
        kept = with_damage(kept, done.planned_frames, done.decoded_frames, done.doubtful_frames)
        info = self.info
        return EncodedItem(
            id=self.item.id,
            path=self.item.path,
            kind=info.kind,
            kept=kept,
            views=self.encoding.encoded_views,
            source_tokens=self._source_tokens(target),
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

    def _all_tokens(self) -> VisualTokens:
        if self._whole is None:
            coords, structural = (torch.cat(column) for column in zip(*self.rows))
            signals = {name: torch.cat([part[name] for part in self.signals]) for name in self.signals[0]}
            tokens, levels = parted(self.spool.tensor(), self.levels)
            self._whole = VisualTokens(
                tokens=tokens,
                coords=coords,
                views=self.encoding.encoded_views,
                structural=structural,
                signals=signals if levels is None else signals | {DEEPSTACK: levels},
                seconds_per_step=self.encoding.seconds_per_step,
            )
        return self._whole

    def _source_tokens(self, target: Target) -> int:
        """Tokens at full resolution, also where the method shrank the frames before the encoder."""
        if target.compressor.pixel_scale == 1.0:
            return self.tokens_seen + (0 if self.keyframing is None else self.keyframing.num_left_out)
        _, height, width = self.tower.sizer.grid(self.info, self.tower.sizer(self.info))
        return self.encoding.encoded_views[0].grid[0] * height * width

    def close(self) -> None:
        for reduction in self.reductions.values():
            reduction.close()
        self.spool.close()
        if self.keyframing is not None:
            self.keyframing.close()
