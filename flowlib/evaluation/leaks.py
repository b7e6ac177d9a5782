"""Has a predictor seen what it is tested on? By name and fingerprint of videos, and by pictures that look the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowlib.evaluation.clips import videos_of
from flowlib.evaluation.digests import Digest, Digests, directions
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
        train_video, test_video: names of their videos.
    """

    train: str
    test: str
    likeness: float
    train_video: str
    test_video: str

    def __str__(self) -> str:
        both = f"{self.test_video} (clip {self.test}) looks like {self.train_video} (clip {self.train})"
        return f"{both}, likeness {self.likeness:.2f}"


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
    owners = [digest for digest in known[0] for _ in digest.looks]
    vectors = directions([look for digest in known[0] for look in digest.looks])
    found = []
    for digest in known[1] if owners else ():
        likeness = (directions(digest.looks) @ vectors.T).max(axis=0, initial=-1.0)
        closest = int(likeness.argmax())
        if likeness[closest] >= near:
            own = owners[closest]
            videos = own.video, digest.video
            found.append(Leak(own.clip, digest.clip, float(likeness[closest]), *videos))
    return sorted(found, key=lambda leak: -leak.likeness)


def videos_seen(predictors: Mapping[str, Predictor], dataset: Any) -> list[str]:
    """Sentences on predictors that were trained on a video of `dataset` (their `trained_on` holds its name or
    fingerprint), or one if the dataset doesn't say which videos it holds."""
    videos = videos_of(dataset)
    trained = {label: set(getattr(predictor, "trained_on", None) or ()) for label, predictor in predictors.items()}
    if not videos and any(trained.values()):
        return ["which videos are tested on is not known, nor so whether a predictor was trained on them"]
    leaky: dict[tuple[str, ...], list[str]] = {}
    for label, seen in trained.items():
        both = tuple(name for name, fingerprint in videos.items() if name in seen or fingerprint in seen)
        leaky.setdefault(both, []).append(repr(label))
    leaky.pop((), None)
    return [_told(labels, both, len(videos)) for both, labels in leaky.items()]


def _told(labels: list[str], both: tuple[str, ...], count: int) -> str:
    who = f"predictor {labels[0]} was" if len(labels) == 1 else f"predictors {', '.join(labels)} were"
    listed = ", ".join(both[:3]) + (", …" if len(both) > 3 else "")
    return f"{who} trained on {len(both)} of the {count} videos to be tested on ({listed})"


def _digested(dataset: Any, folder: Path | None, progress: bool) -> list[Digest]:
    digests = Digests(dataset, folder)
    bar = Progress(range(len(dataset)), "looking for leaks", unit="clip", disable=not progress)
    found = [digests[index] for index in bar]
    digests.save()
    return found
