"""One file looked at in a process of its own, by the same decoder and under the same guard as in a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokcli.errors import MediaError
from tokcli.media import STEPS, Limits, Sampling
from tokcli.pipeline.decoder import Supervision
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.messages import DecodeSettings, Failed, Found
from tokcli.storage import is_url
from tokcli.storage.fetch import at_hand
from tokcli.types import MediaInfo, MediaItem

POLL_SECONDS = 0.1


@dataclass
class Diagnosis:
    """What was found out about a file, up to the step that failed."""

    path: str
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts by the name of each step that was done."""
    failed_step: str | None = None
    error_class: str | None = None
    reason: str | None = None
    """One line; None where the file is sound."""
    log: list[str] = field(default_factory=list)
    """The decoder's last lines."""

    @property
    def sound(self) -> bool:
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "sound": self.sound, **{name: getattr(self, name) for name in _FIELDS}}


_FIELDS = ("failed_step", "error_class", "reason", "steps", "log")


def diagnose_file(path: str, sampling: Sampling, limits: Limits, decoder: str, supervision: Supervision) -> Diagnosis:
    """Look at a file, or a copy of what a URL names, step by step. What it is or does becomes part of the diagnosis;
    nothing is raised for it. Raises ``MediaError`` for a URL that cannot be read."""
    try:
        with at_hand(path) as copy:
            return _diagnosed(path, copy, sampling, limits, decoder, supervision)
    except OSError as error:
        if not is_url(path):
            raise
        raise MediaError(f"{path}: cannot be read: {error.strerror or error}") from None


def _diagnosed(
    path: str, copy: str, sampling: Sampling, limits: Limits, decoder: str, supervision: Supervision
) -> Diagnosis:
    found = Diagnosis(path)
    settings = DecodeSettings(sampling, limits, decoder, _as_it_is, "bicubic", True, 1)
    with DecoderPool(1, supervision, alone=True) as pool:
        pool.configure(settings)
        (watched,) = pool.decoders
        while not watched.idle:
            list(pool.poll(POLL_SECONDS))
        watched.assign(MediaItem(path, path, 0, 0), 1, probe=True, path=copy)
        while watched.item is not None:
            for event in pool.poll(POLL_SECONDS):
                message = event.message
                if isinstance(message, Found):
                    found.steps[message.step] = message.facts
                    found.log = watched.log.tail().splitlines()
                elif isinstance(message, Failed):
                    found.failed_step = _next_step(found)
                    found.error_class, found.reason = message.error_class, message.message
                    found.log = message.log_tail.splitlines()
    if found.sound and (damage := _damage(found.steps["frames"])):
        found.failed_step, found.error_class, found.reason = "frames", "Damaged", damage
    return found


def _as_it_is(info: MediaInfo) -> tuple[int, int]:
    return info.height, info.width


def _next_step(found: Diagnosis) -> str:
    """The step that was not done; of a still it is the frames that follow its container."""
    done = [step for step in STEPS if step in found.steps]
    still = done and done[-1] == "container" and "streams" not in found.steps["container"]
    return "frames" if still else STEPS[len(done)]


def _damage(frames: dict[str, Any]) -> str | None:
    missing = frames["planned"] - frames["decoded"]
    parts = [
        (missing, "planned frames did not decode"),
        (frames["doubtful"], "frames are doubtful: predicted from what was lost"),
        (frames["flagged_corrupt"], "frames were flagged as corrupt"),
        (frames["bad_packets"], "bad packets"),
    ]
    told = ", ".join(f"{count:,} {what}" for count, what in parts if count > 0)
    at = frames["first_bad_seconds"]
    return None if not told else told if at is None else f"{told}; first at {at:.3f} s"
