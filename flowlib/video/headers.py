"""How large a picture claims to be, by its header, before memory is asked for. Knows nothing of pixels."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from flowlib.geometry import Size

FIXED = ((b"\x89PNG", ">II", 16), (b"BM", "<ii", 18), (b"GIF8", "<HH", 6), (b"\x59\xa6\x6a\x95", ">II", 4))
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers that are followed by the picture's size
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGB and alpha"}
NETPBM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
BOXES = re.compile(rb"ihdr(.{8})|ispe.{4}(.{8})", re.DOTALL)  # of JPEG 2000, of AVIF


def limit(name: str, default: int) -> int:
    """A limit, from its environment variable if that is set."""
    value = os.environ.get(name) or str(default)
    if not re.fullmatch(r"[1-9]\d*", value):
        raise ValueError(f"{name}: expected a whole number above 0, got {value!r}")
    return int(value)


def max_pixels() -> int:
    """How many pixels one picture may have; 8K has 33 million."""
    return limit("FLOWLIB_MAX_PIXELS", 2**26)


def check_pixels(pixels: int) -> None:
    """Raise `ValueError` if a picture has more pixels than `max_pixels`."""
    if pixels > (most := max_pixels()):
        advice = "make it smaller, or set FLOWLIB_MAX_PIXELS"
        raise ValueError(f"expected a picture of at most {most:,} pixels, got {pixels:,}; {advice}")


def claimed_pixels(data: memoryview) -> int:
    """How many pixels a picture's header says it has; 0 where there is no header of a kind that is read.

    Those are JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF, JPEG 2000, Netpbm and Sun raster.
    """
    start = bytes(data[:32])
    try:
        if start[:2] == b"\xff\xd8":
            return _jpeg(data)
        for magic, form, at in FIXED:
            if start.startswith(magic):
                width, height = struct.unpack_from(form, start, at)
                return abs(width * height)
        if start[8:12] == b"WEBP":
            return _webp(start)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
        if start[4:8] in (b"ftyp", b"jP  "):
            found = [struct.unpack(">II", one or other) for one, other in BOXES.findall(bytes(data[:65536]))]
            return max((width * height for width, height in found), default=0)
        found = NETPBM.match(bytes(data[:4096]))
        return int(found[1]) * int(found[2]) if found else 0
    except (struct.error, IndexError):  # it ends within its header
        return 0


def probe_png(path: str | Path) -> tuple[Size, str]:
    """(height, width) of a PNG and its kind, as in "16-bit grey"; only its first and last bytes are read.

    Raises:
        ValueError: it is no PNG, or ends before its end.
        OSError: it can't be read.
    """
    with Path(path).open("rb") as file:
        start = file.read(33)
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(PNG_END)))
        end = file.read()
    if len(start) < 33 or not start.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") or start[25] not in PNG_COLOURS:
        raise ValueError(f"{path}: expected a PNG, got something else")
    if end != PNG_END:
        raise ValueError(f"{path}: expected a whole PNG, got one that breaks off")
    width, height, bits, colours = struct.unpack_from(">IIBB", start, 16)
    return (height, width), f"{bits}-bit {PNG_COLOURS[colours]}"


def _jpeg(data: memoryview) -> int:
    at = 2
    for _ in range(10_000):  # segments
        if data[at] != 0xFF:
            return 0
        marker = data[at + 1]
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height * width
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if alone else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0


def _webp(start: bytes) -> int:
    if start[12:16] == b"VP8X":
        width, wide, height, high = struct.unpack_from("<HBHB", start, 24)
        return (width + (wide << 16) + 1) * (height + (high << 16) + 1)
    if start[12:16] == b"VP8L":
        (sides,) = struct.unpack_from("<I", start, 21)
        return ((sides & 0x3FFF) + 1) * ((sides >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", start, 26)
    return (width & 0x3FFF) * (height & 0x3FFF)


def _tiff(data: memoryview) -> int:
    order, big = "<" if data[0] == ord("I") else ">", 43 in (data[2], data[3])
    first, count, size, value = ("Q", "Q", 20, "Q") if big else ("I", "H", 12, "I")
    (at,) = struct.unpack_from(order + first, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, at)
    at, sides = at + struct.calcsize(count), {}
    for number in range(min(entries, 10_000)):
        tag, kind = struct.unpack_from(order + "HH", data, at + number * size)
        if tag in (256, 257):
            form = {3: "H", 4: "I"}.get(kind, value)
            (sides[tag],) = struct.unpack_from(order + form, data, at + number * size + (12 if big else 8))
    return sides.get(256, 0) * sides.get(257, 0)
