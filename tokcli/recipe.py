"""Recipes: YAML files and command lines become the same checked settings.

Steps run in this order: render, compress, derive, infer, eval. Relative paths start from the working folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from tokcli.checking import Folder, check
from tokcli.errors import RecipeError

TokensDtype = Literal["auto", "exact", "float16", "bfloat16", "float32", "int8", "int8c", "int4", "fp8", "pq4", "pq8"]
NonEmpty = Annotated[str, Field(min_length=1)]
PositionScheme = Literal["original", "hf", "compact"]


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RenderRecipe(_Step):
    """Write synthetic clips and their questions."""

    output: Folder
    kind: str = "static"
    count: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0)] = 0
    format: Literal["mixed", "mp4", "webm", "mkv", "png"] = "mixed"


class SamplingRecipe(_Step):
    """Which frames of a video are encoded; ``num_frames`` replaces ``fps``."""

    fps: Annotated[float, Field(gt=0, le=1000)] | None = 1.0
    num_frames: Annotated[int, Field(ge=1)] | None = None
    max_frames: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_rate(self) -> SamplingRecipe:
        if self.fps is None and self.num_frames is None:
            raise ValueError("give fps or num_frames")
        return self


class LimitsRecipe(_Step):
    """What a file may ask for before it is decoded."""

    max_pixels: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    max_source_frames: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[ByteSize, Field(ge=1)] | None = None


class GuardRecipe(_Step):
    """What a file may be, and what a decoder may take for it."""

    limits: LimitsRecipe = LimitsRecipe()
    timeout: Annotated[float, Field(gt=0)] = 60.0
    heartbeat: Annotated[float, Field(gt=0)] = 60.0
    decoder_memory: Annotated[ByteSize, Field(ge=1 << 29)] = ByteSize(4 << 30)


class _MakingCaches(_Step):
    """What compressing and deriving have in common: a cache or several, each by a method."""

    output: Folder
    method: str = "dtd"
    keep: float | None = None
    max_tokens: int | None = None
    threshold: float | None = None
    options: dict[str, str] = {}
    also: list[NonEmpty] = []
    tokens_dtype: TokensDtype = "auto"
    codebook: NonEmpty | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    overwrite: bool = False
    retry_errors: bool = False
    allow_errors: bool = False


class CompressRecipe(_MakingCaches, GuardRecipe):
    """Media in, token cache out."""

    inputs: Annotated[list[NonEmpty], Field(min_length=1)]
    model: str = "nano"
    seed: Annotated[int, Field(ge=0)] = 0
    sampling: SamplingRecipe = SamplingRecipe()
    reuse_unchanged: Annotated[float, Field(ge=0, lt=1)] | None = None
    decoder: str = "auto"
    resize: Literal["hf", "swscale"] = "hf"
    dtype: str = "auto"
    device: str = "auto"
    path_col: str = "path"
    id_col: str | None = None
    columns: list[str] | None = None
    prune: bool = False
    shard: NonEmpty | None = None
    retain: Annotated[float, Field(gt=0, lt=1)] | None = None
    qa: str | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    on_error: Literal["skip", "salvage", "fail"] = "skip"
    min_decoded: Annotated[float, Field(gt=0, le=1)] | None = None
    max_error_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    executor: Literal["local", "ray"] = "local"
    ray_address: NonEmpty | None = None
    actors: Annotated[int, Field(ge=1)] | None = None
    actor_cpus: Annotated[int, Field(ge=1)] | None = None
    actor_gpus: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _ray_has_actors(self) -> CompressRecipe:
        for name in ("ray_address", "actors", "actor_cpus", "actor_gpus"):
            if self.executor != "ray" and getattr(self, name) is not None:
                raise ValueError(f"{name} is for executor ray")
        if self.executor == "ray" and self.shard is not None:
            raise ValueError("executor ray hands all inputs out to its actors; leave shard out, or take executor local")
        if self.executor == "ray" and self.device.startswith("cuda:"):
            raise ValueError(f"executor ray gives each actor a GPU of its own; device {self.device} must be cuda")
        return self

    @model_validator(mode="after")
    def _auto_chooses(self) -> CompressRecipe:
        if self.method != "auto" and (self.retain is not None or self.qa is not None):
            raise ValueError("retain and qa are for method auto")
        if self.min_decoded is not None and self.on_error != "salvage":
            raise ValueError("min_decoded is for on_error salvage, which keeps part of a damaged video")
        if self.method == "auto" and (self.keep, self.max_tokens, self.threshold, self.options) != (None,) * 3 + ({},):
            raise ValueError("method auto chooses method and budget; leave keep, max_tokens, threshold and options out")
        if self.method == "auto" and self.shard is not None:
            raise ValueError("every shard needs the same method; run `tokcli tune` first and give its choice as method")
        return self


class DeriveRecipe(_MakingCaches):
    """A token cache in, another with fewer tokens out: no media, no vision tower."""

    cache: NonEmpty
    seed: Annotated[int, Field(ge=0)] | None = None
    prune: bool = False
    on_error: Literal["skip", "fail"] = "skip"


class InferRecipe(_Step):
    """Questions to a cache, answers out of the language model alone."""

    cache: NonEmpty
    prompt: list[str] = []
    prompts: str | None = None
    output: str | None = None
    model: str | None = None
    system: str | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    schema_file: str | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    positions: PositionScheme = "original"
    dtype: str = "auto"
    device: str = "auto"
    attn: str | None = None
    method: str | None = None
    select: str | None = None
    keep: float | None = None
    max_tokens: int | None = None
    threshold: float | None = None
    options: dict[str, str] = {}
    where: str | None = None
    sample: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    ids: list[str] = []
    group_by: str | None = None
    overwrite: bool = False
    retry_errors: bool = False
    allow_errors: bool = False

    @model_validator(mode="after")
    def _some_prompt(self) -> InferRecipe:
        if bool(self.prompt) == (self.prompts is not None):
            raise ValueError("give either prompt or prompts")
        if any(not prompt.strip() for prompt in self.prompt):
            raise ValueError("prompt must not be empty")
        return self


class _Measuring(_Step):
    """What evaluating and tuning have in common: media, questions, methods, and how all of it is read and asked."""

    inputs: Annotated[list[NonEmpty], Field(min_length=1)]
    qa: str | None = None
    prompt: list[NonEmpty] = []
    methods: Annotated[list[NonEmpty], Field(min_length=1)] | None = None
    options: dict[str, str] = {}
    seed: Annotated[int, Field(ge=0)] = 0
    positions: PositionScheme = "original"
    max_new_tokens: Annotated[int, Field(ge=1)] = 16
    system: str | None = None
    sampling: SamplingRecipe = SamplingRecipe()
    resize: Literal["hf", "swscale"] = "hf"
    dtype: str = "auto"
    device: str = "auto"
    path_col: str = "path"
    id_col: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    overwrite: bool = False
    retry_errors: bool = False
    workers: Annotated[int, Field(ge=1)] | None = None
    timeout: Annotated[float, Field(gt=0)] = 60.0


class EvalRecipe(_Measuring):
    """Media (or caches) and questions in, a table of answers kept out."""

    keep: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] | None = None
    output: Folder = "eval"
    model: str | None = None
    against: Literal["full"] | None = None
    bootstrap: Annotated[int, Field(ge=1)] = 1000
    plots: bool = True
    allow_errors: bool = False

    @model_validator(mode="after")
    def _some_question(self) -> EvalRecipe:
        if self.qa is None and not self.prompt:
            raise ValueError("give questions: --qa FILE, or --prompt together with --against full")
        if self.prompt and self.against is None:
            raise ValueError("prompts have no right answers; add --against full, or give --qa FILE")
        return self


class TuneRecipe(_Measuring):
    """Media in, the smallest setting that keeps enough answers out."""

    retain: Annotated[float, Field(gt=0, lt=1)] = 0.98
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    keep: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    threshold: list[float] | None = None
    sample: Annotated[int, Field(ge=2)] = 128
    questions: Annotated[int, Field(ge=1)] = 6
    answer_time: Annotated[float, Field(ge=0)] = 1.0
    output: Folder = "tune"
    recipe: str | None = None
    cache: NonEmpty = "cache"
    model: str = "nano"


class Recipe(_Step):
    """What `tokcli run` reads."""

    description: str = ""
    render: RenderRecipe | None = None
    compress: CompressRecipe | None = None
    derive: DeriveRecipe | None = None
    infer: InferRecipe | None = None
    eval: EvalRecipe | None = None

    @model_validator(mode="after")
    def _some_step(self) -> Recipe:
        if not (self.render or self.compress or self.derive or self.infer or self.eval):
            raise ValueError("needs at least one of render, compress, derive, infer, eval")
        return self


def load_recipe(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a YAML recipe; ``overrides`` are dotted keys with YAML values, as in ``compress.method=evs``.

    Raises ``RecipeError`` for a missing or malformed file, an unknown key, or a value out of range.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys render, compress, derive, infer, eval")
    for dotted, text in (overrides or {}).items():
        *parents, leaf = dotted.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise RecipeError(f"{path}: --set {dotted}: {parent!r} is not a mapping")
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(f"{path}: --set {dotted}: {text!r} is not a YAML value") from None
    return check(Recipe, data, str(path))
