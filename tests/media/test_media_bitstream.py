"""Headers written by hand, bit for bit, from the codecs' specifications."""

from __future__ import annotations

import pytest

from tokcli.media.bitstream import Bitstream

AVCC = bytes([1, 100, 0, 31, 0xFF, 0xE1, 0])
"""avcC: version 1, NAL units behind four bytes of length."""


def hvcc(layers: int) -> bytes:
    """hvcC with the number of temporal layers (byte 21, bits 3 to 5) and four bytes of length."""
    return bytes([1] + [0] * 20 + [layers << 3 | 3, 0])


def units(*payloads: bytes, lengths: bool = True) -> memoryview:
    """NAL units behind lengths or start codes."""
    parts = [(len(unit).to_bytes(4, "big") if lengths else b"\0\0\0\1") + unit for unit in payloads]
    return memoryview(b"".join(parts))


SEI, SPS = b"\x06\x05\x01", b"\x67\x64\x00"
IDR, I_SLICE, P_REFERENCE, B_DISPOSABLE = b"\x65\x88", b"\x61\x88", b"\x41\x9a", b"\x01\x9e"


@pytest.mark.parametrize("lengths", [True, False])
def test_h264_starts_only_at_idr(lengths):
    bits = Bitstream("h264", AVCC if lengths else None)
    assert bits.is_entry(units(SEI, IDR, lengths=lengths))
    assert not bits.is_entry(units(SEI, I_SLICE, lengths=lengths))
    assert not bits.is_entry(units(SEI, lengths=lengths))
    assert not bits.is_entry(memoryview(b"\xff" * 30))


@pytest.mark.parametrize("lengths", [True, False])
def test_h264_leaves_out_only_what_nothing_refers_to(lengths):
    bits = Bitstream("h264", AVCC if lengths else None)
    assert bits.may_leave_out
    assert bits.is_unreferenced(units(SEI, B_DISPOSABLE, lengths=lengths))
    assert not bits.is_unreferenced(units(SEI, P_REFERENCE, lengths=lengths))
    assert not bits.is_unreferenced(units(SPS, B_DISPOSABLE, lengths=lengths))
    assert not bits.is_unreferenced(units(SEI, lengths=lengths))
    assert not bits.is_unreferenced(memoryview(b""))


def hevc(kind: int) -> bytes:
    return bytes([kind << 1, 1, 0x80])


def test_hevc():
    bits = Bitstream("hevc", hvcc(1))
    assert bits.may_leave_out
    for kind in (16, 19, 20, 21):
        assert bits.is_entry(units(hevc(39), hevc(kind)))
    for kind in (0, 1, 9):
        assert not bits.is_entry(units(hevc(kind)))
    assert bits.is_unreferenced(units(hevc(0)))
    assert bits.is_unreferenced(units(hevc(39), hevc(8)))
    assert not bits.is_unreferenced(units(hevc(1)))
    assert not bits.is_unreferenced(units(hevc(34), hevc(0)))
    assert not bits.is_unreferenced(units(hevc(19)))


def test_hevc_of_several_or_unknown_layers_is_left_whole():
    assert not Bitstream("hevc", hvcc(3)).may_leave_out
    assert not Bitstream("hevc", hvcc(0)).may_leave_out
    assert not Bitstream("hevc", None).may_leave_out


def test_hidden_pictures():
    vp8 = Bitstream("vp8", None)
    assert not vp8.is_hidden(memoryview(b"\x10\x00\x00"))
    assert vp8.is_hidden(memoryview(b"\x01\x00\x00"))
    vp9 = Bitstream("vp9", None)
    # marker 10, profile 00, show_existing 0, frame_type 1 (not key), show_frame, error_resilient 0
    assert not vp9.is_hidden(memoryview(bytes([0b10000110, 0])))
    assert vp9.is_hidden(memoryview(bytes([0b10000100, 0])))
    assert not vp9.is_hidden(memoryview(bytes([0b10001000, 0])))
    # profile 3 has a reserved bit before the others
    assert not vp9.is_hidden(memoryview(bytes([0b10110011, 0])))
    assert vp9.is_hidden(memoryview(bytes([0b10110010, 0])))
    # a superframe ends with its index, and shows its last picture
    assert not vp9.is_hidden(memoryview(bytes([0b10000100, 0, 0b11000000])))


def test_other_codecs():
    assert Bitstream("mjpeg", None).is_entry(memoryview(b""))
    for codec in ("mpeg4", "gif", "theora", "wmv3", "something"):
        bits = Bitstream(codec, None)
        assert not bits.is_entry(memoryview(b"\0"))
        assert not bits.may_leave_out
        assert not bits.is_hidden(memoryview(b"\0"))
