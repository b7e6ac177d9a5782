"""Read MSRA15, the hand gestures of Sun et al. (2015): 9 subjects, 17 gestures, about 500 frames of each.

    <root>/P0/1/000000_depth.bin   little-endian: six 32-bit integers (width height left top right bottom), then the box
                                   in float32 mm, row by row; only the hand's pixels, 0 = none
    <root>/P0/1/joint.txt          number of lines, then 63 numbers in each, mm, y *up* and z *negative*

Line i, from 0, belongs to file i, whatever files are missing. Known faulty frames are skipped unless asked for.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from flowlib.camera import MSRA15
from flowlib.hands.reading import (
    FrameError,
    assemble,
    by_number,
    existing_folder,
    hold_out,
    natural,
    parse_numbers,
    read_lines,
    read_take,
)
from flowlib.hands.sequences import HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import MSRA_21

GESTURES = tuple("1 2 3 4 5 6 7 8 9 I IP L MP RP T TIP Y".split())  # noqa: SIM905
FAULTY = {  # frames whose annotation is wrong, as DeepPrior (Oberweger et al.) lists them
    "P2/TIP": (172, 173, 174),
    "P2/MP": (173, 174, 175, *range(345, 355), 356, 359, 360),
    "P3/T": (120, 489),
    "P8/4": (168,),
}
TO_OPENCV = np.array([1, -1, -1])  # of the files' joints: y up, z towards the camera
HEADER = struct.Struct("<6i")


def read_msra15(
    root: str | Path,
    *,
    test_subject: str = "P0",
    faulty: Literal["skip", "keep"] = "skip",
    validation: float = 0.1,
) -> HandCollection:
    """The takes of MSRA15, one for each subject and gesture; the gesture is the class.

    Args:
        root: the folder with P0 to P8.
        test_subject: who is left out of training; the protocol does so nine times, once with each.
        faulty: what becomes of the frames in `FAULTY`.
        validation: share of the other subjects' takes that are for validation.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such subject, only one subject, nothing for training, or joints that don't lie in the hand.
    """
    if faulty not in ("skip", "keep"):
        raise ValueError(f"faulty: expected 'skip' or 'keep', got {faulty!r}")
    root = existing_folder(root, "P0 to P8")
    subjects = sorted((p.name for p in root.iterdir() if p.is_dir() and re.fullmatch(r"P\d+", p.name)), key=natural)
    if test_subject not in subjects:
        raise ValueError(
            f"test_subject: expected one of {', '.join(subjects) or 'none'} in {root}, got {test_subject!r}"
        )
    if len(subjects) < 2:
        raise ValueError(f"{root}: expected several subjects to split, found {subjects[0]} alone")
    takes, skipped = [], []
    for subject in subjects:
        for action, gesture in enumerate(GESTURES):
            key = f"{subject}/{gesture}"
            take, faults = _read_take(root / key, key, faulty, subject=subject, action=action)
            takes += [take] if take else []
            skipped += faults
    test = {take.key for take in takes if take.subject == test_subject}
    val = hold_out({take.key for take in takes} - test, validation)
    name = f"MSRA15 at {root}, tested on {test_subject}"
    return assemble(name, takes, test=test, val=val, skipped=skipped, actions=GESTURES)


def decode_bin(data: bytes) -> Float[np.ndarray, "240 320"]:
    """The depth in mm that a `_depth.bin` holds, in the whole picture; 0 outside its box.

    Raises:
        ValueError: not the size of MSRA15's camera, a box outside it, not as long as the box asks for, or depth that
            isn't finite or is negative.
    """
    left, top, right, bottom = _box(data[: HEADER.size], len(data))
    depth = np.zeros(MSRA15.size, np.float32)
    depth[top:bottom, left:right] = np.frombuffer(data, "<f4", offset=HEADER.size).reshape(bottom - top, right - left)
    if not (np.isfinite(depth).all() and (depth >= 0).all()):
        raise ValueError("expected finite depth that isn't negative")
    return depth


def _box(header: bytes, length: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) by the head of a file of `length` bytes; right and bottom are exclusive."""
    if len(header) < HEADER.size:
        raise ValueError(f"expected a head of {HEADER.size} bytes, got a file of {length}")
    width, height, left, top, right, bottom = HEADER.unpack(header)
    if (height, width) != MSRA15.size:
        raise ValueError(f"expected a picture of 320×240 pixels, got {width}×{height}")
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        expected = "expected a box inside the picture of 320×240 pixels"
        raise ValueError(f"{expected}, got x from {left} to {right}, y from {top} to {bottom}")
    if length != (expected := HEADER.size + 4 * (right - left) * (bottom - top)):
        raise ValueError(f"expected {expected} bytes for a box of {right - left}×{bottom - top} pixels, got {length}")
    return left, top, right, bottom


def _check_bin(path: Path) -> None:
    """Raise `FrameError` unless head and length of a file agree; the rest isn't read."""
    try:
        with path.open("rb") as file:
            _box(file.read(HEADER.size), path.stat().st_size)
    except (OSError, ValueError) as error:
        raise FrameError(f"{path}: {error}") from error


def _read_take(folder: Path, key: str, faulty: str, **about: Any) -> tuple[HandSequence | None, list[Skipped]]:
    """One take, or None, and what is left out of it."""
    labels = folder / "joint.txt"
    if not labels.is_file():
        return None, [Skipped(key, f"expected {labels}, found none")]
    lines = read_lines(labels)
    if not lines or not lines[0].strip().isdigit() or int(lines[0]) != len(lines) - 1:
        got = f"{lines[0][:20]!r} above {len(lines) - 1} lines" if lines else "an empty file"
        return None, [Skipped(key, f"{labels}: expected the number of lines and as many lines, got {got}")]
    wrong = FAULTY.get(key, ()) if faulty == "skip" else ()

    def pose(number: int) -> np.ndarray:
        if number in wrong:
            raise FrameError("its annotation is known to be faulty")
        return parse_numbers(lines[1 + number], 3 * MSRA_21.num_joints).reshape(-1, 3) * TO_OPENCV

    files = by_number(folder, r"(\d{6})_depth\.bin")
    about |= {"labels": labels, "camera": MSRA15, "skeleton": MSRA_21}
    return read_take(key, range(len(lines) - 1), pose, files, _check_bin, decode_bin, **about)
