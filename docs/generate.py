"""Write docs/cli.md, docs/methods.md, docs/models.md and the table in docs/export.md from the code.

With --check, fail if they differ from it.

python docs/generate.py [--check]
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
COMMANDS = (
    "compress",
    "derive",
    "infer",
    "export",
    "eval",
    "tune",
    "inspect",
    "verify",
    "repair",
    "compact",
    "merge",
    "plan",
    "methods",
    "models",
    "render",
    "run",
    "doctor",
    "debug",
)
NOTE = "<!-- Written by docs/generate.py from the code: change it there, then run `make docs`. -->\n\n"


def command_page() -> str:
    """The help of every command, as the terminal shows it, 100 columns wide."""
    os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", TERM="dumb", NO_COLOR="1", _TYPER_FORCE_DISABLE_TERMINAL="1")
    from typer.testing import CliRunner

    from tokcli.cli.app import app

    parts = [NOTE, "# Commands\n"]
    for command in ("", *COMMANDS):
        result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="tokcli", terminal_width=100)
        if result.exit_code:
            raise SystemExit(f"`tokcli {command} --help` failed: {result.output}")
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        parts.append(f"\n## tokcli {command}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "".join(parts)


def methods_page() -> str:
    """A section for every method, with its options."""
    from tokcli.methods import describe, method_names

    parts = [NOTE, "# Methods\n\nUse: `tokcli compress INPUT -o CACHE --method NAME`, `tokcli methods NAME`.\n"]
    for name in method_names():
        parts.append(_method(describe(name)))
    return "".join(parts)


def _method(page: dict[str, Any]) -> str:
    budgets = ", ".join(f"`--{budget.replace('_', '-')}`" for budget in page["budgets"]) or "none"
    facts = [
        ("Paper", page["paper"]),
        ("Authors' code", page["code"]),
        ("Licence of that code", page["licence"]),
        ("Experimental", page["experimental"]),
        ("Output", f"{page['kind']}; number of tokens {page['count']}"),
        ("Works on", {"pixels": "frames", "tower": "the tower from inside"}.get(page["where"], "tokens")),
        ("Needs", ", ".join(page["needs"])),
        ("May need, by its options", ", ".join(page["may_need"])),
        ("Streams", "yes" if page["streaming"] else "no"),
        ("Budgets", budgets),
        *((f"Variant `{name}`", text) for name, text in page["variants"].items()),
        ("Golden cases", ", ".join(f"`tests/golden/{folder}`" for folder in page["golden"])),
    ]
    lines = [f"\n## {page['name']}\n", page["description"].replace("``", "`"), ""]
    lines += [f"- {name}: {value}" for name, value in facts if value]
    if page["options"]:
        lines += ["", "| option | default | allowed | meaning |", "|---|---|---|---|"]
        for option in page["options"]:
            default = "-" if option["default"] is None else option["default"]
            cells = (f"`{option['name']}`", default, option["allowed"], option["description"])
            lines.append("| " + " | ".join(re.sub(r"\s+", " ", str(cell)).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


MODELS_HEAD = """# Models

Use: `--model NAME`, a checkpoint folder or a hub id of one of these families; `tokcli models NAME` shows the same,
and of a checkpoint also its own figures. A family without an adapter is refused.

A token in half precision takes 2 bytes x the width of the language model x (1 + DeepStack levels): 384 for `nano`,
7,168 where the width is 3,584. By default a cache stores half of that and 4 bytes (docs/codecs.md). Equality is the
largest difference of a logit between the two halves, from pixels through a cache, and transformers' whole model, over
all prompts of the tests (stills, several stills, video, both together) on small models of random weights in float32;
0 is bit by bit. Where a prompt has several stills, the whole model computes them in one call, and the sums of larger
products round otherwise. `python -m bench.equality` measures it again.

For all families: beam search is not offered, since transformers repeats the visual tokens of a batch wrongly for some
of them; stills and frames are preprocessed by tokcli's own code, equal to the processors'.
"""


def models_page() -> str:
    """A section for every family, and one for the bundled models."""
    from tokcli.cli.catalog import model_facts
    from tokcli.models import describe_model, list_models

    parts = [NOTE, MODELS_HEAD]
    for row in list_models():
        page = describe_model(row["name"])
        parts.append(f"\n## {page['name']}\n\n{page['title'][0].upper()}{page['title'][1:]}.\n\n")
        parts += [f"- {name}: {fact}\n" for name, fact in model_facts(page)]
        parts += [f"- limit: {limit}\n" for limit in page["limits"]]
        if checkpoint := page.get("checkpoint"):
            tokens = "; ".join(f"{example} {count:,}" for example, count in checkpoint["tokens"].items())
            parts.append(f"- a token: {checkpoint['bytes_per_token']} bytes; tokens of a {tokens}\n")
    return "".join(parts)


TABLE = re.compile(
    "(<!-- The table is written by docs/generate.py. -->\n\n).*?(\n*<!-- End of the table. -->)", re.DOTALL
)


def export_page() -> str:
    """The page about exports as it is, with the table of what engines can take."""
    from tokcli.pipeline.export.capability import ENGINES, capability_table, collapsed

    rows: list[tuple[str, ...]] = [("families", "media", "tokens", *ENGINES), ("---",) * (3 + len(ENGINES))]
    whys: dict[str, int] = {}
    for row in collapsed(capability_table()):
        cells = []
        for word, why in zip(row.cells, row.whys, strict=True):
            cells.append(f"{word} [{whys.setdefault(why, len(whys) + 1)}]" if why else word)
        rows.append((", ".join(f"`{family}`" for family in row.families), row.media, row.tokens, *cells))
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    notes = "\n".join(
        f"{number}. {why if why.startswith('vLLM') else why[0].upper() + why[1:]}." for why, number in whys.items()
    )
    text = (DOCS / "export.md").read_text(encoding="utf-8")
    return TABLE.sub(lambda found: f"{found[1]}{table}\n\n{notes}\n\n{found[2].strip()}", text)


def main() -> int:
    pages = {
        DOCS / "export.md": export_page(),
        DOCS / "cli.md": command_page(),
        DOCS / "methods.md": methods_page(),
        DOCS / "models.md": models_page(),
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            sys.stderr.write(f"{path.name} differs from the code: run `make docs`\n")
        return 1 if stale else 0
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
