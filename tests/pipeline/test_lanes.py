"""Tower calls beside the loop that feeds them: how many at once, and who is told when one has ended."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tokcli.pipeline.decoder import Supervision
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.lanes import EncoderLanes


@pytest.mark.parametrize(
    ("device", "cores", "lanes"), [("cpu", 3, 3), ("cpu", 99, 16), ("cuda", 8, 2), ("xpu", 1, 2), ("mps", 8, 1)]
)
def test_as_many_calls_at_once_as_there_are_lanes(device: str, cores: int, lanes: int) -> None:
    everybody = threading.Barrier(lanes + 1)
    running = EncoderLanes(torch.device(device), cores)
    assert running.count == lanes
    futures = [running.submit(lambda: everybody.wait(10)) for _ in range(lanes)]
    one_more = running.submit(lambda: None)
    time.sleep(0.05)
    assert not one_more.done()
    everybody.wait(10)
    for future in [*futures, one_more]:
        future.result(10)
    running.close()


def test_the_caller_has_its_threads_back_at_the_end() -> None:
    """Who compresses and then answers, in a recipe, an evaluation or a script, would do so on one core."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        lanes = EncoderLanes(torch.device("cpu"), 2)
        assert torch.get_num_threads() == 1
        lanes.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_whoever_waits_for_decoders_is_woken_by_a_call_that_ends() -> None:
    """Else an accelerator would idle until the next look at deadlines."""
    with DecoderPool(0, Supervision()) as pool:
        lanes = EncoderLanes(torch.device("cpu"), 1, on_ready=pool.wake)
        go = threading.Event()
        future = lanes.submit(go.wait)
        started = time.monotonic()
        threading.Timer(0.2, go.set).start()
        assert list(pool.poll(60)) == []
        assert future.result(0) is True
        pool.wake()
        pool.wake()
        assert list(pool.poll(60)) == []
        assert time.monotonic() - started < 60
        started = time.monotonic()
        assert list(pool.poll(0.1)) == []  # nobody woke it again
        assert time.monotonic() - started >= 0.1
        lanes.close()
    pool.wake()  # nobody waits any more
