"""All measurements, one after the other: ratios taken side by side in one run.

python -m bench [NAME ...] [--json]      names: methods storage cache_limits decode decoders first_token many_prompts
                                         memory halves compress accelerator keyframes reuse in_tower startup ray scale
                                         buckets guards
"""

from __future__ import annotations

import importlib
import os
import sys

NAMES = (
    "methods",
    "storage",
    "cache_limits",
    "decode",
    "decoders",
    "first_token",
    "many_prompts",
    "memory",
    "halves",
    "compress",
    "accelerator",
    "keyframes",
    "reuse",
    "in_tower",
    "startup",
    "ray",
    "scale",
    "buckets",
    "guards",
)


def main() -> int:
    """Run the named measurements, or all."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    chosen = [name for name in sys.argv[1:] if not name.startswith("-")] or NAMES
    options = [option for option in sys.argv[1:] if option.startswith("-")]
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        print(f"unknown measurement {unknown[0]!r}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in chosen:
        importlib.import_module(f"bench.{name}").main(options)
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
