"""The encoder's lanes: tower calls that run beside the loop that feeds and empties them.

On an accelerator there are two lanes: while it computes a call, the next one is queued behind it, so that it never
waits for Python, and the loop reads decoders, compresses and writes. On a CPU there are as many lanes as cores for it,
each a thread with one torch thread: calls on different chunks side by side need no barriers between threads, and give
the same bits however many cores there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import torch

from tokcli.ops.frames import Floats
from tokcli.pipeline.decoder import Event
from tokcli.types import VisualTokens

Result = TypeVar("Result")

# Each lane holds the activations of one call.
MAX_LANES = 16
ACCELERATOR_LANES = 2
# Torch's backend for Apple's GPUs is not made for calls from several threads.
ONE_LANE = ("mps",)


@dataclass(frozen=True)
class EncodingJob:
    """An event in the order of arrival, with what a lane makes of its frames: tokens, or a description of each step."""

    event: Event
    tokens: Future[VisualTokens | Floats] | None

    @property
    def ready(self) -> bool:
        return self.tokens is None or self.tokens.done()

    def wait(self) -> None:
        """Block until no lane reads the chunk's pixels any more."""
        if self.tokens is not None:
            wait([self.tokens])


class EncoderLanes:
    """Runs tower calls in threads, until ``close``. ``on_ready`` is called, in any thread, whenever one has ended.

    On a CPU the thread that makes it has one torch thread meanwhile, as it compresses beside them.
    """

    def __init__(self, device: torch.device, cores: int, on_ready: Callable[[], None] = lambda: None) -> None:
        self._threads = torch.get_num_threads()
        if device.type == "cpu":
            self.count = min(cores, MAX_LANES)
            torch.set_num_threads(1)
        else:
            self.count = 1 if device.type in ONE_LANE else ACCELERATOR_LANES
        self._on_ready = on_ready
        self._executor = ThreadPoolExecutor(
            self.count, "tokcli-encoder", initializer=torch.set_num_threads, initargs=(1,)
        )

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Start a call as soon as a lane is free."""
        future = self._executor.submit(call)
        future.add_done_callback(lambda _: self._on_ready())
        return future

    def close(self) -> None:
        """Drop what has not begun, wait for what has, and give the caller its torch threads back."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)
