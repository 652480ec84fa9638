"""The heart of an evaluation: these settings on these items, and how every question went.

Nothing here decodes or encodes, and nothing is written but outcomes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

from blake3 import blake3

from tokcli.cache import Cache
from tokcli.cache.codec import Codec
from tokcli.cache.codecs import codec_of
from tokcli.cache.measure import SizeMeter, StoredSize, read_back
from tokcli.cache.tensors import token_bytes
from tokcli.errors import UsageError
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.judging import Judge, Judged
from tokcli.evaluate.questions import Question
from tokcli.evaluate.settings import FULL, Setting
from tokcli.methods import Compressor
from tokcli.pipeline.default_codec import resolved_codec
from tokcli.pipeline.restore import visual_tokens
from tokcli.types import EncodedItem, TokenSet, VisualTokens


@dataclass(frozen=True)
class Source:
    """Cached tokens that settings start from."""

    cache: Cache
    identity: str
    """Equal for caches whose items have equal tokens, within one evaluation."""


@dataclass(frozen=True)
class Outcome:
    """One setting on one item."""

    item: str
    kept_tokens: int
    source_tokens: int
    source_bytes: int
    size: StoredSize | None
    """What the item would take in a cache; None without pictures, or where nobody asked."""
    method_seconds: float
    answer_seconds: float
    judged: tuple[Judged, ...]
    """A result for every question about the item, in their order; empty where the setting cannot be met."""
    error: str = ""
    """Why the method gave no tokens."""


@dataclass
class _Item:
    """One item while settings are run on it: its tokens are read once."""

    sources: Mapping[str, Source]
    id: str
    loaded: dict[str, EncodedItem] = field(default_factory=dict)
    visual: VisualTokens | None = None

    def of(self, source: str) -> EncodedItem:
        if source not in self.loaded:
            self.loaded[source] = self.sources[source].cache[self.id]
        return self.loaded[source]

    def all_tokens(self) -> VisualTokens:
        self.visual = self.visual or visual_tokens(self.of(FULL))
        return self.visual

    @property
    def any(self) -> EncodedItem:
        """The item as some source has it, for what is the same in all."""
        return next(iter(self.loaded.values()), None) or self.of(next(iter(self.sources)))


class Runner:
    """Runs settings on items and remembers what came out; safe to call again with other settings or items.

    ``sources`` maps names to caches, ``questions`` ids to what is asked. With a journal every outcome is written as
    soon as it is there, and none that stands in it is computed again. Without ``sizes`` no outcome says what the item
    would take in a cache: measuring it takes a fifth of the time.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        questions: Mapping[str, Sequence[Question]],
        judge: Judge,
        journal: Journal | None = None,
        *,
        sizes: bool = True,
    ) -> None:
        self.sources, self.questions, self.judge = dict(sources), questions, judge
        self._journal = journal
        self._sizes = sizes
        self._known: dict[str, dict[str, Any]] = {} if journal is None else dict(journal.lines)
        self._answered = {(line["item"], line["tokens"]): line for line in self._known.values() if line.get("tokens")}
        self._hashes: dict[tuple[str, str], str] = {}

    def run(
        self,
        settings: Sequence[Setting],
        item_ids: Sequence[str],
        on_step: Callable[[int], None] | None = None,
    ) -> list[list[Outcome]]:
        """Outcomes by setting, then by item in the order given.

        ``on_step`` is called with the number of outcomes so far. A budget that an item cannot meet is an outcome with
        an error. Raises ``ModelError`` or ``CacheError`` for what ends the evaluation.
        """
        table: list[list[Outcome]] = [[] for _ in settings]
        done = 0
        for item_id in item_ids:
            item = _Item(self.sources, item_id)
            for row, setting in zip(table, settings):
                row.append(self._outcome(setting, item))
                done += 1
                if on_step is not None:
                    on_step(done)
        return table

    def pending(self, settings: Sequence[Setting], item_ids: Sequence[str]) -> int:
        """How many outcomes the journal does not have yet."""
        return sum(self._key(setting, item_id) not in self._known for setting in settings for item_id in item_ids)

    def _key(self, setting: Setting, item_id: str) -> str:
        """Equal where the outcome is, whatever the setting is called."""
        compressor = setting.compressor(item_id)
        source = None if setting.source is None else self.sources[setting.source].identity
        codec = None if setting.source is None else self._codec(setting, compressor).name
        numbers = [question.number for question in self.questions[item_id]]
        described = compressor and compressor.to_json()
        parts = [source, described, codec, item_id, self._source_hash(setting, item_id), numbers]
        return blake3(json.dumps(parts, sort_keys=True).encode()).hexdigest(length=16)

    def _source_hash(self, setting: Setting, item_id: str) -> str:
        name = setting.source or next(iter(self.sources))
        if (name, item_id) not in self._hashes:
            rows = self.sources[name].cache.table(columns=["id", "source_blake3"]).to_pylist()
            self._hashes |= {(name, row["id"]): row["source_blake3"] for row in rows}
        return self._hashes[name, item_id]

    def _outcome(self, setting: Setting, item: _Item) -> Outcome:
        key = self._key(setting, item.id)
        if key not in self._known:
            line = self._measured(setting, item)
            self._known[key] = line
            if self._journal is not None:
                self._journal.add(key, line)
        return _from_line(self._known[key])

    def _measured(self, setting: Setting, item: _Item) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            tokens = None if setting.source is None else self._tokens(setting, item)
        except UsageError as error:  # of the method, or of the codec
            return _line(Outcome(item.id, 0, item.any.source_tokens, item.any.source_bytes, None, 0, 0, (), str(error)))
        method_seconds = time.perf_counter() - started
        digest = None if tokens is None else _digest(tokens)
        # Settings that end in the same tokens get the same answers: at the least size, or with everything kept.
        same = self._answered.get((item.id, digest)) if digest else None
        if same is None:
            started = time.perf_counter()
            judged = tuple(self.judge.judge(tokens, self.questions[item.id], lambda: item.of(FULL)))
            answer_seconds = time.perf_counter() - started
        else:
            judged, answer_seconds = _from_line(same).judged, float(same["answer_seconds"])
        outcome = Outcome(
            item=item.id,
            kept_tokens=0 if tokens is None else len(tokens.kept),
            source_tokens=item.any.source_tokens,
            source_bytes=item.any.source_bytes,
            size=self._meter(setting, item.id).measure(tokens) if tokens is not None and self._sizes else None,
            method_seconds=round(method_seconds, 6),
            answer_seconds=round(answer_seconds, 6),
            judged=judged,
        )
        line = _line(outcome) | {"setting": setting.name, "tokens": digest}
        if digest:
            self._answered.setdefault((item.id, digest), line)
        return line

    def _tokens(self, setting: Setting, item: _Item) -> EncodedItem:
        assert setting.source is not None
        compressor = setting.compressor(item.id)
        if compressor is None:
            return item.of(setting.source)
        made = replace(item.of(FULL), kept=compressor.compress(item.all_tokens(), item.id))
        return read_back(made, self._codec(setting, compressor))

    def _codec(self, setting: Setting, compressor: Compressor | None) -> Codec:
        """What the setting's tokens are stored with in a cache of it."""
        assert setting.source is not None
        cache = self.sources[setting.stored_as or setting.source].cache
        held = str(cache.manifest.configuration["tokens_dtype"])
        name = held
        if compressor is not None and setting.stored_as is None:
            name = resolved_codec("auto", compressor, exact=codec_of(held).dtype, held=held)
        return cache.codec if name == held and cache.codec is not None else codec_of(name)

    def _meter(self, setting: Setting, item_id: str) -> SizeMeter:
        assert setting.source is not None
        return SizeMeter(self.sources[setting.source].cache.manifest, self._codec(setting, setting.compressor(item_id)))


def _digest(item: EncodedItem) -> str:
    """Of all that the language model gets of an item."""
    digest = blake3(json.dumps([[view.kind, view.grid] for view in item.views]).encode())
    for part in _parts(item.kept):
        digest.update(part)
    return digest.hexdigest(length=16)


def _parts(kept: TokenSet) -> Iterator[bytes]:
    yield kept.source.numpy().tobytes()
    yield kept.coords.numpy().tobytes()
    yield token_bytes(kept.tokens, str(kept.tokens.dtype).removeprefix("torch.")).tobytes()


def _line(outcome: Outcome) -> dict[str, Any]:
    # Results of questions as lists: there are many, and names would be most of the file.
    return {**asdict(replace(outcome, judged=())), "judged": [list(astuple(judged)) for judged in outcome.judged]}


def _from_line(line: Mapping[str, Any]) -> Outcome:
    size = line["size"]
    return Outcome(
        item=line["item"],
        kept_tokens=line["kept_tokens"],
        source_tokens=line["source_tokens"],
        source_bytes=line["source_bytes"],
        size=None if size is None else StoredSize(size["payload_bytes"], tuple(size["row_bytes"]), size["group_bytes"]),
        method_seconds=line["method_seconds"],
        answer_seconds=line["answer_seconds"],
        judged=tuple(Judged(*judged) for judged in line["judged"]),
        error=line["error"],
    )
