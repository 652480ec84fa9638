"""What a method can't be asked for with a given vision tower, known before any item is decoded."""

from __future__ import annotations

from tokcli.errors import MethodError
from tokcli.methods import Compressor
from tokcli.models import VisionTower
from tokcli.models.inside import check_inside


def check_method(compressor: Compressor, tower: VisionTower, *, reuse: bool = False) -> None:
    """Raise ``MethodError`` or ``ModelError`` for a method or a budget that this tower can't carry.

    ``reuse``: whether tokens of unchanged pixels are to be taken from the step before.
    """
    missing = sorted(compressor.needs - {"tokens"} - set(tower.signals))
    if missing:
        raise MethodError(
            f"method {compressor.name} needs the signal {missing[0]}, {tower.without(missing[0])}; "
            "choose another method, or another --importance"
        )
    if compressor.pixel_scale < 1 and not tower.sizer.scalable:
        raise MethodError(
            f"method {compressor.name} makes frames smaller, {tower.identity['model']} takes them in one size only; "
            "choose a method that works on tokens"
        )
    inside = compressor.in_tower
    if inside is None:
        return
    if reuse:
        raise MethodError(
            f"method {compressor.name} reduces tokens inside the tower, so none can be taken from the step before; "
            "leave out --reuse-unchanged"
        )
    check_inside(tower, inside, compressor.needs)
