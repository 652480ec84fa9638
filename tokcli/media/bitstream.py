"""What the first bytes of a compressed picture tell: can decoding start here, can it be left out, is it shown at all.

Only the syntax that answers these questions is read. Whenever it is not understood the answer is the safe one: do not
start here, do not leave it out, it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator

INTRA_ONLY = frozenset(
    {"mjpeg", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "v210", "cfhd", "qtrle"}
)
"""Codecs whose every packet flagged as key decodes alone (qtrle flags only its full pictures)."""

KEY_IS_ENTRY = INTRA_ONLY | {"vp8", "vp9", "av1", "mpeg1video", "mpeg2video"}
"""Codecs in which everything shown after a key picture, in order of presentation, decodes from it alone. Not MPEG-4
part 2: two pictures packed in one packet give one of them the other's time when decoding starts between them."""

_H264_SLICES = (1, 5)
_H264_PARAMETERS = (7, 8, 13, 15)
_HEVC_PARAMETERS = (32, 33, 34)


class Bitstream:
    """Answers for one stream.

    Args:
        codec: the codec's name as FFmpeg's stream parameters have it, e.g. "h264".
        extradata: the stream's out-of-band headers; tells how NAL units are framed (avcC, hvcC or start codes).
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self.codec = codec
        header = extradata or b""
        self._nal_length = 0
        self._one_layer = False
        if codec == "h264" and len(header) >= 7 and header[0] == 1:
            self._nal_length = (header[4] & 3) + 1
        elif codec == "hevc" and len(header) >= 23 and header[0] == 1:
            self._nal_length = (header[21] & 3) + 1
            self._one_layer = (header[21] >> 3) & 7 == 1
        self.may_leave_out = codec == "h264" or (codec == "hevc" and self._one_layer)
        """False when ``is_unreferenced`` is False for every packet of this stream, and need not be asked."""

    def is_entry(self, data: memoryview) -> bool:
        """Whether a packet flagged as key is a place to start: all that is shown at or after it comes out the same.

        H.264 wants an IDR picture: containers also flag recovery points of periodic intra refresh, after which
        pictures are whole only some frames later.
        """
        if self.codec in KEY_IS_ENTRY:
            return True
        if self.codec == "h264":
            return any(first & 31 == 5 for first in self._nal_headers(data))
        if self.codec == "hevc":
            return any(16 <= first >> 1 & 63 <= 21 for first in self._nal_headers(data))
        return False

    def is_unreferenced(self, data: memoryview) -> bool:
        """Whether no other picture is predicted from this one and the packet carries no parameter sets.

        HEVC marks pictures unreferenced within their temporal layer only, so streams of several layers are left whole.
        """
        seen = False
        for first in self._nal_headers(data):
            if self.codec == "h264":
                kind = first & 31
                if kind in _H264_PARAMETERS or (kind in _H264_SLICES and first >> 5 & 3):
                    return False
                seen = seen or kind in _H264_SLICES
            else:
                kind = first >> 1 & 63
                if kind in _HEVC_PARAMETERS or (kind < 32 and (kind > 14 or kind % 2)):
                    return False
                seen = seen or kind < 32
        return seen

    def is_hidden(self, data: memoryview) -> bool:
        """Whether the packet only builds a reference (VP8 and VP9 alternate reference frames) and shows nothing."""
        if self.codec == "vp8" and len(data) >= 3:
            return not data[0] >> 4 & 1
        if self.codec == "vp9" and len(data) >= 1:
            if data[-1] & 0xE0 == 0xC0:  # a superframe: several pictures, the last one shown
                return False
            bits = int.from_bytes(bytes(data[:2]), "big") << (0 if len(data) > 1 else 8)
            profile_3 = bits >> 12 & 3 == 3
            after_profile = bits << (1 if profile_3 else 0)
            shows_existing = after_profile >> 11 & 1
            return not shows_existing and not after_profile >> 9 & 1
        return False

    def _nal_headers(self, data: memoryview) -> Iterator[int]:
        """First byte of every NAL unit up to and including the first slice."""
        position, end = 0, len(data)
        while True:
            if self._nal_length:
                if position + self._nal_length >= end:
                    return
                size = int.from_bytes(data[position : position + self._nal_length], "big")
                start = position + self._nal_length
                position = start + size
            else:
                head = bytes(data[position : position + 4096]).find(b"\0\0\1")
                start = position + head + 3
                if head < 0 or start >= end:
                    return
                position = start
            first = data[start]
            yield first
            kind = first & 31 if self.codec == "h264" else first >> 1 & 63
            if (kind in _H264_SLICES) if self.codec == "h264" else kind < 32:
                return
