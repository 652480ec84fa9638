"""File names as text that can be stored and printed."""

from __future__ import annotations


def utf8_name(path: str) -> str:
    """``path`` as valid UTF-8: bytes of a name that are not UTF-8 become ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """``text`` with control characters escaped, so that a message stays one line whatever the file is called."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in utf8_name(text))
