"""Has a method seen what it is tested or calibrated on? By name and fingerprint of videos, and by pictures alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from flowlib.dataset.about import videos_of
from flowlib.evaluation.cache import SIDE, Known, Samples
from flowlib.models.protocols import calibrated_on, trained_on
from flowlib.progress import Progress
from flowlib.tasks.protocol import Task

# Pictures of nine unlike videos: 0.36 at most. Copies, a third as large, darker and hard compressed: 0.82 at least.
NEAR = 0.7


@dataclass(frozen=True)
class Leak:
    """Two samples, one to train on and one to test on, that show the same.

    Attributes:
        train, test: names of the samples.
        likeness: of their most similar pictures, up to 1.
        train_group, test_group: names of their videos (subjects, …).
        unit: what a sample is called.
    """

    train: str
    test: str
    likeness: float
    train_group: str
    test_group: str
    unit: str = "sample"

    def __str__(self) -> str:
        test, train = f"{self.test_group} ({self.unit} {self.test})", f"{self.train_group} ({self.unit} {self.train})"
        return f"{test} looks like {train}, likeness {self.likeness:.2f}"


def find_leaks(
    task: Task, train: Any, test: Any, *, near: float = NEAR, folder: str | Path | None = None, progress: bool = False
) -> list[Leak]:
    """Near-duplicates across two splits, the most similar sample of `train` for each of `test`.

    Every picture that the task looks at becomes 256 signs: is a cell darker than its right neighbour, brighter, or the
    same? Equal videos under two names, parts of one video, re-encoded, rescaled or brightened copies are found; the
    same scene filmed anew is not. Pictures that are all but empty are not compared. One camera that never moves films
    pictures that are alike, whoever walks through them; whether that is a leak is for the user to say.

    Args:
        task: says which pictures a sample has.
        train, test: datasets.
        near: likeness (cosine of the signs) from which on two pictures show the same.
        folder: where hashes of samples are kept, so that they need not be decoded again.
        progress: show a bar; every sample has to be decoded.

    Returns:
        The leaks found, most similar first.
    """
    folder = Path(folder).expanduser() if folder else None
    known: list[list[Known]] = []
    for split in (train, test):
        samples = Samples(task, split, folder)
        bar = Progress(range(len(split)), "looking for leaks", unit=task.unit, disable=not progress)
        known.append([samples[index] for index in bar])
    owners = [one for one in known[0] for _ in one.looks]
    vectors = directions([look for one in known[0] for look in one.looks])
    found = []
    for one in known[1] if owners else ():
        likeness = (directions(one.looks) @ vectors.T).max(axis=0, initial=-1.0)
        closest = int(likeness.argmax())
        if likeness[closest] >= near:
            own, tested = owners[closest].identity, one.identity
            found.append(Leak(own.name, tested.name, float(likeness[closest]), own.group, tested.group, task.unit))
    return sorted(found, key=lambda leak: -leak.likeness)


def directions(looks: Sequence[str]) -> Float[np.ndarray, "M 256"]:
    """Looks as vectors of length 1, so that products are likenesses: 1 for the same, about 0 for other scenes."""
    signs = np.frombuffer("".join(looks).encode(), np.uint8).reshape(-1, SIDE * SIDE)
    vectors = (signs == ord("+")).astype(np.float32) - (signs == ord("-"))
    return vectors / np.sqrt(np.maximum((vectors**2).sum(axis=1, keepdims=True), 1))


def groups_seen(task: Task, methods: Mapping[str, Any], dataset: Any) -> list[str]:
    """Sentences on methods that were trained or calibrated on a video of `dataset` (their `trained_on` or
    `calibrated_on` holds its name or fingerprint), or one if the dataset doesn't say which videos it holds."""
    groups = videos_of(dataset)
    ways = {"trained": trained_on, "calibrated": calibrated_on}
    seen = {(way, label): set(of(method)) for way, of in ways.items() for label, method in methods.items()}
    if not groups and any(seen.values()):
        return [f"which {task.group}s are tested on is not known, nor so whether a method was trained on them"]
    leaky: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (way, label), own in seen.items():
        if both := tuple(name for name, fingerprint in groups.items() if name in own or fingerprint in own):
            leaky.setdefault((way, both), []).append(repr(label))
    told = []
    for (way, both), labels in leaky.items():
        who = f"method {labels[0]} was" if len(labels) == 1 else f"methods {', '.join(labels)} were"
        listed = ", ".join(both[:3]) + (", …" if len(both) > 3 else "")
        told.append(f"{who} {way} on {len(both)} of the {len(groups)} {task.group}s to be tested on ({listed})")
    return told
