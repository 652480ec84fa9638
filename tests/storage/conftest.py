"""A real S3-compatible server on loopback for the session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import Server, empty_bucket, serving, variables

# Items and manifests are those of the tests of caches.
sys.path.append(str(Path(__file__).parents[1] / "cache"))


@pytest.fixture(scope="session")
def running_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(running_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server with an empty bucket, found as any S3 client finds its server: by the variables of AWS."""
    for name, value in variables(running_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("tokcli.storage.failures.FIRST_WAIT_SECONDS", 0.01)
    empty_bucket(running_server)
    yield running_server
    running_server.forget()
