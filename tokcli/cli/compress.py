"""`tokcli compress`: parse, run, report."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tokcli.cli.executors import ActorCpus, ActorGpus, Actors, Executor, RayAddress, Shard
from tokcli.cli.guards import (
    DecoderMemory,
    FileTimeout,
    Heartbeat,
    LimitBytes,
    LimitFrames,
    LimitPixels,
    LimitSeconds,
    MaxErrorRate,
    MinDecoded,
    OnError,
)
from tokcli.cli.options import (
    INPUT,
    METHOD,
    RUNNING,
    SAMPLING,
    AllowErrors,
    Also,
    Device,
    Dtype,
    Fps,
    IdCol,
    Inputs,
    Json,
    Keep,
    Limit,
    MaxFrames,
    MaxTokens,
    Model,
    NumFrames,
    OneMethodImportance,
    OneMethodOptions,
    PathCol,
    Quiet,
    Resize,
    RetryErrors,
    Threshold,
    Workers,
    listed,
    method_options,
    sampling,
)
from tokcli.cli.summary import make_caches
from tokcli.errors import UsageError

if TYPE_CHECKING:
    from tokcli.recipe import CompressRecipe


def compress(
    inputs: Inputs,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the token cache, or a URL.")],
    method: Annotated[
        str,
        typer.Option("--method", "-m", help="Method, or several: 'a,b'; auto: see below.", rich_help_panel=METHOD),
    ] = "dtd",
    keep: Keep = None,
    max_tokens: MaxTokens = None,
    threshold: Threshold = None,
    settings: OneMethodOptions = None,
    importance: OneMethodImportance = None,
    keep_signals: Annotated[
        str | None,
        typer.Option(help="With --method none: signals to store beside the tokens, a,b.", rich_help_panel=METHOD),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of methods that draw.", rich_help_panel=METHOD)] = 0,
    also: Also = None,
    retain: Annotated[
        float | None,
        typer.Option(help="For auto: share of the answers to keep. (default: 0.98)", rich_help_panel=METHOD),
    ] = None,
    qa: Annotated[
        str | None,
        typer.Option(help="For auto: questions, .jsonl. (default: general prompts)", rich_help_panel=METHOD),
    ] = None,
    model: Model = "nano",
    dtype: Dtype = "auto",
    device: Device = "auto",
    tokens_dtype: Annotated[
        str,
        typer.Option(
            "--codec",
            "--tokens-dtype",
            help="How tokens are stored: auto (int8; with --method none exact), exact (as computed), float16, "
            "bfloat16, float32; smaller, with loss: int8, int8c, fp8, int4, pq4, pq8.",
            rich_help_panel="Model",
        ),
    ] = "auto",
    codebook: Annotated[
        str | None,
        typer.Option(help="With --codec pq4 or pq8: take the codebook of this cache.", rich_help_panel="Model"),
    ] = None,
    fps: Fps = 1.0,
    num_frames: NumFrames = None,
    max_frames: MaxFrames = None,
    limit_pixels: LimitPixels = None,
    limit_seconds: LimitSeconds = None,
    limit_frames: LimitFrames = None,
    limit_bytes: LimitBytes = None,
    decoder: Annotated[str, typer.Option(help="auto, pyav, decord or torchcodec.", rich_help_panel=SAMPLING)] = "auto",
    resize: Resize = "hf",
    reuse_unchanged: Annotated[
        float | None,
        typer.Option(
            metavar="CHANGE",
            help="Encode only what changed since the step before: 0 for whole steps, exact; above 0 for tokens whose "
            "pixels differ by up to that, in [0, 1].",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    path_col: PathCol = "path",
    id_col: IdCol = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--save-additional-columns",
            "--columns",
            help="Manifest columns to carry, a,b (default: all).",
            rich_help_panel=INPUT,
        ),
    ] = None,
    limit: Limit = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an existing cache and begin anew.", rich_help_panel=RUNNING)
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Drop items whose inputs are gone from the cache.", rich_help_panel=RUNNING),
    ] = False,
    shard: Shard = None,
    retry_errors: RetryErrors = False,
    on_error: OnError = "skip",
    min_decoded: MinDecoded = None,
    max_error_rate: MaxErrorRate = None,
    allow_errors: AllowErrors = False,
    workers: Workers = None,
    timeout: FileTimeout = 60.0,
    heartbeat: Heartbeat = 60.0,
    decoder_memory: DecoderMemory = "4GiB",
    executor: Executor = "local",
    ray_address: RayAddress = None,
    actors: Actors = None,
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Turn videos and images into a token cache.

    Decodes, runs the vision tower, keeps the tokens that matter.
    Run it again to go on where it was stopped, to add files, or to redo changed ones;
    items whose inputs are gone are named, and stay until --prune drops them.

    [dim]tokcli compress videos/ -o cache --method dtd --threshold 0.5[/dim]
    [dim]tokcli compress list.csv --path-col file -o cache --method evs --keep 0.2[/dim]
    [dim]tokcli compress videos/ photos/ -o cache --model ~/Qwen2.5-VL-7B-Instruct[/dim]
    [dim]tokcli compress s3://bucket/videos/ -o s3://bucket/cache[/dim]
    [dim]tokcli compress videos/ -o cache --method auto --retain 0.98 --qa qa.jsonl[/dim]

    Several caches come from one decoding and one encoding, each as if it were made alone
    and resumable by itself; --overwrite holds for all of them:

    [dim]tokcli compress videos/ -o full --method none --also dtd@0.1=small[/dim]

    Several machines, or several processes, fill one folder together with --shard: each does its
    part of the inputs, in any order or all at once, and the one that ends last completes the cache:

    [dim]tokcli compress videos/ -o cache --shard 3/8[/dim]
    [dim]tokcli compress videos/ -o cache --executor ray --ray-address HOST:6379[/dim]

    With --method auto the method and its budget come from `tokcli tune` on a sample, which
    is kept in CACHE.tune. When the cache is there already its own method is taken.

    With --json the last line of stdout is an object:
    items (all inputs), done (in this run), skipped (done before), failed, seconds,
    and, of all inputs in the cache: source_tokens, kept_tokens, source_bytes,
    media_seconds; of the whole cache: cache_bytes; others (how many of its items are no inputs);
    removed (ids in the cache that are no inputs any more), pruned
    (whether they were dropped); over_budget (null, or how many items keep clearly more than --keep
    asks for, and the worst); under also the same of each --also. With --shard all of it is of that
    part but cache_bytes, others and missing, the inputs of other parts that the cache lacks yet.
    """
    from tokcli.checking import check
    from tokcli.recipe import CompressRecipe

    values = {
        "inputs": inputs,
        "output": output,
        "model": model,
        "method": method,
        "keep": keep,
        "max_tokens": max_tokens,
        "threshold": threshold,
        "options": _options(method, settings, importance, keep_signals),
        "also": also or [],
        "seed": seed,
        "retain": retain,
        "qa": qa,
        "sampling": sampling(fps, num_frames, max_frames),
        "reuse_unchanged": reuse_unchanged,
        "limits": {
            "max_pixels": limit_pixels,
            "max_seconds": limit_seconds,
            "max_source_frames": limit_frames,
            "max_bytes": limit_bytes,
        },
        "decoder": decoder,
        "resize": resize,
        "dtype": dtype,
        "device": device,
        "tokens_dtype": tokens_dtype,
        "codebook": codebook,
        "path_col": path_col,
        "id_col": id_col,
        "columns": listed(columns),
        "limit": limit,
        "overwrite": overwrite,
        "prune": prune,
        "shard": shard,
        "retry_errors": retry_errors,
        "on_error": on_error,
        "min_decoded": min_decoded,
        "max_error_rate": max_error_rate,
        "allow_errors": allow_errors,
        "workers": workers,
        "timeout": timeout,
        "heartbeat": heartbeat,
        "decoder_memory": decoder_memory,
        "executor": executor,
        "ray_address": ray_address,
        "actors": actors,
        "actor_cpus": actor_cpus,
        "actor_gpus": actor_gpus,
    }
    recipe: CompressRecipe = check(CompressRecipe, values, "compress", flags=True)
    raise typer.Exit(run_compress(recipe, quiet, as_json))


def _options(
    method: str, settings: list[str] | None, importance: str | None, keep_signals: str | None
) -> dict[str, str]:
    """The options of ``--set``, and those that have a flag of their own."""
    if method == "auto" and importance is not None:
        raise UsageError("method auto chooses a method with its options; leave --importance out")
    options = method_options(settings, importance, method.split(","))
    if keep_signals is None:
        return options
    if method != "none":
        raise UsageError(
            f"--keep-signals goes with --method none, which keeps all tokens, not with {method}: of a token that is "
            "gone there is nothing to keep; make a cache with --method none --keep-signals, and another with the method"
        )
    if options.keys() & {"signals", "none.signals"}:
        raise UsageError("--keep-signals and --set signals=... say the same; leave one out")
    return {**options, "none.signals": keep_signals}


def run_compress(recipe: CompressRecipe, quiet: bool, as_json: bool) -> int:
    """Run, report, and return the exit code; shared with `tokcli run`."""
    from tokcli.pipeline.compress import compress as run

    if recipe.method == "auto":
        from tokcli.cli.auto import with_method

        recipe = with_method(recipe, quiet)
    return make_caches(partial(run, recipe), recipe.allow_errors, quiet=quiet, as_json=as_json)
