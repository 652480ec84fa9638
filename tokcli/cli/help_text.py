"""Help that fits any terminal: prose is written in lines and shown in paragraphs."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def help_of(command: Callable[..., object]) -> str:
    """The docstring of ``command`` with the lines of a paragraph joined: Rich breaks them where the terminal ends.

    A line that begins with markup begins a line there too; one of ``[dim]``, an example, is a line by itself.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join("\n".join(_lines(paragraph)) for paragraph in paragraphs)


def _lines(paragraph: str) -> list[str]:
    lines: list[str] = []
    for line in paragraph.split("\n"):
        if not lines or line.startswith("[") or lines[-1].startswith("[dim]"):
            lines.append(line)
        else:
            lines[-1] += f" {line}"
    return lines
