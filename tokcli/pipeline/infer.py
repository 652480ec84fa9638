"""Cache in, answers out: the language model alone, no decoding and no vision tower."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokcli.cache import Cache, open_cache
from tokcli.errors import UsageError
from tokcli.models import Choice, LanguageModel, load_language_model, parse_schema
from tokcli.pipeline.answers import AnswerFile, Row
from tokcli.pipeline.asking import Asker
from tokcli.pipeline.prompts import Prompt, Question, load_prompts, questions
from tokcli.pipeline.reading import reader
from tokcli.pipeline.replies import row_of, settings_of
from tokcli.pipeline.subjects import Subject, known, subjects
from tokcli.pipeline.templates import check_fields, fill
from tokcli.recipe import InferRecipe
from tokcli.storage import only_local


@dataclass(frozen=True)
class InferSummary:
    """What a run answered."""

    questions: int
    answered: int
    skipped: int
    """Answered in an earlier run."""
    failed: int
    """Questions that have an error in place of an answer, those of earlier runs in the same output included."""
    missing: int
    """Prompts that name items which are not in the cache."""
    right: int | None
    """Answers equal to the prompts file's ``answer``, of all rows of this run that have one; None without any."""
    expected: int
    visual_tokens: int
    source_tokens: int
    """What ``visual_tokens`` would be with every token kept."""
    new_tokens: int
    seconds: float
    """Of asking, without loading the model."""


def infer(
    recipe: InferRecipe,
    on_row: Callable[[Row], None] | None = None,
    on_begin: Callable[[int, int, list[str]], None] | None = None,
) -> InferSummary:
    """Answer the recipe's prompts from its cache.

    ``on_row`` sees each row of this run as soon as it is there; ``on_begin`` gets the number of questions, how many of
    them are answered already, and what is worth a warning. A question that can't be answered is a row with its error.
    Raises ``UsageError``, ``ModelError`` or ``CacheError`` before the first question for what cannot work at all.
    """
    cache = open_cache(recipe.cache)
    choice, schema = _choice(recipe)
    items = reader(cache, recipe)
    about, notes = subjects(cache, recipe)
    prompts = _checked(load_prompts(recipe), cache)
    asked, missing = questions(prompts, [subject.id for subject in about])
    asked = _filled(asked, about)
    if not asked:
        why = f": not in it: {', '.join(missing[:3])}" if missing else ""
        if recipe.where is not None and not about:
            why = f": none passes --where {recipe.where!r}"
        raise UsageError(f"{recipe.cache}: no item to ask{why}; `tokcli inspect {recipe.cache} --items` lists them")
    identity = {
        "model": recipe.model or str(cache.manifest.configuration["model"]["model"]),
        "cache_fingerprint": cache.manifest.digest,
        "settings": settings_of(recipe, choice),
    }
    hashes = {subject.id: subject.source_hash for subject in about}
    # Answers that are to be overwritten stay until it is sure that there can be others.
    model = _model(recipe, cache, identity["model"], choice) if recipe.overwrite else None
    output = None
    if recipe.output:
        output = AnswerFile(
            only_local(recipe.output, "writing answers", "write it here, and copy it"),
            identity,
            recipe.overwrite,
            hashes,
            recipe.retry_errors,
        )
    pending = [question for question in asked if output is None or question.key not in output.done]
    if on_begin is not None:
        on_begin(len(asked), len(asked) - len(pending), notes + _notes(missing, output))
    failed = sum(bool(row.get("error")) for row in output.rows) if output is not None else 0
    rows: list[Row] = []
    try:
        if pending:
            model = model or _model(recipe, cache, identity["model"], choice)
            started = time.monotonic()
            for replies in Asker(model, items, about, recipe, choice, schema).replies(pending):
                new = [row_of(reply, hashes[reply.question.item_id], identity) for reply in replies]
                if output is not None:
                    output.append(new)
                for row in new:
                    rows.append({key: row[key] for key in _COUNTED})
                    if on_row is not None:
                        on_row(row)
        if output is not None:
            output.finish()
    finally:
        if output is not None:
            output.close()
    seconds = time.monotonic() - started if pending else 0.0
    return _summary(rows, len(asked), len(pending), failed, len(missing), seconds)


_COUNTED = ("visual_tokens", "source_tokens", "new_tokens", "right", "error")


def _summary(
    rows: Sequence[Row], asked: int, pending: int, failed_before: int, missing: int, seconds: float
) -> InferSummary:
    """Counts of the rows of this run, and what is known of the others."""
    judged = [row["right"] for row in rows if row["right"] is not None]
    return InferSummary(
        questions=asked,
        answered=sum(row["error"] is None for row in rows),
        skipped=asked - pending,
        failed=failed_before + sum(row["error"] is not None for row in rows),
        missing=missing,
        right=sum(judged) if judged else None,
        expected=len(judged),
        visual_tokens=sum(row["visual_tokens"] for row in rows),
        source_tokens=sum(row["source_tokens"] for row in rows),
        new_tokens=sum(row["new_tokens"] for row in rows),
        seconds=round(seconds, 3),
    )


def _model(recipe: InferRecipe, cache: Cache, name: str, choice: Choice) -> LanguageModel:
    model = load_language_model(name, dtype=recipe.dtype, device=recipe.device, attn=recipe.attn)
    model.check(cache.manifest.configuration["model"])
    if choice.schema is not None:
        model.constraint(choice.schema)
    return model


def _choice(recipe: InferRecipe) -> tuple[Choice, object]:
    """How tokens are chosen, and the schema as JSON. Raises ``UsageError`` for a file that holds no schema."""
    text, schema = None, None
    if recipe.schema_file is not None:
        path = Path(recipe.schema_file)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot read the schema: {getattr(error, 'strerror', None) or error}") from None
        try:
            schema = parse_schema(text)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    return Choice(recipe.temperature, recipe.top_p, recipe.top_k, recipe.seed, text), schema


def _checked(prompts: list[Prompt], cache: Cache) -> list[Prompt]:
    """The prompts. Raises ``UsageError`` where one that is for all items names a field that the cache doesn't have."""
    table = known(cache)
    fields = dict.fromkeys(table.column_names)
    for prompt in prompts:
        if prompt.item is None:
            for text in (prompt.text, *(text for text, _ in prompt.before)):
                check_fields(text, fields)
    return prompts


def _filled(asked: Sequence[Question], about: Sequence[Subject]) -> list[Question]:
    """The questions with their fields filled in, each once; a field without a value is the question's problem.

    Questions to one item are left as they are: they were written for it, and may hold any braces.
    """
    fields = {subject.id: subject.fields for subject in about}
    filled: dict[tuple[str, str], Question] = {}
    for question in asked:
        prompt = question.prompt
        if prompt.item is None:
            values = fields[question.item_id]
            try:
                before = tuple((fill(text, values), given) for text, given in prompt.before)
                question = replace(question, prompt=replace(prompt, text=fill(prompt.text, values), before=before))
            except UsageError as error:
                question = replace(question, problem=str(error))
        filled.setdefault(question.key, question)
    return list(filled.values())


def _notes(missing: list[str], output: AnswerFile | None) -> list[str]:
    notes = []
    if missing:
        names = ", ".join(repr(name) for name in missing[:3])
        notes.append(f"{len(missing)} prompts name items that are not in the cache: {names}")
    if output is not None and output.stale:
        notes.append(f"{output.stale} answers are about files that changed since; asking again")
    return notes
