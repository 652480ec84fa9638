"""Help: light, complete, with examples."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.text import Text
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from tokcli.cli.app import app
from tokcli.cli.help_text import help_of

COMMANDS = (
    *("compress", "infer", "eval", "tune", "inspect", "methods", "models", "render", "run", "doctor", "debug"),
    *("verify", "repair", "compact", "merge", "plan"),
)


def test_help_imports_what_it_prints_with_and_no_more() -> None:
    """What makes help slow is imports: so these are held, and their time is measured by `python -m bench startup`."""
    code = (
        "import sys\n"
        "sys.argv = ['tokcli', '--help']\n"
        "before = set(sys.modules)\n"
        "from tokcli.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    loaded = [m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names]\n"
        "    sys.stderr.write(f'{end.code} ' + ' '.join(loaded))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, *loaded = result.stderr.split()
    assert status == "0"
    for command in COMMANDS:
        assert f" {command} " in result.stdout
    packages = {module.split(".")[0] for module in loaded if module != "__main__"}
    # Typer, Rich, and what these two import themselves.
    assert packages <= {"tokcli", "typer", "rich", "click", "shellingham", "annotated_doc", "typing_extensions"} | {
        *("markdown_it", "mdurl", "pygments", "attr", "colorama")
    }
    own = {module for module in loaded if module.startswith("tokcli.")}
    assert own and all(module == "tokcli.errors" or module.startswith("tokcli.cli") for module in own)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(tokcli, command: str) -> None:  # type: ignore[no-untyped-def]
    result = tokcli(command, "--help")
    assert result.code == 0
    assert "--json" in result.stdout
    if command != "doctor":
        assert f"tokcli {command}" in result.stdout or command == "models"


def test_commands_that_read_media_describe_what_they_share_alike() -> None:
    """What one of them says of an option holds for all of them: they scan, decode and encode by the same code."""
    group, said = get_command(app), dict[str, set[tuple[str, str | None]]]()
    assert isinstance(group, TyperGroup)
    for command in ("compress", "plan", "eval", "tune"):
        for option in group.commands[command].params:
            if isinstance(option, TyperOption):
                said.setdefault(str(option.name), set()).add((str(option.help), option.rich_help_panel))
    shared = ("dtype", "device", "path_col", "id_col", "limit", "fps", "num_frames", "max_frames", "resize")
    for name in (*shared, "workers", "timeout", "retry_errors"):
        assert len(said[name]) == 1, (name, said[name])


def test_lines_of_prose_are_joined_and_examples_are_not() -> None:
    def command() -> None:
        """Do it.

        One sentence that is written
        in two lines.

        [bold]first[/bold]: what it
        is
        [bold]second[/bold]: what

        [dim]tokcli do it[/dim]
        [dim]tokcli do that[/dim]
        """

    assert help_of(command).split("\n\n") == [
        "Do it.",
        "One sentence that is written in two lines.",
        "[bold]first[/bold]: what it is\n[bold]second[/bold]: what",
        "[dim]tokcli do it[/dim]\n[dim]tokcli do that[/dim]",
    ]


def test_examples_fit_on_80_columns() -> None:
    examples = [
        Text.from_markup(line).plain
        for command in app.registered_commands
        for line in str(command.help).split("\n")
        if line.startswith("[dim]")
    ]
    assert len(examples) > 40
    assert [example for example in examples if len(example) > 78] == []


def test_version(tokcli) -> None:  # type: ignore[no-untyped-def]
    import tokcli as package

    assert tokcli("--version").stdout == f"tokcli {package.__version__}\n"
