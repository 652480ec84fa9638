"""tokcli: encode media datasets once, keep the visual tokens that matter, answer from the cache."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tokcli.api.caches import TokenCache as TokenCache
    from tokcli.api.caches import open_cache as open_cache
    from tokcli.api.compressing import compress as compress
    from tokcli.cache import decode_row as decode_row
    from tokcli.cache import decode_rows as decode_rows
    from tokcli.errors import TokcliError as TokcliError
    from tokcli.models import collate as collate
    from tokcli.models import load_language_model as load_language_model

_HOMES = {
    "TokcliError": "errors",
    "TokenCache": "api.caches",
    "collate": "models",
    "compress": "api.compressing",
    "decode_row": "cache",
    "decode_rows": "cache",
    "load_language_model": "models",
    "open_cache": "api.caches",
}

__all__ = [
    "TokcliError",
    "TokenCache",
    "__version__",
    "collate",
    "compress",
    "decode_row",
    "decode_rows",
    "load_language_model",
    "open_cache",
]


def __getattr__(name: str) -> Any:
    # Looked up on first use: `import tokcli` and `tokcli --help` must not pay for pyarrow or torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
