"""`tokcli methods` and `tokcli models`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.options import Json
from tokcli.cli.output import human_bytes, results, show, table


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
        ("experimental", page["experimental"]),
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


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Show one: a family, a checkpoint folder or a hub id."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the model families that tokcli drives, or show one in full.

    Any checkpoint folder of a listed family works, and the bundled `nano`. Of a family: what a
    cache holds, positions, signals, limits, and how equal the answers are. Of a checkpoint also
    its size, bytes for a token, and tokens of some examples; no weights are loaded.

    [dim]tokcli models qwen3_vl[/dim]
    [dim]tokcli models /path/to/Qwen2.5-VL-7B-Instruct[/dim]
    [dim]tokcli compress videos/ -o cache --model /path/to/Qwen2.5-VL-7B-Instruct[/dim]
    """
    from tokcli.models import describe_model, list_models

    if name is not None:
        page = describe_model(name)
        show(page, as_json, lambda: _draw_model(page))
        return
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


def _draw_model(page: dict[str, Any]) -> None:
    results.print(f"[bold]{escape(page['name'])}[/bold]  {escape(page['title'])}\n")
    facts = [*model_facts(page), *(("limit", limit) for limit in page["limits"])]
    if checkpoint := page.get("checkpoint"):
        levels = checkpoint["deepstack_levels"]
        facts += [
            ("width of a token", f"{checkpoint['width']}" + (f", and {levels} more for DeepStack" if levels else "")),
            ("bytes of a token", f"{checkpoint['bytes_per_token']} in half precision"),
            ("weights of the tower", human_bytes(checkpoint["tower_bytes"])),
            ("of the language model", human_bytes(checkpoint["language_bytes"])),
            *((f"tokens of a {example}", f"{tokens:,}") for example, tokens in checkpoint["tokens"].items()),
        ]
    results.print(table("", ("", ""), [(name, fact) for name, fact in facts if fact]))


def model_facts(page: dict[str, Any]) -> list[tuple[str, str]]:
    """What holds for all checkpoints of a family, in words."""
    from tokcli.models.catalog import FIGURES

    tested = page["tested_with"]
    return [
        ("family", page["family"]),
        ("checkpoints, for example", ", ".join(page["checkpoints"])),
        ("media", ", ".join(page["media"])),
        ("a cache holds", page["stored"]),
        ("position schemes", ", ".join(page["position_schemes"])),
        ("signals", ", ".join(page["signals"]) or "none"),
        *(("equality", f"{FIGURES[key]}: {largest:.1g}") for key, largest in page["equality"].items()),
        ("tested with", ", ".join(f"{name} {version}" for name, version in tested.items())),
    ]
