"""Identity of a file's content."""

from __future__ import annotations

from pathlib import Path

from tokcli.errors import MediaError


def hash_file(path: str) -> str:
    """blake3 of the file's bytes, 64 hex digits.

    Read in blocks, not mapped: a file that shrinks while it is mapped kills the process.

    Raises:
        MediaError: the file cannot be read.
    """
    from blake3 import blake3

    digest = blake3()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise MediaError(f"cannot read the file to hash it: {error.strerror or error}") from None
    return digest.hexdigest()
