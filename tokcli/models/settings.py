"""Preprocessing parameters of a checkpoint, read from its JSON files as transformers' processors read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokcli.errors import ModelError
from tokcli.models.sizing import Bounds, PixelBounds, Sizer
from tokcli.types import MediaKind

# Defaults of Qwen2VLImageProcessor and Qwen2VLVideoProcessor, for what a checkpoint leaves out.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_DEFAULT_BOUNDS = {"image": (56 * 56, 28 * 28 * 1280), "video": (128 * 28 * 28, 28 * 28 * 768)}
_RESAMPLE_NAMES = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

Geometry = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a processor's configuration to ``bounds`` and the three sizes of patches, which families differ in."""


@dataclass(frozen=True)
class Settings:
    """How pixels of one kind of medium become patches."""

    bounds: Bounds
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale_factor: float
    resample: str
    """Kernel for resizing, antialiased: "bicubic", "bilinear" or "lanczos"."""


@dataclass(frozen=True)
class Preprocessing:
    """Settings for stills and for video of one checkpoint; patch sizes and kernel are the same."""

    image: Settings
    video: Settings

    def of(self, kind: MediaKind) -> Settings:
        return self.image if kind == "image" else self.video

    @property
    def sizer(self) -> Sizer:
        video = self.video
        return Sizer(
            patch_size=video.patch_size,
            merge_size=video.merge_size,
            temporal_patch_size=video.temporal_patch_size,
            image=self.image.bounds,
            video=self.video.bounds,
            resample=video.resample,
        )

    def to_json(self) -> dict[str, Any]:
        """All parameters after merging with the defaults, in a form that JSON gives back unchanged."""
        return json.loads(json.dumps({"backend": "torch", "image": asdict(self.image), "video": asdict(self.video)}))


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read ``processor_config.json``, ``video_preprocessor_config.json`` and ``preprocessor_config.json``.

    The first that has a section for the medium wins, as in transformers: video falls back on the stills' file. What no
    file says has transformers' default, except that ``cap_pixels_per_frame`` is always a definite value.

    Raises:
        ModelError: A file is no JSON object, or asks for something that tokcli doesn't do.
    """
    return grid_preprocessing(folder, *read_processors(folder), video_geometry=grid_geometry("video"))


def read_processors(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of the processors of stills and of video; video falls back on the stills' file."""
    nested = read_json(folder / "processor_config.json")
    image_file = read_json(folder / "preprocessor_config.json")
    video_file = read_json(folder / "video_preprocessor_config.json")
    return nested.get("image_processor") or image_file, nested.get("video_processor") or video_file or image_file


def grid_preprocessing(
    folder: Path, image_config: Mapping[str, Any], video_config: Mapping[str, Any], *, video_geometry: Geometry
) -> Preprocessing:
    """Settings of a family whose tower takes patches with a grid. Raises as :func:`read_preprocessing` does."""
    image = pixel_settings(folder, "image", image_config, grid_geometry("image"))
    video = pixel_settings(folder, "video", video_config, video_geometry)
    for name in ("patch_size", "merge_size", "temporal_patch_size", "resample"):
        if getattr(image, name) != getattr(video, name):
            raise ModelError(
                f"{folder}: {name} is {getattr(image, name)} for images and {getattr(video, name)} for video; "
                "they must be equal, correct the preprocessor configuration files"
            )
    return Preprocessing(image, video)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is no such file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); download the checkpoint again") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(data).__name__}; download the checkpoint again")
    return data


def pixel_settings(
    folder: Path,
    kind: MediaKind,
    config: Mapping[str, Any],
    geometry: Geometry,
) -> Settings:
    """Settings from a processor's configuration; what it leaves out is CLIP's.

    Raises:
        ModelError: The configuration is malformed, or asks for something that tokcli doesn't do.
    """
    for flag in ("do_resize", "do_rescale", "do_normalize"):
        if config.get(flag, True) is False:
            raise ModelError(
                f"{folder}: the {kind} processor sets {flag}=false, which tokcli can't reproduce; set it to true"
            )
    resample = config.get("resample", 3)
    if resample not in _RESAMPLE_NAMES:
        raise ModelError(
            f"{folder}: the {kind} processor sets resample={resample!r}, allowed are 1 (lanczos), 2 (bilinear) "
            "and 3 (bicubic)"
        )
    try:
        return Settings(
            **geometry(config),
            mean=tuple(float(value) for value in config.get("image_mean") or _CLIP_MEAN),
            std=tuple(float(value) for value in config.get("image_std") or _CLIP_STD),
            rescale_factor=float(config.get("rescale_factor", 1 / 255)),
            resample=_RESAMPLE_NAMES[resample],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}: the {kind} processor's configuration is malformed ({error})") from error


def check_patches(folder: Path, vision: Any, preprocessing: Preprocessing) -> None:
    """Raise ``ModelError`` if other patches would be cut than the tower of that configuration has weights for."""
    settings = preprocessing.video
    for ours, theirs in (
        ("patch_size", "patch_size"),
        ("merge_size", "spatial_merge_size"),
        ("temporal_patch_size", "temporal_patch_size"),
    ):
        if getattr(settings, ours) != getattr(vision, theirs):
            raise ModelError(
                f"{folder}: the preprocessor's {ours} is {getattr(settings, ours)}, the tower's {theirs} is "
                f"{getattr(vision, theirs)}; correct the preprocessor configuration files"
            )


def grid_geometry(kind: MediaKind) -> Geometry:
    """How Qwen2-VL's processors read it."""

    def geometry(config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "bounds": _bounds(kind, config),
            "patch_size": int(config.get("patch_size", 14)),
            "merge_size": int(config.get("merge_size", 2)),
            "temporal_patch_size": int(config.get("temporal_patch_size", 2)),
        }

    return geometry


def _bounds(kind: MediaKind, config: Mapping[str, Any]) -> PixelBounds:
    low, high = _DEFAULT_BOUNDS[kind]
    size = config.get("size") or {}
    # Older files name the bounds min_pixels and max_pixels, beside or inside `size`; beside, they win.
    low = config.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or low
    high = config.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or high
    if kind == "image":
        return PixelBounds(int(low), int(high))
    return PixelBounds(
        int(low),
        int(high),
        cap_pixels_per_frame=bool(config.get("cap_pixels_per_frame")),
        max_video_tokens=int(config.get("max_video_tokens") or 128_000),
    )
