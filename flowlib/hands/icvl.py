"""Read ICVL, the hand poses of Tang et al. (2014): 10 subjects for training, two sequences for testing.

    <root>/Training/labels.txt, <root>/Testing/test_seq_1.txt, …/test_seq_2.txt     (or all in <root> itself)
                                   a line a frame: path, then u v d of 16 joints in pixels, pixels and mm
    Depth/<path> beside each       grey PNG of 16 bits, 320×240, mm; 32001 where nothing was measured

The training set holds each take again turned by some angles, in folders named after them: these are skipped.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from flowlib.camera import ICVL
from flowlib.hands.reading import (
    FrameError,
    assemble,
    check_png,
    existing_folder,
    hold_out,
    parse_numbers,
    read_lines,
    read_take,
)
from flowlib.hands.sequences import HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import ICVL_16
from flowlib.video import decode_depth

LABELS = {"labels.txt": "Training", "test_seq_1.txt": "Testing", "test_seq_2.txt": "Testing"}
LONGEST_ANGLE = 6  # letters in the name of a turned folder, "112-5"; those of takes are dates, "201403121135"
UNMEASURED = 32000  # depth of this many mm and more is the sensor's code for none


def read_icvl(root: str | Path, *, validation: float = 0.1) -> HandCollection:
    """The takes of ICVL that aren't turned; a take is a folder, its frames are in the order of their numbers.

    Args:
        root: the folder with Training and Testing, or with the label files themselves.
        validation: share of the takes for training that are for validation instead.

    Raises:
        FileNotFoundError: no such folder, or none of the label files.
        ValueError: nothing for training or for testing, or joints that don't lie in the hand.
    """
    root = existing_folder(root, "Training and Testing")
    places = [[path for path in (root / part / name, root / name) if path.is_file()] for name, part in LABELS.items()]
    there = [found[0] for found in places if found]
    if not there:
        raise FileNotFoundError(f"{root}: expected {', '.join(LABELS)} in it, found none")
    takes: list[HandSequence] = []
    skipped: list[Skipped] = []
    for labels in there:
        for key, lines in _by_take(labels, skipped).items():
            take, faults = _read_take(key, lines, labels)
            takes += [take] if take else []
            skipped += faults
    test = {take.key for take in takes if take.key.startswith("test_seq")}
    val = hold_out({take.key for take in takes} - test, validation)
    return assemble(f"ICVL at {root}", takes, test=test, val=val, skipped=skipped)


def decode_icvl(data: bytes) -> Float[np.ndarray, "H W"]:
    """The depth in mm that a picture of ICVL holds, 0 where nothing was measured.

    Raises:
        ValueError: no grey picture of 16 bits.
    """
    depth = decode_depth(data)
    return np.where(depth < UNMEASURED, depth, 0).astype(np.float32)


def _by_take(labels: Path, skipped: list[Skipped]) -> dict[str, dict[int, str]]:
    """The lines of a file by take and number of the frame; what names no picture, and turned takes, are skipped."""
    takes: dict[str, dict[int, str]] = {}
    turned: dict[str, int] = {}
    for row, line in enumerate(read_lines(labels), 1):
        if not line.strip():
            continue
        path = line.split(maxsplit=1)[0]
        match = re.fullmatch(r"([^/].*)/image_(\d+)\.png", path)
        if match is None or ".." in path:
            expected = "expected a path like 201403121135/image_0000.png first"
            skipped.append(Skipped(f"{labels.name}, line {row}", f"{labels}: {expected}, got {path[:40]!r}"))
        elif len(first := path.split("/")[0]) <= LONGEST_ANGLE:
            turned[first] = turned.get(first, 0) + 1
        else:
            takes.setdefault(match[1], {})[int(match[2])] = line
    skipped += [Skipped(name, f"{count} frames of it are others, turned") for name, count in sorted(turned.items())]
    return {key: dict(sorted(lines.items())) for key, lines in sorted(takes.items())}


def _read_take(key: str, lines: dict[int, str], labels: Path) -> tuple[HandSequence | None, list[Skipped]]:
    folder = labels.parent / "Depth"
    pictures = ((number, folder / line.split(maxsplit=1)[0]) for number, line in lines.items())

    def pose(number: int) -> np.ndarray:
        pixels = parse_numbers("".join(lines[number].split(maxsplit=1)[1:]), 3 * ICVL_16.num_joints).reshape(-1, 3)
        if (pixels[:, 2] <= 0).any():
            raise FrameError(f"{labels}: expected joints before the camera, got z = {pixels[:, 2].min():g} mm")
        return ICVL.unproject(pixels)

    return read_take(
        key,
        lines,
        pose,
        {number: path for number, path in pictures if path.is_file()},
        partial(check_png, ICVL.size, "16-bit grey"),
        decode_icvl,
        labels=labels,
        subject=key,
        action=None,
        camera=ICVL,
        skeleton=ICVL_16,
    )
