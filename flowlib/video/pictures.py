"""Pictures in files that nobody vouches for: whole ones, and no masks. Knows nothing of videos."""

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
from jaxtyping import UInt16

from flowlib.video.images import Frame, decode

DAMAGE = re.compile(
    r"Corrupt JPEG data.*|Premature end of JPEG.*|Inconsistent progression sequence.*|libpng error.*|TIFF_Error.*"
)
PHOTOGRAPHS = frozenset([".avif", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp"])  # suffixes that no mask has
MASK = re.compile(r"[-_. ]?(masks?|seg|segm|segmentations?|annotations?|labels?|gt|mattes?|alpha|depth)[-_. ]?", re.I)
_COMPLAINING = threading.Lock()  # one decoder at a time is listened to


def without_masks(names: Sequence[str]) -> list[str]:
    """The pictures among these paths, less the masks that lie beside them.

    A mask is a .png (or another picture without loss) beside a photograph of its name, as 00000.png beside 00000.jpg,
    or is called after a picture: 00000_mask.png or mask_00000.png beside 00000.png, 00000.jpg.png beside 00000.jpg.
    """
    stems = {name: os.path.splitext(name) for name in names}
    photographs = {stem for stem, suffix in stems.values() if suffix.lower() in PHOTOGRAPHS}
    whole = set(names)
    known = {stem for stem, _ in stems.values()} | whole

    def is_mask(stem: str, suffix: str) -> bool:
        if stem in whole or (stem in photographs and suffix.lower() not in PHOTOGRAPHS):
            return True
        folder, name = os.path.split(stem)
        found = [match for match in MASK.finditer(name) if match.start() == 0 or match.end() == len(name)]
        return any(os.path.join(folder, name[: at.start()] + name[at.end() :]) in known for at in found)

    return [name for name in names if not is_mask(*stems[name])]


def decode_whole(data: bytes) -> tuple[Frame, int | None]:
    """As `decode_image`, of a file that nobody vouches for: also refuses what decoders show with a complaint.

    Returns:
        The frame; and of a dark one of 16 bits a value, whose upper 8 bits it shows, the largest value, else None.

    Raises:
        ValueError: as `decode_image`, or it is damaged.
    """
    with _complaints() as said:
        frame = decode(data, cv2.IMREAD_COLOR_RGB)
        deep = frame
        if not data.startswith(b"\xff\xd8") and frame.max() < 128:  # without _RGB, which OpenCV 5 garbles at 16 bits
            deep = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if said:
        raise ValueError(f"expected a whole picture, got a damaged one ({said[0]})")
    return frame, int(deep.max()) if deep.dtype == np.uint16 else None


def decode_depth(data: bytes) -> UInt16[np.ndarray, "H W"]:
    """The numbers that a grey picture of 16 bits holds, as depth cameras store millimetres.

    Raises:
        ValueError: they are no such picture (of 8 bits, in colour), it is damaged, or has more pixels than
            `headers.max_pixels`.
    """
    with _complaints() as said:
        image = decode(data, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        got = f"{image.dtype} {list(image.shape)}"
        raise ValueError(f"expected depth as a grey picture of 16 bits, uint16 [H W], got {got}")
    if said:
        raise ValueError(f"expected a whole picture, got a damaged one ({said[0]})")
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
