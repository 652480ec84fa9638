"""What there is to know of a model before it is used: one of the families, or a checkpoint of one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcli.models.families import BUNDLED, FAMILIES, family_of, list_models
from tokcli.models.settings import read_json
from tokcli.types import MediaInfo, MediaKind

if TYPE_CHECKING:
    from tokcli.models.base import FamilyAdapter
    from tokcli.models.settings import Preprocessing


def _example(kind: MediaKind, height: int, width: int, seconds: int = 60) -> MediaInfo:
    if kind == "image":
        return MediaInfo(kind, width, height, 1, None, 0.0, None, "example", "example")
    return MediaInfo(kind, width, height, seconds, 1.0, seconds, 25.0, "example", "example")


EXAMPLES = {
    "still of 640 x 480": _example("image", 480, 640),
    "still of 1920 x 1080": _example("image", 1080, 1920),
    "minute of 1280 x 720 at 1 frame a second": _example("video", 720, 1280),
}
"""Media whose tokens are counted."""
FIGURES = {
    "all_tokens": "all tokens kept, logits of a prompt from pixels, against the whole model",
    "kept_subset": "a part kept, logits, against the whole model with the other tokens deleted or masked",
}
"""What is measured of each family, by its key in equality.json."""


def describe_model(name: str) -> dict[str, Any]:
    """A page about a family, a bundled model, a checkpoint folder or a hub id, JSON-able.

    A row of :func:`tokcli.models.list_models` with ``stored``, ``limits``, ``equality`` and ``tested_with``. For a
    checkpoint also ``checkpoint``: ``width`` of a token, ``deepstack_levels``, ``bytes_per_token`` as stored in half
    precision, ``tower_bytes`` and ``language_bytes`` of the weight files, and ``tokens`` of some example media.

    Raises:
        ModelError: No such family and no such checkpoint, or files of the checkpoint are missing or contradict.
    """
    rows = {row["name"]: row for row in list_models()}
    if name in FAMILIES:
        return _page(rows[name], FAMILIES[name].load())
    from tokcli.models.checkpoints import resolve_checkpoint
    from tokcli.models.loading import load_config

    folder = resolve_checkpoint(name)
    family = family_of(folder)
    if name in BUNDLED:
        row = rows[name]
    else:
        row = {**rows[read_json(folder / "config.json")["model_type"]], "name": name, "kind": "checkpoint"}
    withheld = family.withheld(load_config(folder))
    signals = [signal for signal in row["signals"] if signal not in withheld]
    return {**_page(row, family), "signals": signals, "checkpoint": _measured(folder, family)}


def _page(row: dict[str, Any], family: FamilyAdapter) -> dict[str, Any]:
    known = equality()
    return {
        **row,
        "stored": family.stored,
        "limits": list(family.limits),
        "equality": known["families"].get(row["family"], {}),
        "tested_with": known["versions"],
    }


@cache
def equality() -> dict[str, Any]:
    """Largest differences to transformers' whole model by family, as the tests measured them, and with which versions.

    ``{"versions": {"torch", "transformers"}, "families": {family: {key of FIGURES: difference}}}``; written by
    ``python -m bench.equality``.
    """
    document: dict[str, Any] = json.loads((Path(__file__).parent / "equality.json").read_text(encoding="utf-8"))
    return document


def _measured(folder: Path, family: FamilyAdapter) -> dict[str, Any]:
    """What a checkpoint's files say; no weights are loaded."""
    from tokcli.models.fingerprint import half_bytes
    from tokcli.models.loading import load_config

    config = load_config(folder)
    preprocessing = family.preprocessing(folder, config)
    width, levels = int(config.get_text_config().hidden_size), family.deepstack_levels(config)
    tower, language = half_bytes(folder, family)
    return {
        "width": width,
        "deepstack_levels": levels,
        "bytes_per_token": 2 * width * (1 + levels),
        "tower_bytes": tower,
        "language_bytes": language,
        "tokens": {name: _tokens(preprocessing, family, config, info) for name, info in EXAMPLES.items()},
    }


def _tokens(preprocessing: Preprocessing, family: FamilyAdapter, config: Any, info: MediaInfo) -> int:
    from tokcli.models.tiles import Tiling

    settings, sizer = preprocessing.of(info.kind), preprocessing.sizer
    if isinstance(settings.bounds, Tiling):
        return sum(part.length for part in family.still_parts(config, settings, info.height, info.width))
    steps, rows, columns = sizer.grid(info, sizer(info))
    return steps * rows * columns
