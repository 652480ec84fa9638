"""The infer side: a language model without a vision tower, that answers from cached tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tokcli.errors import ModelError
from tokcli.models import answering, asking, generating
from tokcli.models.base import FamilyAdapter
from tokcli.models.checkpoints import canonical_name, resolve_checkpoint
from tokcli.models.choosing import GREEDY, Choice
from tokcli.models.constraint import Constraint
from tokcli.models.families import family_of
from tokcli.models.fitting import check_tower, check_width
from tokcli.models.generating import Results
from tokcli.models.loading import load_config, load_half, load_tokenizer
from tokcli.models.memory import batch_tokens
from tokcli.models.placement import pick_device, pick_dtype
from tokcli.models.positions import check_scheme
from tokcli.models.prompt import Padding, Prompt, Request, build_prompt, read_template
from tokcli.models.replies import Answer, OptionScore
from tokcli.types import EncodedItem


class LanguageModel:
    """Language half of one checkpoint, with its tokenizer. Made by :func:`load_language_model`."""

    def __init__(self, model: Any, tokenizer: Any, family: FamilyAdapter, folder: Path, name: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.family = family
        self.name = name
        self._folder = folder
        self.template = read_template(folder, tokenizer, family.default_template)
        self._check_placeholders()
        self.max_batch_tokens = batch_tokens(model)
        """Tokens, padding and those to come included, that are computed together; less after a batch didn't fit."""
        self._constraints: dict[str, Constraint] = {}

    def _check_placeholders(self) -> None:
        for kind in ("image", "video"):
            token = self.family.placeholder(self.model.config, kind)
            if self.tokenizer.convert_ids_to_tokens(token) is None:
                raise ModelError(
                    f"{self._folder}: the tokenizer has no token {token}, which config.json names for {kind} tokens; "
                    "use the tokenizer files that belong to the checkpoint"
                )

    def check(self, identity: Mapping[str, Any]) -> None:
        """Make sure that this checkpoint's own tower is the one that ``identity`` describes.

        Args:
            identity: ``VisionTower.identity`` as the cache stored it.

        Raises:
            OtherModelError: Another tower or other preprocessing, so that its tokens would mean nothing here.
        """
        check_tower(self._folder, self.family, self.model.config, self.name, identity)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        max_new_tokens: int = 128,
        scheme: str = "original",
        choice: Choice = GREEDY,
    ) -> list[Answer]:
        """Answer the requests, greedily by default, in batches of similar length; answers are in their order.

        A batch that doesn't fit into the device's memory is halved and tried again.

        Raises:
            ModelError: The scheme is unknown, an item doesn't fit this model, or a prompt doesn't fit its context.
            UsageError: A prompt holds a placeholder token, ``max_new_tokens`` is below 1, or the schema is none.
        """
        return generating.generate(self, requests, max_new_tokens=max_new_tokens, scheme=scheme, choice=choice)

    def answer(
        self,
        requests: Sequence[Request],
        *,
        max_new_tokens: int = 128,
        scheme: str = "original",
        choice: Choice = GREEDY,
    ) -> Iterator[Results]:
        """Answer the requests as :meth:`generate` does, computing once what several of them are about.

        Requests with the very same item objects share them.

        Yields:
            By the numbers of some requests, as soon as they are there, answers, or the errors that they would raise.

        Raises:
            ModelError: The scheme is unknown.
            UsageError: ``max_new_tokens`` is below 1, or the schema is none.
        """
        return answering.answer(self, requests, max_new_tokens=max_new_tokens, scheme=scheme, choice=choice)

    def ask(
        self,
        item: EncodedItem | None,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 64,
        scheme: str = "original",
        system: str | None = None,
        choice: Choice = GREEDY,
    ) -> list[Answer]:
        """Answer many prompts about one item, as :meth:`generate` does, computing the item only once.

        Args:
            item: What the prompts are about; None asks without any picture.
            prompts: Any number; answers are in their order.
            system: System message; None leaves it to the checkpoint's chat template.

        Raises:
            ModelError: As in :meth:`generate`, or the model's attention can't be masked token by token.
            UsageError: A prompt holds a placeholder token, or ``max_new_tokens`` is below 1.
        """
        requests = asking.requests_for(item, prompts, system)
        return asking.ask(self, requests, max_new_tokens=max_new_tokens, scheme=scheme, choice=choice)

    def log_likelihoods(
        self,
        item: EncodedItem | None,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
        *,
        scheme: str = "original",
        system: str | None = None,
    ) -> list[list[OptionScore]]:
        """How likely each option is as the beginning of the reply to its prompt; item and prompts computed only once.

        The request of the harnesses' ``loglikelihood``: an option is tokenized on its own, without special tokens, and
        its ids follow those of the prompt, of which the chat template's generation prompt is the end. Nothing is put
        between the two, no space either, and no end token is added or counted. Totals are sums, so longer options score
        lower; divide by ``tokens``, or by the length of the text, for the length-normalised accuracy.

        Raises:
            ModelError: As in :meth:`ask`, whose other arguments these are too.
            UsageError: A prompt holds a placeholder token, an option has no tokens, or the lists differ in length.
        """
        return asking.log_likelihoods(self, item, prompts, options, scheme=scheme, system=system)

    def distributions(
        self,
        item: EncodedItem | None,
        prompts: Sequence[str],
        continuations: Sequence[Sequence[int]],
        *,
        scheme: str = "original",
        system: str | None = None,
    ) -> list[torch.Tensor]:
        """What the model expects at each step of a given reply (teacher forcing).

        Returns:
            For each prompt float32 (n, V) natural log-probabilities on the CPU, n the length of its continuation: row i
            is the distribution that predicts ``continuation[i]``, given the prompt and the tokens before it.

        Raises:
            ModelError: As in :meth:`ask`, whose other arguments these are too.
            UsageError: A prompt holds a placeholder token, or the lists differ in length.
        """
        return asking.distributions(self, item, prompts, continuations, scheme=scheme, system=system)

    def text_embeddings(self, text: str) -> torch.Tensor:
        """Float32 (Q, D) on the CPU: input embeddings of a text without special tokens."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        embed = self.model.get_input_embeddings()
        with torch.inference_mode():
            rows: torch.Tensor = embed(torch.tensor(ids, dtype=torch.long, device=embed.weight.device))
        return rows.float().cpu()

    def prompt(self, request: Request, scheme: str = "original") -> Prompt:
        """Ids and positions of the request's kept tokens."""
        check_scheme(scheme, self.family.position_schemes)
        return build_prompt(
            request,
            family=self.family,
            config=self.model.config,
            tokenizer=self.tokenizer,
            template=self.template,
            scheme=scheme,
        )

    def prepare(self, requests: Sequence[Request], scheme: str = "original") -> dict[str, Any]:
        """Arguments for ``model.forward`` or ``model.generate`` of transformers, for a batch.

        Returns:
            ``input_ids`` and ``attention_mask`` int64 (B, S), padded on the left; ``position_ids`` int64 (3, B, S), or
            (B, S) for families without M-RoPE; ``mm_encoder_outputs``, made anew on every call because ``generate``
            changes it.
        """
        return self.collate(requests, [self.prompt(request, scheme) for request in requests])

    def collate(
        self, requests: Sequence[Request], prompts: Sequence[Prompt], padding: Padding = "left"
    ) -> dict[str, Any]:
        """The same for requests whose prompts are there already."""
        length = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), length), self.pad_id())
        mask = torch.zeros_like(ids)
        positions = torch.zeros(*prompts[0].positions.shape[:-1], len(prompts), length, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            start = length - len(prompt.ids) if padding == "left" else 0
            own = slice(start, start + len(prompt.ids))
            ids[row, own] = prompt.ids
            mask[row, own] = 1
            positions[..., row, own] = prompt.positions
        items = [item for request in requests for item in request.items]
        weight = self.model.get_input_embeddings().weight
        check_width(self, items)
        tensors = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        placed: dict[str, Any] = {name: tensor.to(weight.device) for name, tensor in tensors.items()}
        placed |= self.family.further_inputs(placed["input_ids"], self.model.config)
        return {**placed, "mm_encoder_outputs": self.family.encoder_outputs(items, weight)}

    def constraint(self, schema: str) -> Constraint:
        """What holds answers to a JSON schema. Raises ``UsageError`` where that can't be."""
        if schema not in self._constraints:
            vocabulary = self.model.get_output_embeddings().weight.shape[0]
            self._constraints[schema] = Constraint(schema, self.tokenizer, vocabulary, self.end_ids())
        return self._constraints[schema]

    def finish(self, row: list[int], prompt_tokens: int, visual_tokens: int, seconds: float) -> Answer:
        """The answer that generated ids are; they may go on behind an end token."""
        ends = self.end_ids()
        end = next((number for number, token in enumerate(row) if token in ends), None)
        ids = row if end is None else row[: end + 1]
        return Answer(
            text=self.tokenizer.decode(ids, skip_special_tokens=True),
            token_ids=tuple(ids),
            prompt_tokens=prompt_tokens,
            visual_tokens=visual_tokens,
            finish_reason="length" if end is None else "stop",
            seconds=seconds,
        )

    def end_ids(self) -> set[int]:
        """Ids that end an answer."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            return set()
        return {ids} if isinstance(ids, int) else set(ids)

    def pad_id(self) -> int:
        candidates = (self.model.generation_config.pad_token_id, self.tokenizer.pad_token_id)
        return next((token for token in candidates if token is not None), 0)


def load_language_model(
    name: str, *, dtype: str = "auto", device: str = "auto", attn: str | None = None
) -> LanguageModel:
    """Open the language half of a checkpoint and its tokenizer; no weight of the vision tower is read.

    Args:
        name: "nano", a checkpoint folder, or a hub id.
        dtype: As in :func:`tokcli.models.load_tower`.
        device: As in :func:`tokcli.models.load_tower`.
        attn: Attention implementation of transformers ("sdpa", "eager", "flash_attention_2"); None leaves it to it.

    Raises:
        ModelError: Unknown model or family, incomplete checkpoint, or a dtype or device that can't be used.
    """
    folder = resolve_checkpoint(name)
    family = family_of(folder)
    config = load_config(folder)
    place = pick_device(device)
    precision = pick_dtype(dtype, config, place)
    tokenizer = load_tokenizer(folder)
    model = load_half(folder, family, "language", dtype=precision, device=place, attn=attn)
    return LanguageModel(model, tokenizer, family, folder, canonical_name(name))
