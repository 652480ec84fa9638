"""Everything that can be refused is refused here, before the first file is decoded."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from tokcli.cache import Manifest
from tokcli.errors import MethodError, UsageError
from tokcli.media import Limits, Sampling, ScanResult, decoder_names, scan_inputs
from tokcli.methods import Compressor, resolve
from tokcli.models import VisionTower, load_tower, resolve_checkpoint
from tokcli.pipeline.messages import DecodeSettings
from tokcli.recipe import CompressRecipe, LimitsRecipe

VERSIONED = ("torch", "transformers", "av", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class Request:
    """A compression whose inputs and method are known to be good; no model is loaded yet."""

    recipe: CompressRecipe
    scan: ScanResult
    compressor: Compressor
    workers: int


@dataclass(frozen=True)
class Job:
    """A checked compression: what to read, with what, and what the cache will say about it."""

    recipe: CompressRecipe
    scan: ScanResult
    compressor: Compressor
    tower: VisionTower
    manifest: Manifest
    decode: DecodeSettings

    @property
    def tokens_dtype(self) -> str:
        """What tokens are stored as: float16, bfloat16 or float32."""
        return str(self.manifest.configuration["tokens_dtype"])


def check_request(recipe: CompressRecipe) -> Request:
    """The checks that cost next to nothing. Raises ``UsageError`` or one of its subclasses for what cannot work."""
    compressor = resolve(
        recipe.method,
        keep=recipe.keep,
        max_tokens=recipe.max_tokens,
        threshold=recipe.threshold,
        options=recipe.options,
        seed=recipe.seed,
    )
    if recipe.decoder not in decoder_names():
        raise UsageError(f"unknown decoder {recipe.decoder!r}; known: {', '.join(decoder_names())}")
    resolve_checkpoint(recipe.model)
    scan = scan_inputs(recipe.inputs, path_col=recipe.path_col, id_col=recipe.id_col, columns=recipe.columns)
    if recipe.limit is not None:
        items = scan.items[: recipe.limit]
        scan = ScanResult(
            items=items, failures=scan.failures[: recipe.limit - len(items)], passed_over=scan.passed_over
        )
    return Request(recipe, scan, compressor, max(1, min(_workers(recipe), len(scan.items))))


def load_job(request: Request, tower: VisionTower | None = None) -> Job:
    """Load the vision tower, unless it is given, and settle all that depends on it. Raises ``ModelError``."""
    recipe, compressor = request.recipe, request.compressor
    tower = tower or load_tower(recipe.model, dtype=recipe.dtype, device=recipe.device)
    missing = sorted(compressor.needs - {"tokens"} - set(tower.signals))
    if missing:
        raise MethodError(f"method {compressor.name} needs the signal {missing[0]}, which {recipe.model} does not give")
    sampling = Sampling(**recipe.sampling.model_dump())
    decode = DecodeSettings(
        sampling=sampling,
        limits=_limits(recipe.limits),
        decoder=recipe.decoder,
        frame_size=partial(tower.sizer, scale=compressor.pixel_scale),
        resample=tower.sizer.resample,
        resize_in_decoder=recipe.resize == "swscale",
        frames_per_step=tower.frames_per_step,
    )
    return Job(recipe, request.scan, compressor, tower, _manifest(recipe, tower, compressor, sampling), decode)


def _limits(recipe: LimitsRecipe) -> Limits:
    default = Limits()
    return Limits(
        max_pixels=recipe.max_pixels or default.max_pixels,
        max_frames=recipe.max_source_frames or default.max_frames,
        max_seconds=recipe.max_seconds or default.max_seconds,
    )


def _workers(recipe: CompressRecipe) -> int:
    """One decoder a core: with two, decoding and encoding overlap best even on two cores."""
    if recipe.workers is not None:
        return recipe.workers
    return max(1, min(8, available_cores()))


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _manifest(recipe: CompressRecipe, tower: VisionTower, compressor: Compressor, sampling: Sampling) -> Manifest:
    return Manifest.create(
        model=tower.identity,
        sampling=asdict(sampling),
        resize=recipe.resize,
        decoder=recipe.decoder,
        method=compressor.to_json(),
        tokens_dtype=recipe.tokens_dtype if recipe.tokens_dtype != "auto" else tower.identity["dtype"],
        seed=recipe.seed,
        information={"versions": _versions(), "inputs": list(recipe.inputs)},
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
