"""What a run needs from this machine, looked at one by one."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import psutil

from tokcli.pipeline.preflight import available_cores

REQUIRED = ("torch", "transformers", "av", "pillow", "pyarrow", "faiss-cpu", "blake3")
OPTIONAL = {
    "decord": ("decord", "decord"),
    "torchcodec": ("torchcodec", "torchcodec"),
    "pillow-heif": ("pillow_heif", "heif"),
    "ray": ("ray", "ray"),
    "matplotlib": ("matplotlib", "report"),
}
MODULES = {"pillow": "PIL", "faiss-cpu": "faiss"}


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    name: str
    status: Literal["ok", "missing", "optional"]
    found: str
    remedy: str = ""


def diagnose() -> list[Check]:
    """Look at everything; never raises."""
    looks: list[Callable[[], Check]] = [_cores, _disk, _gpu, _ffmpeg, _bundled_model]
    checks = [_library(name) for name in REQUIRED]
    for look in looks:
        try:
            checks.append(look())
        except Exception as error:
            reason = " ".join(str(error).split())
            checks.append(Check(look.__name__.strip("_"), "missing", f"{type(error).__name__}: {reason}"))
    return checks + [_optional(name, module, extra) for name, (module, extra) in OPTIONAL.items()]


def _library(name: str) -> Check:
    try:
        importlib.import_module(MODULES.get(name, name))
        return Check(name, "ok", version(name))
    except (ImportError, PackageNotFoundError, OSError) as error:
        return Check(name, "missing", " ".join(str(error).split()), f'pip install "{name}"')


def _optional(name: str, module: str, extra: str) -> Check:
    try:
        importlib.import_module(module)
        return Check(name, "ok", version(name))
    except Exception as error:  # a broken native library raises anything
        found = "not installed" if isinstance(error, ModuleNotFoundError) else f"does not import: {error}"
        return Check(name, "optional", found.splitlines()[0], f'pip install "tokcli[{extra}]"')


def _cores() -> Check:
    free = psutil.virtual_memory().available / 2**30
    return Check("machine", "ok", f"{available_cores()} cores, {free:.1f} GiB of memory free")


def _disk() -> Check:
    free = shutil.disk_usage(".").free / 2**30
    if free < 1:
        return Check("disk", "missing", f"{free:.2f} GiB free here", "make room, or write the cache elsewhere")
    return Check("disk", "ok", f"{free:.0f} GiB free here")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("gpu", "ok", torch.cuda.get_device_name(0))
    if torch.backends.mps.is_available():
        return Check("gpu", "optional", "Apple's, which is not taken by itself", "say --device mps to use it")
    return Check("gpu", "optional", "none: the encoder runs on the CPU")


def _ffmpeg() -> Check:
    from tokcli.media.ffmpeg import ffmpeg_license, ffmpeg_version

    return Check("ffmpeg", "ok", f"{ffmpeg_version()} in PyAV, {ffmpeg_license()}")


def _bundled_model() -> Check:
    from tokcli.models import load_language_model, load_tower

    tower = load_tower("nano")
    load_language_model("nano")
    return Check("nano", "ok", f"both halves load, computing in {tower.identity['dtype']}")
