"""What evaluation keeps from run to run: scores, hashes of samples, and the latest pictures, in one kind of file.

A `Cache` is a text file of JSON lines, each on the disk before the next is made, so a kill loses at most the entry at
work. Scores are known by method, sample's content, metric and its version, and the task's score settings.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowlib.dataset.about import content_of
from flowlib.models.protocols import Describes, Predictor, description_of
from flowlib.tasks.protocol import Answer, Identity, MetricSpec, Picture, SeriesSpec, Strip, StripRow, Task
from flowlib.workspace import atomic_write

VERSION = 4  # raise it whenever what is kept changes its meaning: old files are then left alone
SIDE = 16  # a picture's look has 16 × 16 signs
STEP = 2  # grey levels from which on two neighbouring cells differ
FLAT = 64  # of 256 signs that a picture must have; with fewer it is as good as empty and looks like any other empty one


class Cache:
    """Entries that are kept in a file; the last one of a key counts.

    Args:
        path: the file; None keeps them in memory.

    Attributes:
        entries: key -> value, as plain JSON values.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.entries = path, {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:  # killed in the middle of a line
            os.truncate(path, len(whole) + 1 if whole else 0)
        for line in whole.decode().splitlines():
            entry = json.loads(line)
            self.entries[entry["key"]] = entry["value"]

    def put(self, key: str, value: Any) -> None:
        """Keep an entry, on the disk before this returns."""
        self.entries[key] = value
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(_line(key, value))
                file.flush()
                os.fsync(file.fileno())

    def keep(self, keys: Sequence[str]) -> None:
        """Forget all entries but these."""
        if set(self.entries) <= set(keys):
            return
        self.entries = {key: value for key, value in self.entries.items() if key in keys}
        if self.path is not None:
            with atomic_write(self.path) as temporary:
                Path(temporary).write_text("".join(_line(key, value) for key, value in self.entries.items()))


class Scores:
    """The scores of one method so far.

    Args:
        folder: of all caches.
        method: its fingerprint.
        task: what is measured.
    """

    def __init__(self, folder: Path, method: str, task: Task) -> None:
        self.task = task
        self.cache = Cache(folder / f"scores_{method[:16]}_{settings_fingerprint(task)[:16]}.jsonl")

    def missing(self, content: str) -> list[MetricSpec | SeriesSpec]:
        """What has not been measured of a sample."""
        known = self.cache.entries.get(content, {})
        return [spec for spec in (*self.task.metrics, *self.task.series) if _key(spec) not in known]

    def add(self, content: str, answer: Answer) -> None:
        """Measure what is missing, and keep it."""
        found = {_key(spec): measure(spec, answer) for spec in self.missing(content)}
        self.cache.put(content, self.cache.entries.get(content, {}) | found)

    def row(self, content: str) -> dict[str, float]:
        """A sample's numbers by name, those of a series as `<name>_<place>`."""
        known = self.cache.entries[content]
        row = {spec.name: from_json(known[_key(spec)]) for spec in self.task.metrics}
        for spec in self.task.series:
            row |= {f"{spec.name}_{place}": from_json(value) for place, value in known[_key(spec)].items()}
        return row


def measure(spec: MetricSpec | SeriesSpec, answer: Answer) -> Any:
    """A metric's number, or a series' numbers by place, as JSON has them."""
    can = answer.available.issuperset(spec.needs)
    if isinstance(spec, SeriesSpec):
        return {str(place): to_json(float(value)) for place, value in spec.function(answer).items()} if can else {}
    return to_json(float(spec.function(answer))) if can else None


def _key(spec: MetricSpec | SeriesSpec) -> str:
    return f"{spec.name} {spec.version}"


def settings_fingerprint(task: Task) -> str:
    """SHA-256 of everything but method, sample and metric that decides a score."""
    return hashlib.sha256(json.dumps([VERSION, task.name, task.score_settings()], sort_keys=True).encode()).hexdigest()


def method_fingerprint(method: Any) -> str:
    """SHA-256 of what a method is: its class, what it says of itself, and for networks every weight.

    A network that isn't described is known by its plain attributes, too. Anything else that isn't, or whose class calls
    in another way than the class that describes it, gets a new fingerprint each time: its scores are never reused.
    """
    digest = hashlib.sha256(f"{type(method).__module__}.{type(method).__qualname__}".encode())
    described = description_of(method)
    network = isinstance(method, torch.nn.Module)
    if described is None and network:
        described = [
            f"{name}.{key}={value!r}"
            for name, module in method.named_modules()
            for key, value in sorted(vars(module).items())
            if key[0] != "_" and key != "training" and isinstance(value, (bool, int, float, str, tuple, list))
        ]
    if described is None or not _describes_its_own_call(method):
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    seen = list(method.input_frames) if isinstance(method, Predictor) else None
    digest.update(json.dumps([described, seen], sort_keys=True, default=str).encode())
    if network:
        for name, tensor in sorted(method.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _describes_its_own_call(method: Any) -> bool:
    """False where a class inherits `describe` and has a call of its own, of which that says nothing."""
    for kind in type(method).__mro__ if isinstance(method, Describes) else ():
        if "describe" in vars(kind):
            return True
        if {"__call__", "forward", "from_sample"} & set(vars(kind)):
            return False
    return True


@dataclass(frozen=True)
class Known:
    """A sample in short: what it is, and a string of "+", "-" and "0" for the look of each picture that isn't flat."""

    identity: Identity
    looks: tuple[str, ...]


class Samples:
    """What is known of a dataset's samples before anything is predicted, each read and hashed when it is asked for.

    A dataset whose fingerprint is a SHA-256 of its content is remembered by it, so another evaluation reads only the
    samples that it has to score.

    Args:
        task: says what a sample is and looks like.
        dataset: the samples.
        folder: where the hashes are kept; None keeps none.
    """

    def __init__(self, task: Task, dataset: Any, folder: Path | None = None) -> None:
        self.task, self.dataset = task, dataset
        content = content_of(dataset)
        name = f"samples_{VERSION}_{task.name}_{content[:16]}.jsonl"
        self.cache = Cache(folder / name if folder and content else None)

    def __contains__(self, index: int) -> bool:
        return str(index) in self.cache.entries

    def __getitem__(self, index: int) -> Known:
        return self.of(index, None if index in self else self.dataset[index])

    def of(self, index: int, sample: Any) -> Known:
        """What is known of sample `index`, which is at hand."""
        if index not in self:
            signs = [picture_signs(picture) for picture in self.task.looks(sample)]
            looks = ["".join("-0+"[sign + 1] for sign in one) for one in signs if np.count_nonzero(one) >= FLAT]
            identity = self.task.identify(self.dataset, index, sample)
            self.cache.put(str(index), {"identity": asdict(identity), "looks": looks})
        entry = self.cache.entries[str(index)]
        return Known(Identity(**entry["identity"]), tuple(entry["looks"]))


def picture_signs(picture: np.ndarray) -> np.ndarray:
    """Is each of 16 × 16 cells darker than its right neighbour (1), brighter (-1), or the same (0)? int8 [256].

    A difference hash (dHash) with a third value for what is flat; `picture` is uint8 [H W 3].
    """
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    steps = np.diff(cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(int), axis=1)
    return (np.sign(steps) * (np.abs(steps) >= STEP)).ravel().astype(np.int8)


def strip_key(title: str, identity: Identity, methods: Mapping[str, str], task: Task) -> str:
    """SHA-256 of all that decides a strip: the sample, and every method's name and fingerprint."""
    measured = [_key(spec) for spec in (*task.metrics, *task.series)]
    decisive = [title, asdict(identity), list(methods.items()), settings_fingerprint(task), measured]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def strip_to_json(strip: Strip) -> Any:
    """A strip as plain JSON values, its pictures in base64."""
    return _texts(asdict(strip))


def strip_from_json(value: Mapping[str, Any]) -> Strip:
    """The strip that `strip_to_json` was given."""
    rows = tuple(StripRow(row["name"], row["note"], _pictures(row["pictures"])) for row in value["rows"])
    return Strip(**dict(value) | {"heads": tuple(value["heads"]), "truth": _pictures(value["truth"]), "rows": rows})


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _texts(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(inner) for inner in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _pictures(values: Sequence[Mapping[str, Any] | None]) -> tuple[Picture | None, ...]:
    return tuple(None if value is None else _picture(**value) for value in values)


def _picture(jpeg: str, caption: str, hover: str | None) -> Picture:
    return Picture(base64.b64decode(jpeg), caption, None if hover is None else base64.b64decode(hover))


def to_json(value: float) -> float | str | None:
    """NaN as null and infinity as text, for JSON has neither."""
    return None if value != value else str(value) if value in (np.inf, -np.inf) else float(value)


def from_json(value: float | str | None) -> float:
    """The number that `to_json` was given."""
    return float("nan") if value is None else float(value)


def _line(key: str, value: Any) -> str:
    return json.dumps({"key": key, "value": value}) + "\n"
