"""`tokcli methods` and `tokcli models`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.options import Json
from tokcli.cli.output import results, show, table


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one method in full.")] = None,
    as_json: Json = False,
) -> None:
    """List the compression methods, or show one in full.

    What it does, its paper, what it needs, its options and variants, the golden cases that hold
    it, and a recipe to start from.

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


WHERE = {
    "pixels": "the frames, before the vision tower: no cache can be derived with it",
    "tower": "the vision tower from inside: no cache can be derived with it",
    "tokens": "the tower's tokens: runs in `tokcli compress` and `tokcli derive`",
}


def _draw_method(page: dict[str, Any]) -> None:
    results.print(f"[bold]{page['name']}[/bold]  {escape(page['description'])}\n")
    facts = [
        ("paper", page["paper"]),
        ("authors' code", page["code"]),
        ("its licence", page["licence"]),
        ("output", f"{page['kind']}, number of tokens {page['count']}"),
        ("works on", WHERE[page["where"]]),
        ("needs", ", ".join(page["needs"])),
        ("may need", ", ".join(page["may_need"])),
        ("streams", "yes: memory does not grow with the video" if page["streaming"] else "no: sees the whole item"),
        ("budgets", ", ".join(f"--{budget.replace('_', '-')}" for budget in page["budgets"]) or "none"),
        *((f"variant {name}", text) for name, text in page["variants"].items()),
        ("golden cases", ", ".join(f"tests/golden/{folder}" for folder in page["golden"])),
    ]
    results.print(table("", ("", ""), [fact for fact in facts if fact[1]]))
    options = [
        (
            option["name"],
            "-" if option["default"] is None else option["default"],
            option["allowed"],
            option["description"],
        )
        for option in page["options"]
    ]
    if options:
        results.print()
        results.print(table("Options, set with --set NAME=VALUE", ("name", "default", "allowed", "meaning"), options))
    results.print("\n[bold]A recipe[/bold], for `tokcli run`\n")
    results.print(escape(page["recipe"]), end="")


def models(as_json: Json = False) -> None:
    """List the model families that tokcli drives.

    Any checkpoint folder of a listed family works, and the bundled `nano`:

    [dim]tokcli compress videos/ -o cache --model /path/to/Qwen2.5-VL-7B-Instruct[/dim]
    """
    from tokcli.models import list_models

    listed = list_models()

    def draw() -> None:
        rows = [
            (row["name"], row["title"], ", ".join(row["media"]), ", ".join(row["checkpoints"]), _schemes(row))
            for row in listed
        ]
        results.print(table("", ("name", "what", "media", "checkpoints, for example", "positions"), rows))

    show({"models": listed}, as_json, draw)


def _schemes(row: dict[str, Any]) -> str:
    return ", ".join(row["position_schemes"])
