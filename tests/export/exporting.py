"""Odd ids, and an export in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokcli.pipeline.export.run import ExportSummary, export
from tokcli.pipeline.export.settings import ExportSettings

IDS = ("clips/a.mp4", "clips/A.mp4", "../../étoile ☆.v1.mp4", "con", "x" * 300)
"""Odd ids: only the case differs; a way out of the folder, dots, other letters; a name that Windows keeps; too long."""


def run(cache: Path, output: Path, format: str, **settings: Any) -> ExportSummary:
    return export(ExportSettings(cache=str(cache), output=str(output), format=format, **settings))
