"""The methods of this package that work inside the vision tower. A new one adds its line here."""

from __future__ import annotations

from tokcli.methods.auroracap import auroracap
from tokcli.methods.base import METHODS
from tokcli.methods.evit import evit
from tokcli.methods.flowcut import flowcut
from tokcli.methods.mctf import mctf
from tokcli.methods.mustdrop import mustdrop
from tokcli.methods.pumer import pumer
from tokcli.methods.tome import tome
from tokcli.methods.turbo import turbo

for _method in (tome, auroracap, turbo, mctf, pumer, evit, flowcut, mustdrop):
    METHODS.register(_method.name, _method)
