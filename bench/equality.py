"""Differences between the two halves and transformers' whole model, by family, as the contract tests measure them.

Runs those tests and writes tokcli/models/equality.json, which `tokcli models NAME` and docs/models.md show.

    python -m bench.equality
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TARGET = REPOSITORY / "tokcli" / "models" / "equality.json"
TESTS = "all_tokens_give_the_logits or rows_deleted or as_if_nobody or deletion"


def measure() -> dict[str, dict[str, float]]:
    """The largest difference by family and key, over all of the tests that note one."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/models", "-k", TESTS, f"--junitxml={report}"]
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=sys.stderr)
        noted = [element.attrib for element in ElementTree.parse(report).iter("property")]
    largest: dict[str, dict[str, float]] = {}
    for entry in noted:
        if entry["name"].startswith("equality "):
            _, family, key = entry["name"].split()
            figures = largest.setdefault(family, {})
            figures[key] = max(figures.get(key, 0.0), float(entry["value"]))
    return largest


def main() -> int:
    versions = {name: version(name).split("+")[0] for name in ("torch", "transformers")}
    families = {family: dict(sorted(figures.items())) for family, figures in sorted(measure().items())}
    TARGET.write_text(json.dumps({"versions": versions, "families": families}, indent=2) + "\n", encoding="utf-8")
    for family, figures in families.items():
        print(f"{family:20}", ", ".join(f"{key} {value:.1e}" for key, value in figures.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
