"""How many answers every method keeps, at every budget, on the bundled models: ``make benchmark``.

python -m bench.answers [--page videos|images] [--work FOLDER] [--docs FOLDER] [--only SET ...]

Each set is rendered, then evaluated as ``tokcli eval`` does; a run that was stopped goes on where it was. Writes
docs/benchmark.md, or docs/benchmark-images.md with the methods that were made for pictures. The numbers come from
``results.json`` of these runs and from nowhere else.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from bench.answers_findings import findings
from bench.answers_images import IMAGE_SETS, image_findings
from bench.answers_page import Found, Page, write_page
from bench.answers_sets import SEED, Set
from tokcli.evaluate.evaluate import evaluate
from tokcli.pipeline.render import render
from tokcli.recipe import EvalRecipe, RenderRecipe, SamplingRecipe
from tokcli.report import write_plots

TEMPORAL = (
    "dtd",
    "dtd:reference=kept",
    "dtd:threshold=0.5",
    "dtd:threshold=0.5;reference=kept",
    "dtd:threshold=0.8;reference=kept",
    "evs",
)
WHOLE = (
    "temporal_merge",
    "holitom",
    "fastvid",
    "prunevid",
    "vidcom2",
    "dycoke",
    "aim",
    "aot",
    "tempme",
    "ktv",
    "centerclip",
    "ts_llava",
    "vqtoken",
    "keyframes",
)
"""Methods of papers, and two of this toolkit, that take a budget."""
BASELINES = ("random", "uniform", "pool2d", "downsample")
"""Pictures have no steps to compare."""
MIXED = ("dtd", "dtd:threshold=0.5", "dtd:threshold=0.8;reference=kept", "evs", *WHOLE)
BACK = ("temporal_merge", "holitom")
"""What should notice that something is shown again, elsewhere or later."""

SETS = (
    Set("nano-all", "nano, every kind of scene", "nano", "all", 140, MIXED),
    Set("nano-static", "nano, a camera that stands still", "nano", "static", 60, TEMPORAL, (0.2, 0.1)),
    Set("nano-drift", "nano, slow drift", "nano", "drift", 60, (*TEMPORAL, *BACK), (0.2, 0.1)),
    Set("nano-pan", "nano, a camera that pans", "nano", "pan", 40, (*TEMPORAL, *BACK), (0.2, 0.1)),
    Set(
        "nano-return",
        "nano, scenes of which the first may come back",
        "nano",
        "return",
        40,
        (*TEMPORAL, *BACK),
        (0.2, 0.1),
    ),
    Set("nano-needle", "nano, a flash of 0.3 seconds in up to two minutes", "nano", "needle", 40, TEMPORAL, (0.2, 0.1)),
    Set("nano-stills", "nano, pictures", "nano", "still,text", 100, BASELINES, format="png"),
    Set(
        "nano-clip-all",
        "nano-clip, every kind of scene, 8 frames a clip",
        "nano-clip",
        "all",
        140,
        (*TEMPORAL[:3], "evs", *WHOLE),
        num_frames=8,
    ),
    Set("nano-clip-stills", "nano-clip, pictures", "nano-clip", "still,text", 100, BASELINES, format="png"),
)


def run(chosen: Set, work: Path) -> Path:
    """Render and evaluate one set; return the folder with its results."""
    clips = work / f"clips-{chosen.kind.replace(',', '+')}-{chosen.count}-{chosen.format}"
    if not (clips / "qa.jsonl").exists():
        recipe = RenderRecipe(
            output=str(clips),
            kind=chosen.kind,
            count=chosen.count,
            seed=SEED,
            format=chosen.format,  # type: ignore[arg-type]
        )
        render(recipe)
    out = work / chosen.name
    evaluation = evaluate(
        EvalRecipe(
            inputs=[str(clips)],
            qa=str(clips / "qa.jsonl"),
            model=chosen.model,
            methods=list(chosen.methods),
            keep=list(chosen.keep),
            output=str(out),
            sampling=SamplingRecipe(fps=None if chosen.num_frames else 1.0, num_frames=chosen.num_frames),
        )
    )
    print(f"{chosen.name}: {len(evaluation.rows)} rows, {evaluation.failed} items failed", flush=True)
    return out


PAGES = {
    "videos": Page("benchmark.md", "Benchmark: answers kept", SETS, findings),
    "images": Page("benchmark-images.md", "Benchmark: methods for pictures", IMAGE_SETS, image_findings, True),
}


def main() -> None:
    """Run the sets and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", choices=PAGES, default="videos")
    parser.add_argument("--work", type=Path, default=Path("bench/results/answers"), help="clips, caches and results")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page and its pictures go")
    parser.add_argument("--only", nargs="*", help="names of sets (default: all; the page on videos needs all)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options.work.mkdir(parents=True, exist_ok=True)
    page, folders = PAGES[options.page], {}
    for chosen in page.sets:
        if not options.only or chosen.name in options.only:
            folders[chosen] = run(chosen, options.work)
    if options.only and not page.of_some:
        return
    found = Found({chosen: folder / "results.json" for chosen, folder in folders.items()})
    for chosen in folders:
        pictures = options.docs / "benchmark" / chosen.name
        shutil.rmtree(pictures, ignore_errors=True)
        for path in write_plots(found.documents[chosen.name]["results"], pictures):
            # One picture and one format a set are enough for the page.
            if path.name != "accuracy-by-tokens.svg":
                path.unlink()
    write_page(options.docs / page.file, page, found)


if __name__ == "__main__":
    main()
