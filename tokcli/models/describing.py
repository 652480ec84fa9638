"""What frames look like, as one vector each: what keyframes are chosen by before the tower sees a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokcli.errors import ModelError
from tokcli.ops.frames import Floats, thumbnails

if TYPE_CHECKING:
    from tokcli.models.tower import VisionTower

Describe = Callable[[npt.NDArray[np.uint8]], Floats]
"""uint8 (n, h, w, 3) frames at the tower's size, all of a step together, to a row of float32 for each temporal step."""

PREVIEW_SHARE = 1 / 8
"""Tokens of a frame that the tower sees in a preview, as a share of all."""
FRAMES_AT_ONCE = 16
USUAL_SIDE = 224


def describer(features: str, tower: VisionTower) -> Describe:
    """How to describe steps by ``pixels``, ``preview`` or an image model's folder or hub name.

    Raises:
        ModelError: Unknown model, or a tower that takes frames in one size only and can give no preview.
    """
    per_step = tower.frames_per_step
    if features == "preview":
        return _preview(tower)
    of_frames = thumbnails if features == "pixels" else _image_model(features, tower)
    return lambda pixels: _steps(of_frames(pixels), per_step)


def _steps(features: Floats, per_step: int) -> Floats:
    """Means over the frames of each step; the last one may have fewer."""
    starts = np.arange(0, len(features), per_step)
    sizes = np.diff([*starts, len(features)])
    means = np.add.reduceat(features, starts, axis=0) / sizes[:, None]
    return means.astype(np.float32)


def _preview(tower: VisionTower) -> Describe:
    import torch

    from tokcli.models.preprocess import pad_to_step, resize_frames
    from tokcli.models.sizing import shrink_grid

    if not tower.sizer.scalable:
        raise ModelError(
            f"{tower.identity['model']} takes frames in one size only, so it has no preview; choose features=pixels"
        )
    factor = tower.sizer.factor

    def describe(pixels: npt.NDArray[np.uint8]) -> Floats:
        rows, columns = shrink_grid(pixels.shape[1] // factor, pixels.shape[2] // factor, PREVIEW_SHARE)
        frames = pad_to_step(pixels, tower.frames_per_step)
        small = resize_frames(frames, (rows * factor, columns * factor), tower.sizer.resample)
        with torch.inference_mode():
            inputs = torch.from_numpy(np.require(small, requirements=["C", "W"])).to(tower.device)
            tokens, _ = tower.family.encode(tower.model, inputs, tower.preprocessing.of("video"), frozenset())
            steps: Floats = tokens.float().view(-1, rows * columns, tokens.shape[1]).mean(dim=1).cpu().numpy()
        return steps

    return describe


def _image_model(name: str, tower: VisionTower) -> Describe:
    """Frames squeezed to the model's square, and its pooled output, or the mean of its last states."""
    import torch

    from tokcli.models.preprocess import resize_frames

    model, settings = _load(name)
    model = model.to(tower.device)
    side = _side(settings)
    mean, std = (
        torch.tensor(settings.get(key) or [0.5] * 3, device=tower.device) for key in ("image_mean", "image_std")
    )

    def describe(pixels: npt.NDArray[np.uint8]) -> Floats:
        found = []
        with torch.inference_mode():
            for start in range(0, len(pixels), FRAMES_AT_ONCE):
                frames = resize_frames(pixels[start : start + FRAMES_AT_ONCE], (side, side), "bicubic")
                inputs = torch.from_numpy(np.require(frames, requirements=["C", "W"])).to(tower.device)
                planes = ((inputs.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
                output = model(pixel_values=planes)
                pooled = getattr(output, "pooler_output", None)
                pooled = output.last_hidden_state.flatten(2).mean(dim=1) if pooled is None else pooled.flatten(1)
                found.append(pooled.float().cpu().numpy())
        joined: Floats = np.concatenate(found)
        return joined

    return describe


def _load(name: str) -> tuple[Any, dict[str, Any]]:
    """The image model, or the vision half of a model of images and text, and its preprocessor's settings."""
    import transformers

    try:
        model = transformers.AutoModel.from_pretrained(name, dtype="float32")
        settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"features={name!r} is not 'tokens', 'pixels', 'preview' or an image model that can be loaded: "
            f"{reason:.200}"
        ) from None
    return getattr(model, "vision_model", model).eval(), settings


def _side(settings: dict[str, Any]) -> int:
    size = settings.get("crop_size") or settings.get("size") or USUAL_SIDE
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or USUAL_SIDE
    return int(size)
