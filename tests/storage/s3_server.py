"""A real S3-compatible server on loopback, with a log of its requests and failures on demand."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

BUCKET = "bucket"


@dataclass
class Server:
    """The server: what it was asked, and what it is to refuse."""

    endpoint: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path with query, and the ``Range`` header of every request, in order."""
    sent: int = 0
    """Bytes of all answers."""
    refuse: Callable[[str, str], int | None] = lambda method, path: None
    """Gives the status to answer a request with instead, if any."""

    def forget(self) -> None:
        self.requests.clear()
        self.sent = 0
        self.refuse = lambda method, path: None

    def counts(self, pattern: str = "") -> Counter[str]:
        """Requests by method, those whose path matches."""
        return Counter(method for method, path, _ in self.requests if re.search(pattern, path))


class _Logged:
    """WSGI middleware that counts, and refuses what it is told to."""

    def __init__(self, app: Any, server: Server) -> None:
        self.app, self.server = app, server

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        query = environ.get("QUERY_STRING", "")
        path = environ["PATH_INFO"] + (f"?{query}" if query else "")
        method = environ["REQUEST_METHOD"]
        self.server.requests.append((method, path, environ.get("HTTP_RANGE", "")))
        status = self.server.refuse(method, path)
        if status is not None:
            code = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}.get(status, str(status))
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} for the test</Message></Error>"
            start_response(f"{status} refused", [("Content-Type", "application/xml")])
            return [b"" if method == "HEAD" else body.encode()]
        return self._counted(self.app(environ, start_response))

    def _counted(self, answer: Any) -> Iterator[bytes]:
        for block in answer:
            self.server.sent += len(block)
            yield block


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run the server in a thread of this process."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = Server()
    app = _Logged(DomainDispatcherApplication(create_backend_app), server)
    listening = make_server("127.0.0.1", 0, app, threaded=True)
    server.endpoint = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()


def variables(server: Server) -> dict[str, str]:
    """What tells any S3 client where it is; one attempt of botocore for each of ours, whose waits take a minute."""
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": "1",
    }


def empty_bucket(server: Server) -> None:
    """Delete all that the server has, and make a bucket."""
    import fsspec

    requests.post(f"{server.endpoint}/moto-api/reset", timeout=10)
    fsspec.filesystem("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir(BUCKET)
    server.forget()
