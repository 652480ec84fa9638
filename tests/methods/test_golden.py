"""Every method against what its authors' own code gave, case by case.

``TOKCLI_GOLDEN`` names the folder with a folder of ``.npz`` files for each method; by default the small selection in
``tests/golden``. Folders of methods that do not exist here are not collected. The modules ``golden_*.py`` beside this
one hold, by folder, what is done with a case; each lists the cases that are not portable, with the reason.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from method_items import Arrays

COMMITTED = Path(__file__).parents[1] / "golden"
GOLDEN = Path(os.environ.get("TOKCLI_GOLDEN") or COMMITTED)
RUNNERS: dict[str, Callable[[str, Arrays], None]] = {
    folder: run
    for module in sorted(Path(__file__).parent.glob("golden_*.py"))
    for folder, run in importlib.import_module(module.stem).RUNNERS.items()
}

CASES = [
    pytest.param(folder, path, id=f"{folder}-{path.stem}")
    for folder in RUNNERS
    for path in sorted((GOLDEN / folder).glob("*.npz"))
]


@pytest.mark.parametrize(("folder", "path"), CASES)
def test_golden(folder: str, path: Path) -> None:
    with np.load(path) as arrays:
        RUNNERS[folder](f"{folder}-{path.stem}", dict(arrays))


@pytest.mark.parametrize("folder", RUNNERS)
def test_a_selection_is_committed(folder: str) -> None:
    assert list((COMMITTED / folder).glob("*.npz"))
    assert (COMMITTED / folder / "README.md").is_file(), "where the arrays come from"
