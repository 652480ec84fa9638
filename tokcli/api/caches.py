"""``tokcli.open_cache``: a cache with what scripts do with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tokcli.cache import Cache
from tokcli.types import EncodedItem

if TYPE_CHECKING:
    from tokcli.api.datasets import CacheDataset, CacheStream
    from tokcli.models import Inputs


class TokenCache(Cache):
    """A token cache for reading; made by ``tokcli.open_cache``. Tokens are read when they are asked for.

    ``len``, ``in``, iteration, ``cache[id]``, ``ids``, ``table``, ``errors`` and the rest are those of ``Cache``.
    """

    def metadata(self, item_id: str) -> dict[str, Any]:
        """What is known of an item, without reading its tokens: the columns that ``where`` knows.

        Raises ``CacheError`` for an id that the cache does not have.
        """
        from tokcli.pipeline.subjects import known

        row: dict[str, Any] = known(self.select([item_id])).to_pylist()[0]
        return row

    def where(self, condition: str) -> Self:
        """The same cache with only the items for which an SQL condition is true: ``duration_s > 10 and label = 'cat'``.

        Columns are those of ``table`` but arrays, and your own by their own names.

        Raises ``UsageError`` for a condition that is none, or names a column that isn't there.
        """
        from tokcli.pipeline.subjects import known, passing

        return self.select(passing(known(self), condition))

    def as_torch_dataset(
        self,
        columns: Sequence[str] | None = None,
        *,
        iterable: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        buffer_size: int = 1024,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
    ) -> CacheDataset | CacheStream:
        """A dataset for ``torch.utils.data.DataLoader``, with or without workers, forked or spawned.

        Args:
            columns: What a sample is a dictionary of: tensors (``tokens``, ``coords``, ``mass``, ``source``, ``times``,
                ``assignment``, ``deepstack``) and columns that ``where`` knows. None: a sample is an ``EncodedItem``.
            iterable: False gives a map style dataset, whose order is the loader's or its sampler's affair, and the
                rest of the arguments are refused. True gives an iterable one: every item once in an epoch over all
                ranks and workers.
            shuffle: Take shards in random order, and their items mixed by a buffer. Another order in each epoch, by
                ``set_epoch``; the same for the same seed.
            buffer_size: How far items are mixed. The buffer holds ids, not tokens.
            rank: Of ``world_size`` readers that share the items; None asks ``torch.distributed``, else 0 of 1. Readers'
                numbers of items differ by one at most.
            drop_last: Leave out up to ``world_size - 1`` items of the epoch, so that they don't.

        Raises:
            UsageError: A column that isn't there, or arguments that don't go together.
        """
        from tokcli.api.datasets import CacheDataset, CacheStream, Samples
        from tokcli.errors import UsageError

        samples = Samples(self, columns)
        if iterable:
            return CacheStream(samples, shuffle, seed, buffer_size, rank, world_size, drop_last)
        if shuffle or rank is not None or world_size is not None or drop_last:
            raise UsageError(
                "shuffle, rank, world_size and drop_last are for iterable=True; with a map style dataset give shuffle "
                "or a DistributedSampler to the DataLoader"
            )
        return CacheDataset(samples)

    def to_inputs(
        self,
        item: str | EncodedItem | Sequence[str | EncodedItem],
        prompt: str,
        model: Any,
        *,
        answer: str | None = None,
        system: str | None = None,
        history: Sequence[tuple[str, str]] = (),
        positions: str = "original",
        checkpoint: str | None = None,
    ) -> Inputs:
        """Arguments for ``model.generate(**inputs)`` or, with an answer, for the forward of a training step.

        ``generate`` may use up its arguments: make them anew for a second run. ``tokcli.collate`` makes a batch of
        several.

        Args:
            item: An item or its id; or several, which stand before the prompt in that order.
            prompt: What is asked, without placeholders; the checkpoint's chat template is put around it.
            model: One's own model of transformers, whole, as peft has wrapped it, or with the language half alone
                (``tokcli.load_language_model(...).model``); or what ``tokcli.load_language_model`` gives.
            answer: What the model should learn to say; then ``labels`` are there, -100 for all but the answer's tokens
                and its end token.
            system: System message; None leaves it to the chat template.
            history: Questions and answers before the prompt.
            positions: "original", "hf" for equality with what transformers does, or "compact".
            checkpoint: Folder or name whose tokenizer and chat template to use; None for that of the model.

        Returns:
            ``input_ids``, ``attention_mask`` int64 (1, S), ``position_ids`` int64 (3, 1, S) or (1, S),
            ``mm_encoder_outputs``, and ``labels`` int64 (1, S); on the model's device.

        Raises:
            CacheError: An id that the cache does not have.
            ModelError: The model isn't the one that made the cache, isn't known, or its context is too short.
            UsageError: The prompt or the answer holds a placeholder token.
        """
        from tokcli.models import Request, language_of, make_inputs

        language = language_of(model, checkpoint)
        self._check_model(language)
        several = [item] if isinstance(item, str | EncodedItem) else item
        items = [one if isinstance(one, EncodedItem) else self[one] for one in several]
        return make_inputs(language, Request(items, prompt, system, tuple(history)), answer, positions)

    def _check_model(self, language: Any) -> None:
        # Reads the tower's weights: once for each checkpoint.
        checked: set[str] = self.__dict__.setdefault("_checked", set())
        if language.name not in checked:
            language.check(self.manifest.configuration["model"])
            checked.add(language.name)


def open_cache(path: str | Path) -> TokenCache:
    """Open a cache for reading; it needs no lock and sees what is committed now.

    Raises ``CacheError`` for a path that is no cache or has a newer format, ``IntegrityError`` for a damaged one.
    """
    return TokenCache(path)
