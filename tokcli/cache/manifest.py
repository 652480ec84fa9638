"""``manifest.json``: what every item of a cache was made with.

The configuration decides the stored tokens; a run resumes only where it is equal. The information beside it (versions,
time, inputs) is for people and may differ from run to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tokcli import __version__
from tokcli.cache.atomic import write_atomically
from tokcli.cache.layout import MANIFEST
from tokcli.errors import CacheError, IntegrityError
from tokcli.storage import Location

FORMAT = 1

DIGEST = "blake3"
"""Key of the digest of all other keys of the manifest."""

# Where both sides know the fingerprint of weights and preprocessing, it decides, and the same checkpoint may be named
# by another path or branch.
_NAMES_OF_A_FINGERPRINT = ("model.model", "model.name", "model.revision")
_ABSENT = object()
_FLAGS = {"tokens_dtype": "codec", "model.model": "model"}
"""What users call it, where that is another word."""
_PART = re.compile(r".*?\.\d+:[^.]+")


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN. Raises ``ValueError``, ``TypeError``."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(value: Any) -> str:
    from blake3 import blake3

    return blake3(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The manifest of one cache; both mappings hold JSON values only."""

    configuration: Mapping[str, Any]
    """Must be equal to resume: model, sampling, method, tokens_dtype, resize, decoder, seed."""
    information: Mapping[str, Any] = field(default_factory=dict)
    """May differ: versions of libraries, default position scheme, inputs."""
    format: int = FORMAT
    tokcli: str = __version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        # Through JSON and back, so that what is compared is what would be read: tuples become lists.
        object.__setattr__(self, "configuration", json.loads(canonical_json(dict(self.configuration))))
        object.__setattr__(self, "information", json.loads(canonical_json(dict(self.information))))

    @classmethod
    def create(
        cls,
        *,
        model: Mapping[str, Any],
        sampling: Mapping[str, Any],
        method: Mapping[str, Any],
        tokens_dtype: str,
        resize: str,
        decoder: str,
        seed: int = 0,
        information: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """The manifest of a run. Versions of libraries that stand in ``model`` are moved to the information."""
        versions = {key: model[key] for key in model if "version" in key or key in ("torch", "transformers")}
        return cls(
            configuration={
                "model": {key: value for key, value in model.items() if key not in versions},
                "sampling": dict(sampling),
                "method": dict(method),
                "tokens_dtype": tokens_dtype,
                "resize": resize,
                "decoder": decoder,
                "seed": seed,
            },
            information={**({"model_versions": versions} if versions else {}), **(information or {})},
        )

    @property
    def digest(self) -> str:
        """blake3 of the configuration's canonical JSON, 64 hex digits; every row and shard carries it."""
        return _digest(self.configuration)

    def differences(self, asked: Manifest) -> list[str]:
        """``key.path: old in the cache, new asked for`` for all that keeps ``asked`` from resuming; empty if equal."""
        return [
            f"{_FLAGS.get(key, key)}: {old} in the cache, {new} asked for" for key, old, new in self.differing(asked)
        ]

    def differing(self, asked: Manifest) -> list[tuple[str, str, str]]:
        """The same as ``(key.path, old, new)``, to be worded otherwise."""
        old, new = dict(_leaves(self.configuration)), dict(_leaves(asked.configuration))
        fingerprint = old.get("model.fingerprint")
        if fingerprint is not None and fingerprint == new.get("model.fingerprint"):
            for name in _NAMES_OF_A_FINGERPRINT:
                old.pop(name, None)
                new.pop(name, None)
        elif fingerprint != new.get("model.fingerprint"):
            # Of another tower nearly all else is other too: its name says enough.
            told = "model.fingerprint" if old.get("model.model") == new.get("model.model") else "model.model"
            old, new = (
                {key: value for key, value in leaves.items() if key == told or not key.startswith("model.")}
                for leaves in (old, new)
            )
        gone, come = _parts(old) - _parts(new), _parts(new) - _parts(old)
        old, new = _named(old, gone), _named(new, come)
        return [
            (key, _show(old.get(key, _ABSENT)), _show(new.get(key, _ABSENT)))
            for key in sorted(old.keys() | new.keys())
            if old.get(key, _ABSENT) != new.get(key, _ABSENT)
        ]

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {
            "tokcli": self.tokcli,
            "format": self.format,
            "created": self.created,
            "configuration": self.configuration,
            "information": self.information,
        }

    def write(self, cache: Location) -> None:
        """Write ``manifest.json`` atomically, with a digest of all that it holds."""
        value = self.to_json()
        text = json.dumps(value | {DIGEST: _digest(value)}, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(cache / MANIFEST, (text + "\n").encode(), "manifest")


def _is_as_written(value: dict[str, Any]) -> bool:
    """Whether a manifest agrees with its digest. Those from before there was one have these keys and no others."""
    rest = {key: child for key, child in value.items() if key != DIGEST}
    if DIGEST not in value:
        return rest.keys() <= {"tokcli", "format", "created", "configuration", "information"}
    return bool(value[DIGEST] == _digest(rest))


def read_manifest(cache: Location, *, trust: bool = False) -> Manifest:
    """Read and check ``manifest.json``; with ``trust`` also one that does not agree with its digest.

    Raises ``CacheError`` where there is none or its format is newer than this tokcli, ``IntegrityError`` where it
    cannot be parsed, or is not what was written.
    """
    path = cache / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(
            f"{cache} is not a token cache: no {MANIFEST} in it; name the folder that `tokcli compress -o` wrote"
        ) from None
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    try:
        value = json.loads(content)
    except ValueError as error:
        raise IntegrityError(f"{path} is damaged ({error}); restore it from a copy, or write a new cache") from None
    if not isinstance(value, dict) or not isinstance(value.get("format"), int) or "tokcli" not in value:
        raise CacheError(
            f"{path} is not the manifest of a token cache; name the folder that `tokcli compress -o` wrote"
        )
    if value["format"] > FORMAT:
        raise CacheError(
            f"{cache} has cache format {value['format']} (written by tokcli {value['tokcli']}); this tokcli "
            f"{__version__} reads formats up to {FORMAT}: upgrade tokcli"
        )
    if not trust and not _is_as_written(value):
        raise IntegrityError(
            f"{path} is not what was written; restore it from a copy, or let `tokcli repair` look whether what it says "
            "of the tokens is still right"
        )
    configuration, information = value.get("configuration"), value.get("information", {})
    if not isinstance(configuration, dict) or not isinstance(information, dict):
        raise IntegrityError(f"{path} is damaged (no configuration); restore it from a copy, or write a new cache")
    return Manifest(configuration, information, value["format"], str(value["tokcli"]), str(value.get("created", "")))


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``("a.b", leaf)`` for every leaf; other lists than those of mappings, and empty mappings, count as leaves."""
    if isinstance(value, list) and value and all(isinstance(child, Mapping) for child in value):
        # A list of named parts, such as the methods of a composition, reads by its names.
        value = {
            f"{number}:{child['name']}" if "name" in child else str(number): child for number, child in enumerate(value)
        }
    if isinstance(value, Mapping) and (value or not prefix):
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _parts(leaves: Mapping[str, Any]) -> set[str]:
    """The named parts that leaves are of: ``method.methods.0:dtd`` for ``method.methods.0:dtd.options.keep``."""
    return {match[0] for key in leaves if (match := _PART.match(key))}


def _named(leaves: Mapping[str, Any], parts: set[str]) -> dict[str, Any]:
    """Leaves, with one for each of these parts, its name, in place of all that are of it."""
    found: dict[str, Any] = {}
    for key, value in leaves.items():
        match = _PART.match(key)
        if match and match[0] in parts:
            place, _, name = match[0].rpartition(":")
            found[place] = name
        else:
            found[key] = value
    return found


def _show(value: Any) -> str:
    return "nothing" if value is _ABSENT else canonical_json(value)
