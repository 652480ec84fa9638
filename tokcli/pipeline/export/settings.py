"""What an export is asked to do."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from tokcli.checking import Folder
from tokcli.pipeline.export.capability import ENGINES, FILES

Format = Literal["safetensors", "webdataset", "hf-datasets", "vllm", "sglang", "ec-connector"]
FORMATS: tuple[Format, ...] = get_args(Format)
Dtype = Literal["auto", "float16", "bfloat16", "float32"]
ASKING = ("vllm", "sglang")
"""Formats that write requests."""
SHARD_BYTES = ByteSize(512_000_000)
SHARD_SAMPLES = {"safetensors": 1, "webdataset": 1000, "hf-datasets": 1000}


class ExportSettings(BaseModel):
    """A cache in, a folder in another format out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache: Annotated[str, Field(min_length=1)]
    output: Folder
    format: Format
    ids: list[str] = []
    where: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    tokens_dtype: Dtype = "auto"
    samples_per_shard: Annotated[int, Field(ge=1)] | None = None
    max_shard_size: Annotated[ByteSize, Field(ge=1)] | None = None
    prompt: list[str] = []
    system: str | None = None
    model: str | None = None
    allow_approx_positions: bool = False
    overwrite: bool = False

    @model_validator(mode="after")
    def _fits_the_format(self) -> ExportSettings:
        if self.format in ASKING and not self.prompt:
            raise ValueError(f"{self.format} gets requests: add prompt, for example --prompt 'What happens here?'")
        if self.format not in ASKING and (self.prompt or self.system is not None):
            raise ValueError(f"prompt and system are for the formats {' and '.join(ASKING)}, not for {self.format}")
        if any(not prompt.strip() for prompt in self.prompt):
            raise ValueError("prompt must not be empty")
        if self.format in ENGINES and (self.samples_per_shard or self.max_shard_size):
            raise ValueError(f"shards are for the formats {', '.join(FILES)}; {self.format} has a file for each item")
        return self

    @property
    def shard_limits(self) -> tuple[int, int]:
        """Items and bytes of a shard at most; an item is never cut."""
        return self.samples_per_shard or SHARD_SAMPLES[self.format], self.max_shard_size or SHARD_BYTES
