"""Images: frames as arrays, as bytes of JPEG, PNG or WebP, and at another size. Knows nothing of videos."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import cv2
import numpy as np
from jaxtyping import UInt8

from flowlib.geometry import FitRule, Size, fit_frame
from flowlib.video.headers import check_pixels, claimed_pixels

Frame = UInt8[np.ndarray, "H W 3"]
Frames = UInt8[np.ndarray, "S H W 3"]

DAMAGE = re.compile(
    r"Corrupt JPEG data.*|Premature end of JPEG.*|Inconsistent progression sequence.*|libpng error.*|TIFF_Error.*"
)
PHOTOGRAPHS = frozenset([".avif", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp"])  # suffixes that no mask has
MASK = re.compile(r"[-_. ]?(masks?|seg|segm|segmentations?|annotations?|labels?|gt|mattes?|alpha|depth)[-_. ]?", re.I)
_COMPLAINING = threading.Lock()  # one decoder at a time is listened to


def resize_frame(frame: Frame, size: Size | None, fit: FitRule = "crop") -> UInt8[np.ndarray, "height width 3"]:
    """Bring one frame to `size` (height, width); None leaves it as it is."""
    if size is None or frame.shape[:2] == tuple(size):
        return frame
    placed = fit_frame(frame.shape[:2], size, fit)
    top, left, height, width = placed.source_box
    cut = frame[top : top + height, left : left + width]
    top, left, height, width = placed.target_box
    shrinks = height < cut.shape[0] or width < cut.shape[1]
    resized = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if (height, width) == tuple(size):
        return resized
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def encode_image(frame: Frame, kind: str = "jpeg", quality: int = 95) -> bytes:
    """One frame as bytes, by `kind`: "jpeg" (full colour resolution, 4:4:4), or lossless "webp" or "png"."""
    if kind == "jpeg":
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        # Fitted Huffman tables: 3 to 5 % smaller and no slower to decode, for 1.5 ms more a frame of 360×640.
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1, *sampling]
    elif kind == "webp":
        suffix, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100: lossless
    elif kind == "png":
        suffix, options = ".png", []
    else:
        raise ValueError(f"kind: expected 'jpeg', 'webp' or 'png', got {kind!r}")
    done, data = cv2.imencode(suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    assert done, f"OpenCV could not encode a {frame.shape} frame as {kind}"
    return data.tobytes()


def without_masks(names: Sequence[str]) -> list[str]:
    """The pictures among these paths, less the masks that lie beside them.

    A mask is a .png (or another picture without loss) beside a photograph of its name, as 00000.png beside 00000.jpg,
    or is called after a picture: 00000_mask.png or mask_00000.png beside 00000.png.
    """
    stems = {name: os.path.splitext(name) for name in names}
    photographs = {stem for stem, suffix in stems.values() if suffix.lower() in PHOTOGRAPHS}
    known = {stem for stem, _ in stems.values()}

    def is_mask(stem: str, suffix: str) -> bool:
        if stem in photographs and suffix.lower() not in PHOTOGRAPHS:
            return True
        folder, name = os.path.split(stem)
        found = [match for match in MASK.finditer(name) if match.start() == 0 or match.end() == len(name)]
        return any(os.path.join(folder, name[: at.start()] + name[at.end() :]) in known for at in found)

    return [name for name in names if not is_mask(*stems[name])]


def decode_image(data: bytes | np.ndarray) -> Frame:
    """The uint8 RGB frame [H W 3] that a picture's bytes hold.

    Raises:
        ValueError: they hold none, or one of more pixels than `headers.max_pixels`.
    """
    # Colours in order at once: a pass of its own would wake OpenCV's threads, a tenth of what reading a clip costs.
    return _decode(data, cv2.IMREAD_COLOR_RGB)


def decode_whole(data: bytes) -> tuple[Frame, int]:
    """As `decode_image`, of a file that nobody vouches for: also refuses what decoders show with a complaint.

    Returns:
        The frame; and of a dark one of 16 bits a value, whose upper 8 bits it shows, the largest value, else 0.

    Raises:
        ValueError: as `decode_image`, or it is damaged.
    """
    with _complaints() as said:
        frame = _decode(data, cv2.IMREAD_COLOR_RGB)
        deep = frame
        if not data.startswith(b"\xff\xd8") and frame.max() < 128:  # without _RGB, which OpenCV 5 garbles at 16 bits
            deep = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if said:
        raise ValueError(f"expected a whole picture, got a damaged one ({said[0]})")
    return frame, int(deep.max()) if deep.dtype == np.uint16 else 0


def _decode(data: bytes | np.ndarray, flags: int) -> np.ndarray:
    buffer = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if not (pixels := claimed_pixels(memoryview(buffer))):
        raise ValueError(f"expected the bytes of a picture, got {buffer.size} bytes that are none")
    check_pixels(pixels)
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise ValueError(f"expected a picture, OpenCV can't decode it ({error.err})") from error
    if image is None:
        raise ValueError(f"expected the bytes of a picture, got {buffer.size} bytes that can't be decoded")
    return image


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What libjpeg, libpng and libtiff say of damage meanwhile.

    They go on with whatever they can make up, and OpenCV passes on their picture; only the process's standard error
    hears of it. That of other threads is held back meanwhile, too, and comes out at the end.
    """
    said: list[str] = []
    with _COMPLAINING, ExitStack() as stack:
        try:
            caught = stack.enter_context(tempfile.TemporaryFile())
            before = os.dup(2)
        except OSError:  # no standard error, or nowhere to keep it
            yield said
            return
        os.dup2(caught.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                if match := DAMAGE.search(line):
                    said.append(match[0].strip()[:120])
                elif not line.startswith(("libpng warning", "[ WARN")):
                    sys.stderr.write(f"{line}\n")
