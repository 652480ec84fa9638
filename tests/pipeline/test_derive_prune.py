"""What is gone from a cache is named in those derived from it, and dropped from them when that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import open_cache, verify_cache
from tokcli.errors import UsageError
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.pipeline.progress import CompressSummary
from tokcli.recipe import CompressRecipe, DeriveRecipe


@pytest.fixture
def media(copied: Callable[..., Path], tmp_path: Path) -> Path:
    """Two clips and a file that is none."""
    return copied(tmp_path / "media", 2, bad=True)


def full(media: Path, **more: Any) -> CompressSummary:
    output = str(media.parent / "full")
    return compress(CompressRecipe(inputs=[str(media)], output=output, method="none", workers=1, **more))


def small(media: Path, **more: Any) -> CompressSummary:
    folder = media.parent
    return derive(DeriveRecipe(cache=str(folder / "full"), output=str(folder / "small"), method="dtd", **more))


def test_what_is_gone_from_the_source_is_named_and_dropped(media: Path) -> None:
    full(media)
    first = small(media)
    assert (first.done, first.failed, first.removed) == (2, 1, ())
    gone = min(path for path in media.iterdir() if path.name != "bad.mp4")
    for path in (gone, media / "bad.mp4"):
        path.unlink()
    full(media, prune=True)
    named = small(media)
    assert (set(named.removed), named.pruned) == ({str(gone), str(media / "bad.mp4")}, False)
    assert len(open_cache(media.parent / "small")) == 2
    pruned = small(media, prune=True)
    assert (set(pruned.removed), pruned.pruned) == (set(named.removed), True)
    cache = open_cache(media.parent / "small")
    assert cache.complete
    assert gone.name not in {Path(item_id).name for item_id in cache.ids()}
    assert (len(cache), cache.errors().num_rows) == (1, 0)
    assert verify_cache(media.parent / "small") == []
    assert small(media, prune=True).removed == ()


def test_what_the_source_may_have_yet_is_not_dropped(media: Path) -> None:
    full(media)
    small(media)
    with pytest.raises(UsageError, match=r"--prune drops all that .*full does not have, and --limit looks at some"):
        small(media, limit=1, prune=True)
    assert small(media, limit=1).removed == ()
    (media.parent / "full" / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match=r"it is not complete; run what makes it again first"):
        small(media, prune=True)
    assert len(open_cache(media.parent / "small")) == 2
