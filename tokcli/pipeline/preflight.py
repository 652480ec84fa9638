"""Everything that can be refused is refused here, before the first file is decoded."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from tokcli.cache import Manifest
from tokcli.errors import UsageError
from tokcli.media import Limits, Sampling, ScanResult, decoder_names, scan_inputs
from tokcli.methods import Compressor, resolve
from tokcli.models import VisionTower, load_tower
from tokcli.pipeline.messages import DecodeSettings
from tokcli.recipe import CompressRecipe, LimitsRecipe

VERSIONED = ("torch", "transformers", "av", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class Job:
    """A checked compression: what to read, with what, and what the cache will say about it."""

    recipe: CompressRecipe
    scan: ScanResult
    compressor: Compressor
    tower: VisionTower
    manifest: Manifest
    decode: DecodeSettings
    workers: int

    @property
    def tokens_dtype(self) -> str:
        """What tokens are stored as: float16, bfloat16 or float32."""
        return str(self.manifest.configuration["tokens_dtype"])


def prepare(recipe: CompressRecipe) -> Job:
    """Check a recipe against what is there, cheapest checks first, and load the vision tower.

    Raises ``UsageError`` or one of its subclasses for whatever cannot work.
    """
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
    scan = _limited(
        scan_inputs(recipe.inputs, path_col=recipe.path_col, id_col=recipe.id_col, columns=recipe.columns), recipe.limit
    )
    tower = load_tower(recipe.model, dtype=recipe.dtype, device=recipe.device)
    sampling = Sampling(**recipe.sampling.model_dump())
    preprocessing = tower.identity["preprocessing"]
    decode = DecodeSettings(
        sampling=sampling,
        limits=_limits(recipe.limits),
        decoder=recipe.decoder,
        frame_size=partial(tower.sizer, scale=compressor.pixel_scale),
        resample={kind: preprocessing[kind]["resample"] for kind in ("image", "video")},
        resize_in_decoder=recipe.resize == "swscale",
        frames_per_step=tower.frames_per_step,
    )
    return Job(
        recipe, scan, compressor, tower, _manifest(recipe, tower, compressor, sampling), decode, _workers(recipe)
    )


def _limited(scan: ScanResult, limit: int | None) -> ScanResult:
    return scan if limit is None else ScanResult(items=scan.items[:limit], failures=scan.failures)


def _limits(recipe: LimitsRecipe) -> Limits:
    given = {
        "max_pixels": recipe.max_pixels,
        "max_frames": recipe.max_source_frames,
        "max_seconds": recipe.max_seconds,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


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
