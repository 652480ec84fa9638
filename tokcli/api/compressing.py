"""``tokcli.compress``: the command as a function."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokcli.errors import UsageError

if TYPE_CHECKING:
    from tokcli.pipeline.progress import CompressSummary, Observer

AnyPath = str | os.PathLike[str]
_SAMPLING = ("fps", "num_frames", "max_frames")


def compress(
    inputs: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    *,
    method: str = "dtd",
    keep: float | None = None,
    max_tokens: int | None = None,
    threshold: float | None = None,
    model: str = "nano",
    options: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> CompressSummary:
    """Turn videos and images into a token cache, as ``tokcli compress`` does; prints nothing.

    Decoders are processes of their own, so a script that calls this must be importable without side effects
    (``if __name__ == "__main__":``). Run again, it goes on where it was stopped.

    Args:
        inputs: Files, folders, globs, or manifests (csv, jsonl, parquet); one or several.
        output: Folder of the cache.
        method: Name of a method, or several with commas between.
        keep: Share of the tokens to keep, in (0, 1]; or ``max_tokens``, a number for each item; or the method's own
            ``threshold``.
        model: "nano", "nano-clip", a checkpoint folder or a hub name.
        options: The method's own, ``{"reference": "kept"}``.
        observer: Sees the run while it goes on (``tokcli.pipeline.progress.Observer``).
        **settings: ``fps`` or ``num_frames`` and ``max_frames``, and all other keys of a recipe's ``compress``:
            ``also``, ``device``, ``dtype``, ``tokens_dtype``, ``workers``, ``overwrite``, ``path_col``, ``shard``
            ("3/8", the third of eight parts that fill one folder), ... Tokens are stored as int8 where a method drops
            some, and as computed by ``none``; ``tokens_dtype="exact"`` stores them as computed by any method.

    Returns:
        Where the cache stands: items, failures, tokens and bytes. A file that can't be used is counted in ``failed``
        and has a row in ``open_cache(output).errors()``; it raises nothing.

    Raises:
        UsageError: Something that can't work, before any work: a method, model, setting or input that isn't there.
        CacheConflictError: The cache is there and was made with another configuration.
        CacheError: The cache can't be written.
    """
    from tokcli.checking import check
    from tokcli.pipeline.compress import compress as run
    from tokcli.recipe import CompressRecipe

    if method == "auto":
        raise UsageError(
            "method auto searches and reports, which is the work of `tokcli tune`; give the method that it chooses"
        )
    sampling = {name: settings.pop(name) for name in _SAMPLING if name in settings}
    if sampling.get("num_frames") is not None:
        sampling.setdefault("fps", None)
    values: dict[str, Any] = {
        **settings,
        "inputs": [os.fspath(path) for path in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)],
        "output": os.fspath(output),
        "method": method,
        "keep": keep,
        "max_tokens": max_tokens,
        "threshold": threshold,
        "model": model,
        "options": {name: _text(value) for name, value in (options or {}).items()},
    }
    if sampling:
        values["sampling"] = {**settings.get("sampling", {}), **sampling}
    recipe: CompressRecipe = check(CompressRecipe, values, "compress")
    return run(recipe, observer)


def _text(value: Any) -> str:
    """An option as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)
