"""Token caches: folders of Parquet shards, written atomically and checked when read. The format is in ``SPEC.md``.

The names below are loaded on first use, so that importing this package costs neither pyarrow nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokcli.cache.compact import compact_cache as compact_cache
    from tokcli.cache.manifest import Manifest as Manifest
    from tokcli.cache.merge import merge_caches as merge_caches
    from tokcli.cache.plain import decode_row as decode_row
    from tokcli.cache.plain import decode_rows as decode_rows
    from tokcli.cache.reader import Cache as Cache
    from tokcli.cache.reader import open_cache as open_cache
    from tokcli.cache.records import ErrorRow as ErrorRow
    from tokcli.cache.repair import repair_cache as repair_cache
    from tokcli.cache.verify import Problem as Problem
    from tokcli.cache.verify import verify_cache as verify_cache
    from tokcli.cache.writer import CacheWriter as CacheWriter

_HOME = {
    "Cache": "reader",
    "CacheWriter": "writer",
    "ErrorRow": "records",
    "Manifest": "manifest",
    "Problem": "verify",
    "compact_cache": "compact",
    "decode_row": "plain",
    "decode_rows": "plain",
    "merge_caches": "merge",
    "open_cache": "reader",
    "repair_cache": "repair",
    "verify_cache": "verify",
}

__all__ = [
    "Cache",
    "CacheWriter",
    "ErrorRow",
    "Manifest",
    "Problem",
    "compact_cache",
    "decode_row",
    "decode_rows",
    "merge_caches",
    "open_cache",
    "repair_cache",
    "verify_cache",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
