"""What goes wrong on the way to a server: what is worth another try, and how it is told."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tokcli.errors import TokcliError

Result = TypeVar("Result")

TRIES = 4
"""Of one read, those of the library behind the protocol not counted: botocore makes up to five of its own each."""
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 8.0

_BUSY = (408, 429)
_PASSING = {
    getattr(errno, name, -1)  # macOS has no EREMOTEIO
    for name in ("EIO", "EREMOTEIO", "EBUSY", "EAGAIN", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED")
}
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
# Of botocore, aiohttp, urllib3 and requests, none of which needs to be installed.
_CONNECTION = frozenset(
    {
        "HTTPClientError",
        "ClientConnectionError",
        "ClientPayloadError",
        "HTTPError",
        "RequestException",
        "FSTimeoutError",
    }
)
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"})

# Tries are told in rows and warnings; without a handler Python would print each on stderr.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def read(call: Callable[[], Result]) -> Result:
    """What ``call`` gives, which only reads; again, ``TRIES`` times at most, where what failed may pass.

    Raises ``OSError`` of the same meaning as for a file, with the reason as its ``strerror``.
    """
    import stamina

    try:
        for attempt in stamina.retry_context(
            on=is_transient,
            attempts=TRIES,
            timeout=None,
            wait_initial=FIRST_WAIT_SECONDS,
            wait_max=LONGEST_WAIT_SECONDS,
            wait_jitter=FIRST_WAIT_SECONDS,
        ):
            with attempt:
                result = call()
    except TokcliError:
        raise
    except Exception as error:
        raise as_os_error(error) from error
    return result


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment: timeouts, broken connections, 5xx, throttling."""
    status, error = _status(error), _meant(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    if isinstance(error, _FINAL):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    return bool(_CONNECTION & _kinds(error))


def as_os_error(error: Exception) -> OSError:
    """The same failure as the file system of this machine would tell it."""
    status, error = _status(error), _meant(error)
    reason = reason_of(error)
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(errno.EACCES, reason)
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError(errno.ENOENT, reason)
    if _NO_CREDENTIALS & _kinds(error):
        return PermissionError(errno.EACCES, reason)
    number = error.errno if isinstance(error, OSError) and error.errno is not None else errno.EIO
    return OSError(number, reason)


def reason_of(error: Exception) -> str:
    """Why, in one line."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(told).split()) or type(error).__name__


def is_no_bucket(error: BaseException) -> bool:
    """Whether what is missing is not the object but all that it should lie in."""
    responses = [getattr(one, "response", None) for one in _chain(error)]
    return any(isinstance(said, dict) and said.get("Error", {}).get("Code") == "NoSuchBucket" for said in responses)


def _meant(error: Exception) -> Exception:
    """What failed: of http, fsspec says that a file is not there also where its server isn't, or refuses it."""
    behind = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(behind, Exception) or _status(behind) == 404:
        return error
    return behind if _kinds(behind) & {*_CONNECTION, "ClientResponseError"} else error


def _kinds(error: Exception) -> set[str]:
    """Names of the classes that a failure is of: those of libraries that need not be installed."""
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: BaseException) -> int | None:
    """The HTTP status that a failure goes back to."""
    for one in _chain(error):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(one, "status", None) or getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__
