"""What evaluation keeps from run to run: scores, hashes of samples, and the latest pictures, in one kind of file.

A `Cache` is a text file of JSON lines, each on the disk before the next is made, so a kill loses at most the entry at
work, and each with its SHA-256, so that a changed digit is no score. Scores are known by method, sample's content,
metric and its version, and the task's score settings, and all of these by their bytes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import pickle
import sys
import types
import uuid
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import ConcatDataset

from flowlib.clips import Clip
from flowlib.dataset.about import content_of
from flowlib.flow import OpticalFlow
from flowlib.models.protocols import Describes, Predictor, description_of
from flowlib.tasks.protocol import Answer, Identity, MetricSpec, Picture, SeriesSpec, Strip, StripRow, Task
from flowlib.workspace import atomic_write

VERSION = 5  # raise it whenever what is kept changes its meaning: old files are then left alone
SIDE = 16  # a picture's look has 16 × 16 signs
STEP = 2  # grey levels from which on two neighbouring cells differ
LIBRARIES = {*sys.stdlib_module_names, "torch", "torchvision", "timm", "numpy", "jaxtyping", "beartype"}
FIXED = (float, complex, str, bytes, tuple, frozenset, np.ndarray, torch.Tensor)  # attributes that are no count or log
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
        lines = whole.decode(errors="replace").split("\n") if whole else []
        known = [entry for entry in map(_entry, lines) if entry is not None]
        self.entries = dict(known)
        if len(known) < len(lines):
            bad = f"{len(lines) - len(known)} of {len(lines)} lines are not as they were written"
            warnings.warn(f"{path}: {bad}; what they held is made anew", stacklevel=2)
            self._write()

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
            self._write()

    def _write(self) -> None:
        assert self.path is not None
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(_line(key, value) for key, value in self.entries.items()))


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
    """A metric's number, or a series' numbers by place, as JSON has them.

    Raises:
        ValueError: its function gives something else; the message names it.
    """
    if not answer.available.issuperset(spec.needs):
        return {} if isinstance(spec, SeriesSpec) else None
    found: Any = spec.function(answer)
    try:
        if isinstance(spec, SeriesSpec):
            return {str(int(place)): to_json(float(value)) for place, value in found.items()}
        return to_json(float(found))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        expected = "numbers by whole-numbered places" if isinstance(spec, SeriesSpec) else "a number"
        got = f"{type(found).__name__} {str(found)[:80]}"
        raise ValueError(f"metric {spec.name!r}: expected its function to give {expected}, got {got}") from error


def _key(spec: MetricSpec | SeriesSpec) -> str:
    return f"{spec.name} {spec.version}"


def settings_fingerprint(task: Task) -> str:
    """SHA-256 of everything but method, sample and metric that decides a score."""
    return _sha256([VERSION, task.name, task.score_settings()])


def method_fingerprint(method: Any) -> str:
    """SHA-256 of what a method is: its class with its code, what it says of itself, and what it holds.

    A network holds all that is in it and its parts: weights, buffers, attributes, hooks. Of another method those
    attributes count that can't be counters or logs of its calls; by what else it decides, it has to describe. One that
    is neither a network nor described, that holds what has no bytes to hash, or whose class calls in another way than
    the class that describes it, gets a new fingerprint each time: its scores are never reused.
    """
    network, described = isinstance(method, torch.nn.Module), description_of(method)
    if (described is None and not network) or not _describes_its_own_call(method):
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    seen = list(method.input_frames) if isinstance(method, Predictor) else None
    try:
        return _sha256([type(method), described, seen, method if network else _fixed(method)])
    except (TypeError, RuntimeError, AttributeError, pickle.PicklingError):
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest()


def _sha256(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value, {})
    return digest.hexdigest()


def _feed(digest: Any, value: Any, met: dict[int, tuple[int, Any]]) -> None:
    """Have `digest` know a value by its bytes, objects by their classes and attributes, functions by their code.

    Raises:
        TypeError, RuntimeError, AttributeError, pickle.PicklingError: there is something in it without any of these.
    """
    if isinstance(value, (str, int, float, complex, bytes, types.NoneType)):
        digest.update(f"{type(value).__name__} {value!r};".encode(errors="surrogatepass"))
        return
    if id(value) in met:
        digest.update(f"again {met[id(value)][0]};".encode())
        return
    if not isinstance(value, tuple):  # equal ones may be the same or not, as the interpreter likes
        met[id(value)] = len(met), value  # kept, or another would get its id
    inside = _inside(value)
    digest.update(f"{type(value).__module__}.{type(value).__qualname__} {len(inside)}(".encode())
    for one in inside:
        _feed(digest, one, met)


def _inside(value: Any) -> Sequence[Any]:
    """What a value is made of, in simpler values."""
    match value:
        case torch.Tensor():
            flat = value.detach().cpu().contiguous().reshape(-1)
            return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
        case np.ndarray() | np.generic():
            content = value.tolist() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
            return str(value.dtype), value.shape, content
        case Mapping():
            return [part for pair in value.items() for part in pair]
        case list() | tuple():
            return value
        case set() | frozenset():
            return sorted(map(_sha256, value))
        case weakref.ReferenceType():  # which recurrent networks keep of their weights
            return [value()]
        case torch.nn.Module():  # hooks are kept by numbers that a process counts
            kept = {name: inner for name, inner in vars(value).items() if name != "training"}
            return type(value), {k: list(v.values()) if "_hooks" in k else v for k, v in kept.items()}
        case OpticalFlow():
            return type(value), value.name, _fixed(value)
    code = _code(value)
    if code is not None:
        return code
    return (type(value), vars(value)) if "__dict__" in dir(value) else (pickle.dumps(value),)


def _code(value: Any) -> Sequence[Any] | None:
    """What a class or a function is made of, those of libraries of their names alone; None for anything else."""
    match value:
        case type():
            name = f"{value.__module__}.{value.__qualname__}"
            if _is_library(value.__module__):
                return (name,)
            shown = {k: v for k, v in vars(value).items() if k[:2] != "__" or isinstance(v, types.FunctionType)}
            shown.pop("_abc_impl", None)
            return name, *value.__bases__, *shown, *shown.values()
        case types.FunctionType():
            if _is_library(value.__globals__.get("__name__", "")):  # of a wrapper, what it wraps counts
                return value.__module__, value.__qualname__, vars(value).get("__wrapped__")
            closure = [cell.cell_contents for cell in value.__closure__ or ()]
            return value.__code__, value.__defaults__, value.__kwdefaults__, closure
        case types.CodeType():
            return value.co_code, value.co_names, value.co_consts
        case types.MethodType() | classmethod() | staticmethod():
            return [value.__func__, value.__self__] if isinstance(value, types.MethodType) else [value.__func__]
        case property():
            return [value.fget]
        case functools.partial():
            return value.func, value.args, value.keywords
    return None


def _fixed(value: Any) -> dict[str, Any]:
    """The attributes that can't be counts or logs, for these change and decide nothing."""
    attributes = vars(value) if "__dict__" in dir(value) else {}
    return {name: inner for name, inner in attributes.items() if isinstance(inner, (*FIXED, bool))}


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


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

    A dataset whose fingerprint is a SHA-256 of its content is remembered by it (and by the times of its files, for they
    may be edited under an old hash), so another evaluation reads only the samples that it has to score.

    Args:
        task: says what a sample is and looks like.
        dataset: the samples.
        folder: where the hashes are kept; None keeps none.
    """

    def __init__(self, task: Task, dataset: Any, folder: Path | None = None) -> None:
        self.task, self.dataset = task, dataset
        content = content_of(dataset) and _sha256([content_of(dataset), _file_times(dataset)])
        name = f"samples_{VERSION}_{task.name}_{task.group}_{content[:16]}.jsonl"  # a task's group may be a setting
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


@runtime_checkable
class HasEntries(Protocol):
    """Reads its samples from files: (file, clip) of each."""

    @property
    def entries(self) -> Sequence[tuple[Path, Clip]]: ...


def _file_times(dataset: Any) -> list[Any]:
    """Name, size and time of change of all files that a dataset reads, as far as it says."""
    if isinstance(dataset, ConcatDataset):
        return [_file_times(part) for part in dataset.datasets]
    paths = sorted({path for path, _ in dataset.entries}) if isinstance(dataset, HasEntries) else []
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


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
    entry = {"key": key, "value": value}
    return json.dumps(entry | {"sha256": hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]}) + "\n"


def _entry(line: str) -> tuple[str, Any] | None:
    """Key and value of a line; None unless it is as `_line` wrote it."""
    try:
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (key, value) if _line(key, value) == line + "\n" else None
