"""Has a predictor seen what it is tested on? By name and fingerprint of videos, and by pictures that look the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowlib.evaluation.digests import Digests, directions
from flowlib.models import Predictor
from flowlib.progress import Progress

# Pictures of nine unlike videos: 0.36 at most. Copies, a third as large, darker and hard compressed: 0.82 at least.
NEAR = 0.7


@dataclass(frozen=True)
class Leak:
    """Two clips, one to train on and one to test on, that show the same.

    Attributes:
        train, test: names of the clips.
        likeness: of their most similar pictures, up to 1.
    """

    train: str
    test: str
    likeness: float

    def __str__(self) -> str:
        return f"{self.test} looks like {self.train} (likeness {self.likeness:.2f})"


def find_leaks(
    train: Any, test: Any, *, near: float = NEAR, folder: Path | None = None, progress: bool = False
) -> list[Leak]:
    """Near-duplicates across two splits, the most similar training clip for each clip to test on.

    Every stored picture becomes 256 signs: is a cell darker than its right neighbour, brighter, or the same? Equal
    videos under two names, parts of one video, re-encoded, rescaled or brightened copies are found; the same scene
    filmed anew is not. Pictures that are all but empty are not compared. One camera that never moves films pictures
    that are alike, whoever walks through them; whether that is a leak is for the user to say.

    Args:
        train, test: datasets of clips.
        near: likeness (cosine of the signs) from which on two pictures show the same.
        folder: where digests of clips are kept, so that they need not be decoded again.
        progress: show a bar; every clip has to be decoded.

    Returns:
        The leaks found, most similar first.
    """
    known = [_digested(split, folder, progress) for split in (train, test)]
    owners = [clip for clip, looks in known[0] for _ in looks]
    vectors = directions([look for _, looks in known[0] for look in looks])
    found = []
    for clip, looks in known[1] if owners else ():
        likeness = (directions(looks) @ vectors.T).max(axis=0, initial=-1.0)
        closest = int(likeness.argmax())
        if likeness[closest] >= near:
            found.append(Leak(owners[closest], clip, float(likeness[closest])))
    return sorted(found, key=lambda leak: -leak.likeness)


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


def _digested(dataset: Any, folder: Path | None, progress: bool) -> list[tuple[str, tuple[str, ...]]]:
    """(name, looks) of every clip of a split."""
    digests = Digests(dataset, folder)
    bar = Progress(range(len(dataset)), "looking for leaks", unit="clip", disable=not progress)
    found = [(digests[index].clip, digests[index].looks) for index in bar]
    digests.save()
    return found
