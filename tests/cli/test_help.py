"""Help: fast, complete, with examples."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

COMMANDS = (
    *("compress", "infer", "eval", "tune", "inspect", "methods", "models", "render", "run", "doctor", "debug"),
    *("verify", "repair", "compact", "merge", "plan"),
)


def test_help_is_fast_and_light() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['tokcli', '--help']\n"
        "from tokcli.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    heavy = [m for m in ('torch', 'transformers', 'av', 'PIL', 'pyarrow', 'pydantic') if m in sys.modules]\n"
        "    sys.stderr.write(f'{end.code} {heavy}')\n"
    )
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert result.stderr == "0 []"
    for command in COMMANDS:
        assert f" {command} " in result.stdout
    # Of the processor, and the best of five: other work on the machine must not fail this, an import of torch would.
    assert min(seconds) < 0.4


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(tokcli, command: str) -> None:  # type: ignore[no-untyped-def]
    result = tokcli(command, "--help")
    assert result.code == 0
    assert "--json" in result.stdout
    if command != "doctor":
        assert f"tokcli {command}" in result.stdout or command == "models"


def test_version(tokcli) -> None:  # type: ignore[no-untyped-def]
    import tokcli as package

    assert tokcli("--version").stdout == f"tokcli {package.__version__}\n"
