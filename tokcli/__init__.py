"""tokcli: encode media datasets once, keep the visual tokens that matter, answer from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tokcli.cache import open_cache as open_cache

__all__ = ["__version__", "open_cache"]


def __getattr__(name: str) -> Any:
    # Looked up on first use: `import tokcli` and `tokcli --help` must not pay for pyarrow or torch.
    if name == "open_cache":
        from tokcli.cache import open_cache

        return open_cache
    raise AttributeError(f"module 'tokcli' has no attribute {name!r}")
