"""Mutated files in whole runs: the run ends, every file is accounted for, nothing hangs, grows or is left behind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fuzz import fuzz, real_sources, render_sources
from mutants import MUTATIONS, boxes, mutant


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    return render_sources(tmp_path_factory.mktemp("sources"))


def check(folder: Path, seed: int, count: int, sources: list[tuple[str, bytes]]) -> None:
    outcome = fuzz(folder, seed, range(count), sources)
    assert outcome.broken == []
    assert outcome.done + sum(outcome.errors.values()) == count
    # Both must be there, or the mutations are too tame or too wild to prove anything.
    assert outcome.done > 0 and sum(outcome.errors.values()) > 0


@pytest.mark.timeout(900)
def test_thirty_mutants(tmp_path: Path, sources: list[tuple[str, bytes]]) -> None:
    check(tmp_path, 11, 30, sources)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_hundreds_of_mutants(tmp_path: Path, sources: list[tuple[str, bytes]], seed: int) -> None:
    check(tmp_path, seed, 300, sources)


@pytest.mark.media
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_mutants_of_real_files(tmp_path: Path, real_media: Path) -> None:
    check(tmp_path, 3, 300, real_sources(real_media))


def test_mutants_are_the_same_everywhere() -> None:
    sources = [("a.mp4", bytes(range(256)) * 40), ("b.webm", bytes(range(255, -1, -1)) * 30)]
    digest = hashlib.sha256()
    for number in range(200):
        name, content = mutant(5, number, sources)
        digest.update(name.encode() + content)
    assert digest.hexdigest()[:16] == "3686ecc441b16d62"


def test_every_mutation_changes_its_file(sources: list[tuple[str, bytes]]) -> None:
    content = dict(sources)["front.mp4"]
    names = [mutant(1, number, [("front.mp4", content)]) for number in range(300)]
    assert all(any(mutation.__name__ in name for name, _ in names) for mutation in MUTATIONS)
    assert sum(data == content for _, data in names) < 15


def test_boxes_are_found(sources: list[tuple[str, bytes]]) -> None:
    content = dict(sources)["front.mp4"]
    found = boxes(content)
    kinds = [box.kind for box in found]
    assert kinds[0] == b"ftyp"
    assert {b"moov", b"trak", b"stbl", b"stsz", b"stts", b"stco", b"mdat"} <= set(kinds)
    assert found[-1].end == len(content)
