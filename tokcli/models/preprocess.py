"""Frames to what vision towers take, in torch alone.

Equal to the torchvision backend of transformers' processors bit by bit: the resize is the same kernel, the
normalisation the same fused arithmetic. Works on any run of frames, so that a clip never has to be in memory whole.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tokcli.errors import ModelError
from tokcli.models.settings import Settings


def resize_frames(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int], resample: str = "bicubic"
) -> npt.NDArray[np.uint8]:
    """Resize frames with antialiasing by the kernel that transformers' processors use.

    Args:
        pixels: uint8 (n, H, W, 3).
        size: (height, width) wanted, in pixels.
        resample: "bicubic", "bilinear" or "lanczos".

    Returns:
        uint8 (n, height, width, 3); ``pixels`` itself where the size is already right.

    Raises:
        ModelError: This torch has no such kernel.
    """
    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels
    frames = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(0, 3, 1, 2)
    try:
        resized = F.interpolate(frames, size=list(size), mode=resample, antialias=True)
    except (NotImplementedError, ValueError) as error:
        raise ModelError(
            f"torch {torch.__version__} can't resize by {resample}; install torch 2.13 or newer"
        ) from error
    return resized.permute(0, 2, 3, 1).contiguous().numpy()


def patchify(pixels: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Cut frames into squares in the order in which the tower takes them.

    Args:
        pixels: uint8 (n, h, w, c), n a multiple of the temporal patch size, sides multiples of patch * merge.

    Returns:
        uint8 (t * h/patch * w/patch, c, temporal * patch * patch). The rows of one token (merge * merge patches) are
        neighbours; tokens run by step, then row, then column.
    """
    patch, merge, temporal = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    count, height, width, channels = pixels.shape
    steps, rows, columns = count // temporal, height // patch, width // patch
    blocks = pixels.reshape(
        steps, temporal, rows // merge, merge, patch, columns // merge, merge, patch, channels
    ).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return blocks.reshape(steps * rows * columns, channels, temporal * patch * patch)


def to_patches(pixels: torch.Tensor, settings: Settings, chosen: torch.Tensor | None = None) -> torch.Tensor:
    """uint8 (n, h, w, 3) to the tower's float32 rows (patches, 3 * temporal * patch * patch), normalised.

    With bool (patches,) ``chosen`` only those rows.

    The rescaling is folded into mean and deviation before they touch the pixels, as in transformers: another order of
    the same arithmetic differs in the last bit. Cutting comes first because bytes are moved faster than floats.
    """
    mean, std = _statistics(settings, pixels.device)
    rows = patchify(pixels, settings)
    rows = rows if chosen is None else rows[chosen.to(rows.device)]
    return rows.to(torch.float32).sub_(mean[:, None]).div_(std[:, None]).flatten(1)


def to_planes(pixels: torch.Tensor, settings: Settings) -> torch.Tensor:
    """uint8 (n, h, w, 3) to normalised planes float32 (n, 3, h, w), which towers take that cut patches themselves."""
    mean, std = _statistics(settings, pixels.device)
    planes = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32)
    return planes.sub_(mean[:, None, None]).div_(std[:, None, None])


def _statistics(settings: Settings, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel in grey levels, float32 (3,)."""
    unscale = 1.0 / settings.rescale_factor
    mean, std = (torch.tensor(values, device=device) * unscale for values in (settings.mean, settings.std))
    return mean, std


def middle(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The middle (height, width) of frames uint8 (n, H, W, 3), as CLIP's processor cuts it."""
    top, left = ((whole - part) // 2 for whole, part in zip(pixels.shape[1:3], size))
    return pixels[:, top : top + size[0], left : left + size[1]]


def pad_to_step(pixels: npt.NDArray[np.uint8], frames_per_step: int) -> npt.NDArray[np.uint8]:
    """Repeat the last frame until the number of frames is a multiple of ``frames_per_step``."""
    missing = -len(pixels) % frames_per_step
    if not missing:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])


def pixel_change(
    before: npt.NDArray[np.uint8] | None, pixels: npt.NDArray[np.uint8], frames_per_step: int, factor: int
) -> npt.NDArray[np.float32]:
    """How much each token's square changed since the temporal step before it (DTD's pixel criterion, arXiv:2504.17343).

    The FIRST frame of the previous step is compared with the LAST frame of this one, as the authors' code does.

    Args:
        before: uint8 (h, w, 3), first frame of the step before ``pixels``; None at the start of the item.
        pixels: uint8 (n, h, w, 3), n a multiple of ``frames_per_step``.
        factor: Pixels along the side of one token.

    Returns:
        float32 (n / frames_per_step * h/factor * w/factor,): mean absolute difference of the square's values in
        [0, 1]; infinity in the item's first step, which has nothing before it.
    """
    firsts = pixels[0::frames_per_step]
    lasts = pixels[frames_per_step - 1 :: frames_per_step]
    steps, height, width, channels = lasts.shape
    rows, columns = height // factor, width // factor
    change = np.full((steps, rows, columns), np.inf, dtype=np.float32)
    for step in range(steps):
        reference = firsts[step - 1] if step else before
        if reference is None:
            continue
        # Stays in bytes, and sums within a row first: both are what makes this as fast as reading the pixels.
        difference = np.maximum(lasts[step], reference) - np.minimum(lasts[step], reference)
        by_column = difference.reshape(rows, factor, width * channels).sum(axis=1, dtype=np.uint32)
        sums = by_column.reshape(rows, columns, factor * channels).sum(axis=2, dtype=np.int64)
        change[step] = sums / (factor * factor * channels * 255)
    return change.reshape(-1)


def square_signals(wanted: frozenset[str], pixels: npt.NDArray[np.uint8], factor: int) -> dict[str, torch.Tensor]:
    """Those of the ``wanted`` signals that are of single frames uint8 (n, h, w, 3) alone; see ``pixel_change``."""
    makers = {"neighbour_distance": neighbour_distance, "patch_entropy": patch_entropy}
    return {name: torch.from_numpy(make(pixels, factor)) for name, make in makers.items() if name in wanted}


def neighbour_distance(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.float32]:
    """How far each token's square is from the next to the right and the next below, in the same frame.

    Args:
        pixels: uint8 (n, h, w, 3), sides multiples of ``factor``.
        factor: Pixels along the side of one token.

    Returns:
        float32 (n * h/factor * w/factor, 2, 3): to the right and below, for each channel the sum over the square's
        pixels of squared differences of values in [0, 1]; infinity where there is no such square.
    """
    count, height, width, channels = pixels.shape
    rows, columns = height // factor, width // factor
    distance = np.full((count, rows, columns, 2, channels), np.inf, dtype=np.float32)
    for frame, found in zip(pixels, distance):
        found[:, :-1, 0] = _squared_difference(frame[:, factor:], frame[:, :-factor], factor)
        found[:-1, :, 1] = _squared_difference(frame[factor:], frame[:-factor], factor)
    return distance.reshape(-1, 2, channels)


def _squared_difference(
    left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8], factor: int
) -> npt.NDArray[np.float64]:
    """Of each square of two pictures uint8 (h, w, channels), by channel: (h/factor, w/factor, channels)."""
    height, width, channels = left.shape
    difference = np.maximum(left, right) - np.minimum(left, right)
    squared = np.multiply(difference, difference, dtype=np.uint16)
    by_column = squared.reshape(height // factor, factor, width * channels).sum(axis=1, dtype=np.uint32)
    sums = by_column.reshape(height // factor, width // factor, factor, channels).sum(axis=2, dtype=np.int64)
    return sums / 255**2


def patch_entropy(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.float32]:
    """How many bits a grey level of each token's square tells (VFlowOpt, ICCV 2025).

    Args:
        pixels: uint8 (n, h, w, 3); what is left at the right and at the bottom when squares are cut is left out.
        factor: Pixels along the side of one token.

    Returns:
        float32 (n * h/factor * w/factor,), in [0, 8]: entropy of the histogram of the square's 256 grey levels. Grey is
        0.3333 times the sum of the channels, rounded, which is the authors' weight.
    """
    count, height, width, _ = pixels.shape
    rows, columns = height // factor, width // factor
    whole = pixels[:, : rows * factor, : columns * factor]
    grey = _GREY[whole[..., 0].astype(np.uint16) + whole[..., 1] + whole[..., 2]]
    squares = grey.reshape(count, rows, factor, columns, factor).swapaxes(2, 3).reshape(count * rows * columns, -1)
    first = np.arange(len(squares), dtype=np.int64)[:, None] * 256
    levels = np.bincount((squares + first).ravel(), minlength=len(squares) * 256).reshape(-1, 256)
    share = np.arange(1, factor * factor + 1) / factor**2
    bits = np.concatenate([[0.0], -share * np.log2(share)])
    return bits[levels].sum(axis=1).astype(np.float32)


_GREY = np.rint(0.3333 * np.arange(3 * 255 + 1)).astype(np.int64)
"""The grey level of each sum of three channels."""
