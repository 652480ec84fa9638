"""Identity of a file's content."""

from __future__ import annotations

from tokcli.errors import MediaError
from tokcli.media.heartbeat import beat
from tokcli.media.plain_file import open_plain
from tokcli.storage import is_url
from tokcli.storage.fetch import at_hand


def hash_file(path: str) -> str:
    """blake3 of the file's bytes, 64 hex digits; an object behind a URL is copied to this machine for it.

    Read in blocks, not mapped: a file that shrinks while it is mapped kills the process.

    Raises:
        MediaError: the file cannot be read.
    """
    from blake3 import blake3

    if is_url(path):
        return _hash_object(path)
    digest = blake3()
    try:
        with open_plain(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                beat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"cannot read the file to hash it: {reason}") from None
    return digest.hexdigest()


def _hash_object(url: str) -> str:
    try:
        with at_hand(url) as copy:
            return hash_file(copy)
    except OSError as error:
        raise MediaError(f"cannot read the object to hash it: {error.strerror or error}") from None


def hash_if_readable(path: str) -> str:
    """As ``hash_file``; "", which is the hash of nothing, where the file cannot be read."""
    try:
        return hash_file(path)
    except MediaError:
        return ""
