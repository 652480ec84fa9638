"""Compression methods: what to keep of an item's visual tokens."""

from tokcli.methods import catalog as _catalog
from tokcli.methods.base import METHODS, FrameChoice, Method, Stats, Stream, method
from tokcli.methods.compose import Compressor, Session
from tokcli.methods.resolve import describe, method_names, resolve

del _catalog

__all__ = [
    "METHODS",
    "Compressor",
    "Method",
    "Session",
    "Stats",
    "FrameChoice",
    "Stream",
    "describe",
    "method",
    "method_names",
    "resolve",
]
