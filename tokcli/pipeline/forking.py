"""How decoder processes begin: forked from one process that has loaded what they need, and never from this one.

Loading torch and the libraries of media takes seconds of processor time. A server that has done it once (Python's
"forkserver") makes each decoder in milliseconds, the many of a wide machine and those that replace a killed one; it
has no thread and no file of ours open, so that nothing is inherited that a decoder should not have.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.process
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tokcli.storage import scratch_folder

_LOADED = ["tokcli.pipeline.decoder_loaded"]


def start_process(target: Callable[..., None], arguments: tuple[Any, ...], *, alone: bool = False) -> BaseProcess:
    """Start ``target``, a function of a module, in a process that ends with this one.

    ``alone`` is for a process that no others follow: it loads what it needs itself, and no more.
    """
    context: Any = multiprocessing.get_context("spawn" if alone or sys.platform != "linux" else "forkserver")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(_LOADED)
    process: BaseProcess = context.Process(target=target, args=arguments, daemon=True, name="tokcli-decoder")
    with _without_main_module(), _sockets_in_scratch():
        process.start()
    return process


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Children load the main module of this process again, be it a command, a test runner or a user's script: no use
    for a decoder, and a script that is not guarded against it would run once more in each."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


@functools.cache
def _short(folder: Path) -> str:
    """Another name for a folder of this process, which stays: a socket's may have 107 bytes, and ``TMPDIR`` more."""
    if not Path("/proc/self/fd").is_dir():
        return str(folder)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_CLOEXEC)}"


@contextlib.contextmanager
def _sockets_in_scratch() -> Iterator[None]:
    """The server's socket lies in this process's scratch folder: what a killed run leaves of it, a later one removes.

    The folder that Python takes by itself, ``pymp-*`` among the system's temporary files, would stay for ever.
    """
    config: dict[str, Any] = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    before = config.get("tempdir")
    config["tempdir"] = _short(scratch_folder())
    try:
        yield
    finally:
        config["tempdir"] = before  # None is as good as nothing there
