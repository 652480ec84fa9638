"""The Ray cluster of a run: reached or started, looked at, filled with actors. Only this file imports ray."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from tokcli.errors import TokcliError, UsageError
from tokcli.pipeline.ray.messages import Place, Setup
from tokcli.pipeline.ray.sizes import Node
from tokcli.pipeline.ray.worker import Worker

CONNECT_SECONDS = 10.0
INSTALL = 'pip install "tokcli[ray]"'
# Only messages and results of calls go through it: no frames, no tokens.
OBJECT_STORE_BYTES = 100 << 20


class ActorLostError(Exception):
    """The process of an actor is gone, or its node is."""


class Cluster:
    """A context manager. A cluster that was started here ends with it; one that was there stays, without our actors.

    Raises ``UsageError`` where ray is not installed or nothing answers at ``address``.
    """

    def __init__(self, address: str | None) -> None:
        # Ray reports the use of clusters to its makers unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # In a cluster that is started here, actors are as important as a local run would be.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            import ray
        except ImportError as error:
            raise UsageError(f"--executor ray needs ray, which cannot be imported ({error}); `{INSTALL}`") from None
        self._ray: Any = ray
        self._connected = not ray.is_initialized()
        if self._connected:
            with _own_handlers():
                self._connect(address or os.environ.get("RAY_ADDRESS") or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connected:
            self._ray.shutdown()

    def _connect(self, address: str | None) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        if address is None and (recorded := _recorded()) is not None and _unreached(recorded) is None:
            address = recorded
        if address in (None, "local"):
            self._init("local", **quiet, **local)
        else:
            _check_answers(address)
            with _few_tries():
                self._init(address, **quiet)
        _keep_stdout(sys.modules.get("ray._private.worker"))

    def _init(self, address: str, **options: Any) -> None:
        try:
            self._ray.init(address=address, **options)
        except BaseException as error:
            with suppress(Exception):
                self._ray.shutdown()
            if not isinstance(error, Exception):
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            what = "cannot be started on this machine" if address == "local" else f"at {address} cannot be used"
            raise UsageError(
                f"Ray {what}: {reason}; `ray status --address ...` tells how a cluster is, and --ray-address local "
                "starts one here"
            ) from None

    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        return [
            Node(node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    def actor(self, setup: Setup, cpus: int, gpus: float) -> Any:
        """Start one; it is there when its first call answers."""
        # The driver starts another in its place: it knows what the dead one had in work.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        return self._ray.remote(_Actor).options(scheduling_strategy="SPREAD", **options).remote(setup)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """The calls of these that have ended, at least one or after ``seconds``."""
        if not calls:
            time.sleep(seconds)
            return []
        ready = self._ready(calls, 1, seconds)
        return self._ready(calls, len(calls), 0) if ready else []  # and what has come meanwhile

    def _ready(self, calls: Sequence[Any], least: int, seconds: float) -> list[Any]:
        try:
            return list(self._ray.wait(list(calls), num_returns=least, timeout=seconds)[0])
        except SystemError:
            # What a signal's handler raises comes through Ray's native code as this. Who asks for a stop is asked for
            # it again by the observer.
            return []

    def result(self, call: Any) -> Any:
        """What an ended call gives. Raises ``ActorLostError``, or the error that was raised in the actor."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(call)
        except exceptions.RayTaskError as error:
            raise _cause(error) from None
        except exceptions.RayActorError as error:
            raise ActorLostError(_reason(str(error))) from None

    def kill(self, actor: Any) -> None:
        """End an actor at once; nothing happens where it is dead."""
        with suppress(Exception):
            self._ray.kill(actor, no_restart=True)


class _Actor(Worker):
    """A worker that knows its node."""

    def place(self) -> Place:
        import ray

        return replace(super().place(), node=ray.get_runtime_context().get_node_id())


def _reason(told: str) -> str:
    """A few words from the many that Ray has for a death."""
    errors = re.findall(r"\b\w*(?:Error|Exception): [^\n]+", told)
    if errors:
        return str(errors[-1])
    return "its node is gone" if "node has died" in told else "its process died"


def _cause(error: Any) -> Exception:
    cause = error.cause
    if isinstance(cause, ModuleNotFoundError):
        return UsageError(f"a node of the Ray cluster lacks {cause.name}; install the same packages on all nodes")
    if isinstance(cause, TokcliError):
        return cause
    return TokcliError(f"unexpected {type(cause).__name__} in an actor: {' '.join(str(cause).split())}")


def _check_answers(address: str) -> None:
    """Raise ``UsageError`` where nobody listens: Ray itself tries again for minutes."""
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray-address {address} is for Ray Client; write HOST:PORT of the cluster (6379 is usual) on one of its "
            "nodes, or submit the command with `ray job submit`"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not host:
        raise UsageError(f"--ray-address {address!r}: write HOST:PORT (6379 is usual), auto or local")
    if (error := _unreached(address)) is not None:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); start one there with `ray start --head`, look at the "
            "address, or give --ray-address local to start one on this machine"
        )


def _unreached(address: str) -> Exception | None:
    """Why nobody can be spoken to at HOST:PORT; None where somebody listens."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        return error
    return None


def _recorded() -> str | None:
    """The cluster that was started last on this machine, running or not: `ray start` notes it in a file."""
    try:
        return (Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray/ray_current_cluster").read_text().strip() or None
    except OSError:
        return None


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray puts handlers of its own in the place of those that end a run in order, also in native code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # A stop that came meanwhile has changed them: it must stay.
            if handler is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def _few_tries() -> Iterator[None]:
    """Where something listens that is not Ray, one try of 40 seconds instead of twenty."""
    name = "RAY_gcs_server_port_wait_time_s"
    before = os.environ.get(name)
    os.environ[name] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _keep_stdout(module: ModuleType | None) -> None:
    """Ray writes what it says of dead workers to stdout, where results go. We say it ourselves."""
    if hasattr(module, "print_to_stdstream"):
        setattr(module, "print_to_stdstream", lambda data, ignore_prefix: None)  # noqa: B010 - foreign and untyped
