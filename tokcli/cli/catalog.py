"""`tokcli methods` and `tokcli models`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tokcli.cli.options import Json
from tokcli.cli.output import results, show, table


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one method in full.")] = None,
    as_json: Json = False,
) -> None:
    """List the compression methods, or show one.

    [dim]tokcli methods dtd[/dim]
    """
    from tokcli.methods import describe, method_names

    if name is not None:
        page = describe(name)
        show(page, as_json, lambda: _draw_method(page))
        return
    pages = [describe(known) for known in method_names()]

    def draw() -> None:
        rows = [
            (page["name"], ", ".join(page["budgets"]) or "-", "yes" if page["streaming"] else "no", page["summary"])
            for page in pages
        ]
        results.print(table("", ("method", "budgets", "streams", "what it does"), rows))

    show({"methods": pages}, as_json, draw)


def _draw_method(page: dict[str, Any]) -> None:
    results.print(f"[bold]{page['name']}[/bold]: {page['summary']}")
    facts = [
        ("paper", page["paper"] or "-"),
        ("needs", ", ".join(page["needs"]) or "tokens"),
        ("streams", "yes: memory does not grow with the video" if page["streaming"] else "no: sees the whole item"),
        ("budgets", ", ".join(f"--{budget.replace('_', '-')}" for budget in page["budgets"]) or "none"),
    ]
    results.print(table("", ("", ""), facts))
    options = [(name, entry["type"], entry["default"], entry["description"]) for name, entry in page["options"].items()]
    if options:
        results.print(table("options (--set NAME=VALUE)", ("name", "type", "default", "meaning"), options))


def models(as_json: Json = False) -> None:
    """List the model families that tokcli drives.

    Any checkpoint folder of a listed family works, and the bundled `nano`:

    [dim]tokcli compress videos/ -o cache --model /path/to/Qwen2.5-VL-7B-Instruct[/dim]
    """
    from tokcli.models import list_models

    listed = list_models()

    def draw() -> None:
        columns = list(dict.fromkeys(key for row in listed for key in row))
        results.print(table("", columns, [[_cell(row.get(key, "")) for key in columns] for row in listed]))

    show({"models": listed}, as_json, draw)


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
