"""What of a model family decides which engine can take its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tokcli.models.anyres import AnyresAdapter
from tokcli.models.base import PlainAdapter
from tokcli.models.families import FAMILIES
from tokcli.models.grid import GridAdapter
from tokcli.types import MediaKind

_TEXT_BETWEEN: dict[str, frozenset[MediaKind]] = {
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), frozenset({"video"})),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v"), frozenset({"video"})),
    **dict.fromkeys(("internvl", "smolvlm", "idefics3", "gemma3"), frozenset({"image", "video"})),
}
# All that adapters look at to say how many levels there are, and which token stands for an item.
_CONFIG = SimpleNamespace(
    vision_config=SimpleNamespace(deepstack_visual_indexes=[0]),
    image_token_id=0,
    video_token_id=1,
    image_token_index=0,
    video_token_index=1,
    boi_token_index=0,
)


@dataclass(frozen=True)
class Facts:
    """One family. A test compares them with what the adapters do to items of small models."""

    family: str
    mrope: bool
    """Whether the language model takes positions in three dimensions; others take one."""
    levels: bool
    """Whether it takes DeepStack levels beside the tokens."""
    both_ways: bool
    """Whether the tokens of a picture attend to those after them."""
    separators: bool
    """Whether there are newlines among the tokens, which the grid does not count."""
    timed: bool
    """Whether positions of a video follow its seconds."""
    text_between: frozenset[MediaKind]
    """Kinds of items in whose place a prompt has text too, so that their tokens are not one run of placeholders."""
    video_token: bool
    """Whether videos have a placeholder of their own."""


def facts_of(family: str) -> Facts:
    """The facts about a family of :data:`~tokcli.models.families.FAMILIES`."""
    adapter = FAMILIES[family].load()
    kind: type[Any] = type(adapter)
    return Facts(
        family=family,
        mrope=issubclass(kind, GridAdapter),
        levels=adapter.deepstack_levels(_CONFIG) > 0,
        both_ways=kind.further_inputs is not PlainAdapter.further_inputs,
        separators=issubclass(kind, AnyresAdapter),
        timed=issubclass(kind, GridAdapter) and kind.interval is not GridAdapter.interval,
        text_between=_TEXT_BETWEEN.get(family, frozenset()),
        video_token=adapter.placeholder(_CONFIG, "image") != adapter.placeholder(_CONFIG, "video"),
    )
