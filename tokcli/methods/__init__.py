"""Compression methods: what to keep of an item's visual tokens."""

from tokcli.methods import catalog as _catalog
from tokcli.methods import selectors as _selectors
from tokcli.methods import tower_catalog as _tower_catalog
from tokcli.methods.base import METHODS, FrameChoice, Method, Stats, Stream, method
from tokcli.methods.compose import Compressor, Session
from tokcli.methods.guided import SELECTORS, Query, Selection, resolve_selector
from tokcli.methods.resolve import describe, method_names, resolve

del _catalog, _selectors, _tower_catalog

__all__ = [
    "METHODS",
    "SELECTORS",
    "Compressor",
    "FrameChoice",
    "Method",
    "Query",
    "Selection",
    "Session",
    "Stats",
    "Stream",
    "describe",
    "method",
    "method_names",
    "resolve",
    "resolve_selector",
]
