"""Has a predictor seen what it is tested on? By name and fingerprint of videos, and by pictures that look the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from flowlib.models import Predictor
from flowlib.progress import Progress

SIDE = 16  # a picture's hash has 16 × 16 bits
NEAR = 20  # bits that differ, of 256; re-encoded or rescaled copies differ in a few, other scenes in about a hundred


@dataclass(frozen=True)
class Leak:
    """Two clips, one to train on and one to test on, that show the same.

    Attributes:
        train, test: names of the clips.
        bits: of 256 that differ between their first pictures' hashes.
    """

    train: str
    test: str
    bits: int

    def __str__(self) -> str:
        return f"{self.test} looks like {self.train} ({self.bits} of {SIDE * SIDE} bits differ)"


def find_leaks(train: Any, test: Any, *, near: int = NEAR, progress: bool = False) -> list[Leak]:
    """Near-duplicates across two splits, the closest training clip for each clip to test on.

    The first picture of each clip becomes 256 bits: is a cell brighter than its right neighbour? Equal videos under
    two names, re-encoded, rescaled or brightened copies are found; the same scene filmed anew is not.

    Args:
        train, test: datasets of clips.
        near: bits that may differ.
        progress: show a bar; every clip's first picture has to be decoded.

    Returns:
        The leaks found, closest first.
    """
    (train_names, train_bits), (test_names, test_bits) = (_hashes(split, progress) for split in (train, test))
    found = []
    for name, bits in zip(test_names, test_bits):
        different = (train_bits != bits).sum(axis=1)
        closest = int(different.argmin())
        if different[closest] <= near:
            found.append(Leak(train_names[closest], name, int(different[closest])))
    return sorted(found, key=lambda leak: leak.bits)


def refuse_leaks(predictors: Mapping[str, Predictor], dataset: Any) -> None:
    """Raise `ValueError` if a predictor was trained on a video of `dataset` (its `trained_on` holds the video's name
    or fingerprint)."""
    names = list(getattr(dataset, "videos", ()))
    prints = list(getattr(dataset, "fingerprints", ())) or names
    for label, predictor in predictors.items():
        seen = set(getattr(predictor, "trained_on", None) or ())
        both = [name for name, fingerprint in zip(names, prints) if name in seen or fingerprint in seen]
        if both:
            raise ValueError(
                f"predictor {label!r} was trained on {len(both)} of the {len(names)} videos it is to be tested on "
                f"({', '.join(both[:3])}{', …' if len(both) > 3 else ''}): expected videos it has not seen; "
                "allow_leak=True overrides, and the report will say so"
            )


def _hashes(dataset: Any, progress: bool) -> tuple[list[str], Bool[np.ndarray, "M 256"]]:
    import cv2

    names, bits = [], []
    for index in Progress(range(len(dataset)), "looking for leaks", unit="clip", disable=not progress):
        sample = dataset[index]
        grey = cv2.cvtColor(np.ascontiguousarray(np.asarray(sample["frames"][0])), cv2.COLOR_RGB2GRAY)
        cells = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(int)
        bits.append((cells[:, 1:] > cells[:, :-1]).ravel())
        names.append(sample["clip"])
    return names, np.array(bits, bool).reshape(-1, SIDE * SIDE)
