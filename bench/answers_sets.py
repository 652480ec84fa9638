"""What one section of a benchmark page is about."""

from __future__ import annotations

from dataclasses import dataclass

KEEP = (0.5, 0.25, 0.1, 0.05)
SEED = 2026


@dataclass(frozen=True)
class Set:
    """One collection of clips, one model, and what is compared on it."""

    name: str
    title: str
    model: str
    kind: str
    count: int
    methods: tuple[str, ...]
    keep: tuple[float, ...] = KEEP
    num_frames: int | None = None
    format: str = "mixed"

    @property
    def commands(self) -> list[str]:
        """The command lines that do the same."""
        frames = f" --num-frames {self.num_frames}" if self.num_frames else ""
        methods = ",".join(self.methods)
        shares = ",".join(f"{keep:g}" for keep in self.keep)
        return [
            f"tokcli render -o clips --kind {self.kind} --count {self.count} --seed {SEED} --format {self.format}",
            f"tokcli eval clips --qa clips/qa.jsonl --model {self.model}{frames} --methods '{methods}' --keep {shares}",
        ]
