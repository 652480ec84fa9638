"""What ``tokcli --help`` costs, against an empty Typer program and a bare interpreter: processor time, side by side."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

BARE = "pass"
TYPER = (
    "import sys, typer; sys.argv = ['x', '--help']; app = typer.Typer(); "
    "app.command()(lambda: None); app.callback()(lambda: None); app()"
)
TOKCLI = "import sys; sys.argv = ['tokcli', '--help']; from tokcli.cli.app import main; main()"


def main(argv: list[str] | None = None) -> None:
    """Print the least processor time of each, of alternating runs, and their ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    programs = {"interpreter": BARE, "empty typer program": TYPER, "tokcli --help": TOKCLI}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.repeats):
        for name, code in programs.items():
            seconds[name].append(_processor_seconds(code))
    least = {name: min(values) for name, values in seconds.items()}
    ratio = least["tokcli --help"] / least["empty typer program"]
    if options.json:
        print(json.dumps({"seconds": least, "help_over_typer": ratio}))
        return
    for name, value in least.items():
        print(f"{name:22} {value * 1e3:6.0f} ms")
    print(f"tokcli --help over an empty Typer program: {ratio:.2f}")


def _processor_seconds(code: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
