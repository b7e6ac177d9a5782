"""What evaluation has to know of a clip before it predicts anything: its content, and what its pictures look like.

A clip is read and digested once; a dataset whose fingerprint is a SHA-256 of its content is remembered by it, so that
another evaluation decodes only the clips that it has to score.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from flowlib.workspace import atomic_write

VERSION = 1  # raise it whenever a digest changes its meaning
SIDE = 16  # a picture's look has 16 × 16 signs
STEP = 2  # grey levels from which on two neighbouring cells differ
FLAT = 64  # of 256 signs that a picture must have; with fewer it is as good as empty and looks like any other empty one


@dataclass(frozen=True)
class Digest:
    """A clip in short.

    Attributes:
        clip, video: their names.
        content: SHA-256 of pictures, tracks, visibility and queries.
        looks: one string of "+", "-" and "0" for each stored picture that isn't flat.
    """

    clip: str
    video: str
    content: str
    looks: tuple[str, ...]


class Digests:
    """The digests of a dataset's clips, made when they are asked for.

    Args:
        dataset: samples as `TrajectoryDataset` gives them.
        folder: where digests are kept; None keeps none.
    """

    def __init__(self, dataset: Any, folder: Path | None = None) -> None:
        self.dataset, self.known = dataset, {}
        fingerprint = str(getattr(dataset, "fingerprint", ""))
        by_content = re.fullmatch("[0-9a-f]{64}", fingerprint) and getattr(dataset, "transform", None) is None
        self.path = folder / f"digests_{VERSION}_{fingerprint[:16]}.json" if folder and by_content else None
        if self.path and self.path.exists():
            rows = json.loads(self.path.read_text())
            self.known = {int(index): Digest(*row[:3], tuple(row[3])) for index, row in rows.items()}

    def __getitem__(self, index: int) -> Digest:
        return self.known[index] if index in self.known else self.of(index, self.dataset[index])

    def __contains__(self, index: int) -> bool:
        return index in self.known

    def of(self, index: int, sample: dict[str, Any]) -> Digest:
        """The digest of clip `index`, whose sample is at hand."""
        if index not in self.known:
            pictures = [picture_signs(frame) for frame in np.asarray(sample["frames"])]
            telling = [signs for signs in pictures if np.count_nonzero(signs) >= FLAT]
            looks = tuple("".join("-0+"[sign + 1] for sign in signs) for signs in telling)
            self.known[index] = Digest(sample["clip"], sample["video"], clip_fingerprint(sample), looks)
        return self.known[index]

    def save(self) -> None:
        """Keep what is known by now."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = {index: (one.clip, one.video, one.content, one.looks) for index, one in self.known.items()}
        with atomic_write(self.path) as temporary:
            Path(temporary).write_text(json.dumps(rows))


def clip_fingerprint(sample: dict[str, Any]) -> str:
    """SHA-256 of a clip's pictures, tracks, visibility and queries."""
    digest = hashlib.sha256()
    for name in ("frames", "tracks", "visibility", "queries"):
        array = np.ascontiguousarray(np.asarray(sample[name]))
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def picture_signs(frame: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """Is each of 16 × 16 cells darker than its right neighbour (1), brighter (-1), or the same (0)? int8 [256]."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    steps = np.diff(cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(int), axis=1)
    return (np.sign(steps) * (np.abs(steps) >= STEP)).ravel().astype(np.int8)


def directions(looks: tuple[str, ...] | list[str]) -> Float[np.ndarray, "M 256"]:
    """Looks as vectors of length 1, so that products are likenesses: 1 for the same, about 0 for other scenes."""
    signs = np.frombuffer("".join(looks).encode(), np.uint8).reshape(-1, SIDE * SIDE)
    vectors = (signs == ord("+")).astype(np.float32) - (signs == ord("-"))
    return vectors / np.sqrt(np.maximum((vectors**2).sum(axis=1, keepdims=True), 1))
