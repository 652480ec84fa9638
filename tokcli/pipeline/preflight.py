"""Everything that can be refused is refused here, before the first file is decoded."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from tokcli.cache import Manifest
from tokcli.cache.codebook import KEY, Codebook
from tokcli.cache.part import Part
from tokcli.errors import UsageError
from tokcli.media import Limits, Sampling, ScanResult, decoder_names, scan_inputs
from tokcli.methods import Compressor
from tokcli.models import VisionTower, load_tower, resolve_checkpoint
from tokcli.models.describing import Describe, describer
from tokcli.models.reuse import check_takes_units
from tokcli.pipeline.codebooks import codebook_for
from tokcli.pipeline.decoder import Supervision
from tokcli.pipeline.default_codec import resolved_codec
from tokcli.pipeline.feasible import check_method
from tokcli.pipeline.messages import DecodeSettings
from tokcli.pipeline.targets import Target, check_same_pixels, check_targets, wanted_caches
from tokcli.recipe import CompressRecipe, LimitsRecipe
from tokcli.storage import Location, location

OPTIONAL_DECODERS = ("decord", "torchcodec")
VERSIONED = ("torch", "transformers", "av", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class Request:
    """A compression whose inputs and method are known to be good; no model is loaded yet."""

    recipe: CompressRecipe
    scan: ScanResult
    compressor: Compressor
    workers: int
    also: tuple[tuple[Location, Compressor], ...] = ()
    """Further caches to fill from the same decoding and encoding."""
    part: Part | None = None
    """What the run is for, where others do the rest; ``scan`` has only its items then."""


@dataclass(frozen=True)
class Job:
    """A checked compression: what to read, with what, and what the caches will say about it."""

    recipe: CompressRecipe
    scan: ScanResult
    targets: tuple[Target, ...]
    """The recipe's cache, then those that are filled along with it."""
    tower: VisionTower
    decode: DecodeSettings
    describe: Describe | None = None
    """How frames are described that a method chooses among before the tower."""
    part: Part | None = None
    """As in ``Request``."""
    cores: int = field(default_factory=lambda: available_cores())
    """That the encoder may keep busy."""


def check_request(recipe: CompressRecipe, scan: ScanResult | None = None) -> Request:
    """The checks that cost next to nothing. Raises ``UsageError`` or one of its subclasses for what cannot work.

    ``scan`` is what is known of the inputs; None looks for them.
    """
    (output, compressor), *also = wanted_caches(recipe, recipe.seed)
    if recipe.decoder not in decoder_names():
        raise UsageError(f"unknown decoder {recipe.decoder!r}; known: {', '.join(decoder_names())}")
    if recipe.decoder in OPTIONAL_DECODERS and find_spec(recipe.decoder) is None:
        raise UsageError(
            f'decoder {recipe.decoder} is not installed; `pip install "tokcli[{recipe.decoder}]"`, or --decoder pyav'
        )
    if recipe.prune and recipe.limit is not None:
        raise UsageError(
            "--prune drops all that is not among the inputs, and --limit looks at some of them only; leave one out"
        )
    part = _part(recipe)
    resolve_checkpoint(recipe.model)
    scan = scan or scan_inputs(
        recipe.inputs,
        path_col=recipe.path_col,
        id_col=recipe.id_col,
        columns=recipe.columns,
        wanted=None if part is None else part.has,
    )
    if recipe.limit is not None:
        items = scan.items[: recipe.limit]
        scan = ScanResult(
            items=items, failures=scan.failures[: recipe.limit - len(items)], passed_over=scan.passed_over
        )
    check_same_pixels([(output, compressor), *also])
    workers = max(1, min(_workers(recipe), len(scan.items)))
    return Request(recipe, scan, compressor, workers, tuple(also), part)


def _part(recipe: CompressRecipe) -> Part | None:
    """The part of the inputs that the run is for. Raises ``UsageError`` where it is wrong, or does not go together."""
    if recipe.shard is None:
        return None
    part = Part.parse(recipe.shard)
    if recipe.overwrite:
        raise UsageError(
            "--overwrite would delete what other shards write; delete the folder before the first of them starts, and "
            "leave it out"
        )
    if recipe.prune:
        raise UsageError(
            "--prune rewrites the whole cache; leave it out, and run it without --shard once all shards are done"
        )
    if recipe.limit is not None:
        raise UsageError("--limit and --shard choose inputs both; leave one out")
    return part


def load_job(request: Request, tower: VisionTower | None = None) -> Job:
    """Load the vision tower, unless it is given, and settle all that depends on it. Raises ``ModelError``."""
    recipe = request.recipe
    tower = tower or load_tower(recipe.model, dtype=recipe.dtype, device=recipe.device)
    targets = targets_of(request, tower.identity, tower.device)
    for target in targets:
        check_method(target.compressor, tower, reuse=recipe.reuse_unchanged is not None)
    if recipe.reuse_unchanged:
        check_takes_units(tower)
    check_targets(targets, recipe.overwrite)
    decode = DecodeSettings(
        sampling=_sampling(recipe),
        limits=limits_of(recipe.limits),
        decoder=recipe.decoder,
        frame_size=partial(tower.sizer, scale=request.compressor.pixel_scale),
        resample=tower.sizer.resample,
        resize_in_decoder=recipe.resize == "swscale",
        frames_per_step=tower.frames_per_step,
    )
    choice = request.compressor.frame_choice
    describe = None if choice is None else describer(choice.features, tower)
    return Job(recipe, request.scan, targets, tower, decode, describe, request.part)


def supervision(recipe: CompressRecipe) -> Supervision:
    """What the recipe lets a decoder take."""
    return Supervision(recipe.timeout, recipe.heartbeat, recipe.decoder_memory)


def limits_of(recipe: LimitsRecipe) -> Limits:
    """The limits that it sets, and the usual ones for the others."""
    default = Limits()
    return Limits(
        max_pixels=recipe.max_pixels or default.max_pixels,
        max_frames=recipe.max_source_frames or default.max_frames,
        max_seconds=recipe.max_seconds or default.max_seconds,
        max_bytes=recipe.max_bytes or default.max_bytes,
    )


def _workers(recipe: CompressRecipe) -> int:
    """One decoder a core: with two, decoding and encoding overlap best even on two cores."""
    if recipe.workers is not None:
        return recipe.workers
    return max(1, min(8, available_cores()))


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def targets_of(request: Request, identity: Mapping[str, Any], device: torch.device) -> tuple[Target, ...]:
    """The caches to fill with tokens of the tower that is so called. Raises ``UsageError``, ``CacheError``."""
    recipe = request.recipe
    wanted = ((location(recipe.output), request.compressor), *request.also)
    return tuple(_target(recipe, identity, device, compressor, folder) for folder, compressor in wanted)


def _target(
    recipe: CompressRecipe, identity: Mapping[str, Any], device: torch.device, compressor: Compressor, folder: Location
) -> Target:
    codec = resolved_codec(recipe.tokens_dtype, compressor, exact=str(identity["dtype"]))
    codebook = codebook_for(codec, folder, reuse=recipe.codebook, overwrite=recipe.overwrite)
    if codebook is not None and codebook.width != identity["hidden_size"]:
        raise UsageError(
            f"the codebook is for tokens of {codebook.width} numbers, those of {recipe.model} have "
            f"{identity['hidden_size']}; take one that was trained for this model"
        )
    return Target(folder, compressor, _manifest(recipe, identity, device, compressor, codec, codebook), codebook)


def _sampling(recipe: CompressRecipe) -> Sampling:
    return Sampling(**recipe.sampling.model_dump())


def _manifest(
    recipe: CompressRecipe,
    identity: Mapping[str, Any],
    device: torch.device,
    compressor: Compressor,
    codec: str,
    codebook: Codebook | None,
) -> Manifest:
    # With 0 tokens are what they are without.
    further: dict[str, Any] = {"reuse_unchanged": recipe.reuse_unchanged} if recipe.reuse_unchanged else {}
    if codebook is not None:
        further[KEY] = codebook.digest
    manifest = Manifest.create(
        model=identity,
        sampling=asdict(_sampling(recipe)),
        resize=recipe.resize,
        decoder=recipe.decoder,
        method=compressor.to_json(),
        tokens_dtype=codec,
        seed=recipe.seed,
        information={
            "versions": library_versions(),
            "machine": machine_of(device),
            "inputs": list(recipe.inputs),
            "reading": {name: getattr(recipe, name) for name in ("path_col", "id_col", "columns")},
        },
    )
    return replace(manifest, configuration={**manifest.configuration, **further})


def machine_of(device: torch.device) -> dict[str, str]:
    """What of the machine may change the last bits of a token, for the manifest's information."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device)}
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    # An accelerator of the same machine, as Apple's, rounds in its own way.
    return {"device": processor if device.type == "cpu" else f"{device.type} {processor}"}


def library_versions() -> dict[str, str]:
    """Those that may change a result, for the manifest's information."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
