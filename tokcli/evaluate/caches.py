"""Caches that were made before, as settings: each is one, and the one with all tokens is the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokcli.cache import Cache, open_cache
from tokcli.cache.layout import MANIFEST
from tokcli.errors import ModelError, UsageError
from tokcli.evaluate.runner import Source
from tokcli.evaluate.settings import BLIND, FULL, Setting
from tokcli.methods import Compressor
from tokcli.storage import location


@dataclass(frozen=True)
class Caches:
    """What was given, opened and checked against one another."""

    settings: list[Setting]
    sources: dict[str, Source]
    ids: list[str]
    """Items that all of them have."""
    identity: dict[str, Any]
    """Of the vision tower that made them all."""
    notes: list[str]


def are_caches(inputs: Sequence[str]) -> bool:
    """Whether the inputs are folders of caches. Raises ``UsageError`` where only some are."""
    found = [given for given in inputs if (location(given) / MANIFEST).is_file()]
    if found and len(found) < len(inputs):
        other = next(given for given in inputs if given not in found)
        raise UsageError(f"{found[0]} is a cache and {other} is not; evaluate caches, or media, not both at once")
    return bool(found)


def open_caches(paths: Sequence[str]) -> Caches:
    """Open caches to compare. Raises ``ModelError`` where they are not of one model, ``CacheError`` for damage.

    ``UsageError`` where they have no item in common.
    """
    caches = {path: open_cache(path) for path in dict.fromkeys(paths)}
    identities = {path: cache.manifest.configuration["model"] for path, cache in caches.items()}
    first = next(iter(identities))
    for path, identity in identities.items():
        if identity["fingerprint"] != identities[first]["fingerprint"]:
            raise ModelError(
                f"{path} was made by another model ({identity['model']}) than {first} ({identities[first]['model']}); "
                "compare caches of one model"
            )
    full = next((path for path, cache in caches.items() if _method(cache).name == "none"), None)
    labels = Counter(label_of(_method(cache)) for cache in caches.values())
    settings, sources = [], {}
    for path in sorted(caches, key=lambda path: path != full):
        compressor = _method(caches[path])
        label = label_of(compressor)
        if path == full:
            settings.append(Setting(FULL, 1.0))
            sources[FULL] = Source(caches[path], caches[path].manifest.digest)
            continue
        if labels[label] > 1:
            label = f"{label} ({path})"
        settings.append(Setting(label, _share(compressor), source=path))
        sources[path] = Source(caches[path], caches[path].manifest.digest)
    ids = [item_id for item_id in caches[first].ids() if all(item_id in cache for cache in caches.values())]
    if not ids:
        raise UsageError(f"no item is in all of {', '.join(caches)}; compare caches of the same inputs")
    notes = [f"{path} is the reference: all tokens" for path in [full] if path]
    if full is None:
        notes.append(
            "none of the caches has all tokens (method none): there is nothing to compare with, no baselines at the "
            "same number of tokens, and intervals are not paired"
        )
    left_out = len(set().union(*(cache.ids() for cache in caches.values()))) - len(ids)
    if left_out:
        notes.append(f"{left_out} items are not in all caches and are left out")
    return Caches([*settings, Setting(BLIND, source=None)], sources, ids, dict(identities[first]), notes)


def label_of(compressor: Compressor) -> str:
    """A method with the options that differ from its defaults, as ``--methods`` takes it; the share is left out."""
    stages = compressor.to_json()["methods"]
    plain = Compressor.from_json({"methods": [{"name": stage["name"], "options": _least(stage)} for stage in stages]})
    parts = []
    for stage, default in zip(stages, plain.to_json()["methods"]):
        changed = {key: value for key, value in stage["options"].items() if value != default["options"].get(key)}
        prefix = f"{stage['name']}." if len(stages) > 1 else ""
        parts += [f"{prefix}{key}={value}" for key, value in changed.items()]
    name = "+".join(stage["name"] for stage in stages)
    return f"{name}:{';'.join(parts)}" if parts else name


def _least(stage: dict[str, Any]) -> dict[str, Any]:
    """Options that a method cannot do without: the share, for those that ask for a budget."""
    keep = stage["options"].get("keep")
    if keep is not None:
        return {"keep": keep}
    return {key: stage["options"][key] for key in ("max_tokens",) if stage["options"].get(key) is not None}


def _share(compressor: Compressor) -> float | None:
    keep = compressor.to_json()["methods"][-1]["options"].get("keep")
    return None if keep is None else float(keep)


def _method(cache: Cache) -> Compressor:
    return Compressor.from_json(cache.manifest.configuration["method"])
