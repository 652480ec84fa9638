"""What a file may be at most; checked on headers and packet times, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from tokcli.errors import MediaError


@dataclass(frozen=True)
class Limits:
    """Bounds against decompression bombs and runaway files."""

    max_pixels: int = 1 << 27
    """Width x height of a frame or still; 134 million holds a 100-megapixel photograph and 8K video."""
    max_frames: int = 3_000_000
    """Frames in the source; twelve hours at 60 a second are 2.6 million."""
    max_seconds: float = 12 * 3600.0
    max_bytes: int = 256 << 30
    """Of the file; twelve hours at 50 megabits a second are 251 GiB."""

    def check_bytes(self, count: int) -> None:
        """Raise ``MediaError`` when a file of this size is over the limit."""
        if count > self.max_bytes:
            raise MediaError(f"has {count:,} bytes, over the limit of {self.max_bytes:,}; raise it with --limit-bytes")

    def check_size(self, width: int, height: int) -> None:
        """Raise ``MediaError`` when a frame of this size is over the limit, or no size at all."""
        if width < 1 or height < 1:
            raise MediaError(f"the header gives no picture size ({width}x{height}); the file may be damaged")
        if width * height > self.max_pixels:
            raise MediaError(
                f"{width}x{height} is {width * height:,} pixels, over the limit of {self.max_pixels:,}; "
                "raise it with --limit-pixels"
            )

    def check_frames(self, count: int) -> None:
        """Raise ``MediaError`` when a source of so many frames is over the limit."""
        if count > self.max_frames:
            raise MediaError(f"more than {self.max_frames:,} frames, the limit; raise it with --limit-frames")

    def check_seconds(self, seconds: float) -> None:
        """Raise ``MediaError`` when a source of this duration is over the limit."""
        if seconds > self.max_seconds:
            raise MediaError(
                f"lasts {seconds:,.0f} s, over the limit of {self.max_seconds:,.0f} s; raise it with --limit-seconds"
            )
