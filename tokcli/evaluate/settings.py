"""What is compared: every method at every budget, the baselines beside them, and the references."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokcli.errors import MethodError, UsageError
from tokcli.methods import Compressor, resolve
from tokcli.methods.budget import BUDGETS

FULL, BLIND, GUESS = "full", "blind", "guess"
BASELINES = ("random", "uniform", "pool2d", "downsample")
DEFAULT_METHODS = ("dtd", "evs")
DEFAULT_KEEP = (1.0, 0.5, 0.25, 0.1, 0.05)
# Options that set the size, beside the budgets that all methods share.
_OWN_BUDGETS = (*BUDGETS, "pruning_rate")


@dataclass(frozen=True, eq=False)
class Setting:
    """One row of the results: whose tokens, and what is done to them."""

    label: str
    """The method as it was asked for, ``dtd:reference=kept``, or the name of a reference."""
    keep: float | None = None
    """The share that was asked for; None where the method sets the size by itself."""
    source: str | None = FULL
    """Which cache the tokens come from; None asks without pictures."""
    method: Compressor | None = None
    """What is run on them; None takes them as they are."""
    encoder: Compressor | None = None
    """What makes that cache, where it changes the frames before the vision tower."""
    matches: str | None = None
    """The setting whose real number of tokens this baseline repeats, item by item."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Tokens by item, for such a baseline."""
    stored_as: str | None = None
    """The cache whose codec its tokens are stored with; None: as ``compress`` stores them where no codec is named."""
    seed: int = 0

    def compressor(self, item_id: str) -> Compressor | None:
        """What compresses this item; None takes its tokens as they are. Raises :class:`MethodError`."""
        if item_id in self.counts:
            return resolve(self.label, max_tokens=self.counts[item_id], seed=self.seed)
        return self.method

    @property
    def name(self) -> str:
        """``dtd@0.25``, or the label where no share was asked for."""
        return self.label if self.keep is None else f"{self.label}@{self.keep:g}"


@dataclass(frozen=True)
class Entry:
    """One method as the user named it, with options."""

    label: str
    spec: str
    """Methods in a row, ``keyframes,dtd``."""
    options: Mapping[str, str]

    @property
    def last(self) -> str:
        return self.spec.rpartition(",")[2]

    @property
    def own_budget(self) -> bool:
        """Whether the last method was given its size by an option."""
        return any(name in self.options or f"{self.last}.{name}" in self.options for name in _OWN_BUDGETS)

    @property
    def share(self) -> float | None:
        """The share among its options, if it is one."""
        given = self.options.get("keep", self.options.get(f"{self.last}.keep"))
        try:
            return None if given is None else float(given)
        except ValueError:
            return None


def parse_entry(text: str, settings: Mapping[str, str]) -> Entry:
    """``dtd:threshold=0.5;criterion=feature`` or ``keyframes+dtd:dtd.threshold=0.4``, with the ``--set`` options added.

    Raises ``UsageError`` for an option that is not KEY=VALUE.
    """
    label = text.strip()
    head, _, tail = label.partition(":")
    names = [name.strip() for name in head.split("+")]
    options = {key: value for key, value in settings.items() if key.partition(".")[0] in names}
    for pair in filter(None, (part.strip() for part in tail.split(";"))):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"method {label!r}: {pair!r} is not KEY=VALUE; write for example dtd:threshold=0.5")
        # What the entry says wins over --set, which is for all entries.
        options.pop(f"{names[-1]}.{key.strip()}", None)
        options[key.strip()] = value.strip()
    return Entry(label, ",".join(names), options)


def method_settings(
    methods: Sequence[str], keep: Sequence[float], options: Mapping[str, str], seed: int
) -> list[Setting]:
    """Full tokens first, then every method at every budget, then the baselines at every budget, then none at all.

    An entry with a budget of its own is not crossed with ``keep``. Raises :class:`MethodError` for what cannot be
    done: all of it is known before anything is decoded.
    """
    entries = [parse_entry(text, options) for text in dict.fromkeys(methods)]
    known = {name for entry in entries for name in entry.spec.split(",")} | set(BASELINES)
    for key in options:
        owner, dot, _ = key.partition(".")
        if not dot or owner not in known:
            raise MethodError(
                f"--set {key}: write METHOD.OPTION=VALUE with one of the methods {', '.join(sorted(known))}"
            )
    named = {entry.label for entry in entries}
    entries += [parse_entry(name, options) for name in BASELINES if name not in named]
    shares = list(dict.fromkeys(keep))
    settings = [Setting(FULL, 1.0, method=resolve("none"))]
    for entry in entries:
        if entry.own_budget:
            settings.append(_setting(entry, None, seed))
        else:
            settings += [_setting(entry, share, seed) for share in shares]
    return [*settings, Setting(BLIND, source=None)]


def _setting(entry: Entry, share: float | None, seed: int) -> Setting:
    compressor = resolve(entry.spec, keep=share, options=entry.options, seed=seed)
    asked = entry.share if share is None else share
    if not compressor.before_tokens:
        return Setting(entry.label, asked, method=compressor)
    # The frames change before the encoder: these tokens come from a cache of their own.
    return Setting(entry.label, asked, source=cache_name(entry.label, asked), encoder=compressor)


def cache_name(label: str, keep: float | None) -> str:
    """A folder's name for a cache that one setting needs for itself."""
    plain = re.sub(r"[^\w.=+-]", "_", label)
    return plain if keep is None else f"{plain}-{keep:g}"


def signals_of(settings: Sequence[Setting]) -> list[str]:
    """What the settings that run on full tokens need beside them."""
    needed = [setting.method.needs for setting in settings if setting.method is not None]
    return sorted(frozenset().union(*needed) - {"tokens"})
