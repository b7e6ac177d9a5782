"""Checkpoints: tensors, and one JSON text that says what they are. Nothing in them is ever run or unpickled.

A file holds `model`, `ema`, `optimizer` and `scaler` (dicts of tensors and numbers) and `meta` (JSON: step, the places
and settings of model and task, the config, the task's constants, the data's fingerprints, seed, best score so far).
The file is a zip archive whose comment is the SHA-256 of all before it. A run keeps `last.pt`, the one before that as
`previous.pt`, and `best.pt`.
What a step draws at random depends on the seed and the step alone, and so does the place in the stream of samples;
these two numbers are the state of both.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import inspect
import json
import math
import os
import pickle
import stat
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from flowlib.models.protocols import HasProvenance
from flowlib.quantities import counted
from flowlib.tasks.protocol import Task
from flowlib.training.config import TrainConfig
from flowlib.training.runs import run_folder, writing
from flowlib.workspace import ForgivingFile, atomic_write, check_name, temporary_path

FORMAT, FIRST_FORMAT = "flowlib checkpoint 2", "flowlib checkpoint 1"
EXPECTED = "expected a checkpoint written by flowlib.training, got"
SEAL = b"sha256 "  # begins the zip archive's comment, which holds the hash of all that lies before it
SEAL_BYTES = len(SEAL) + 64
PARTS = ("model", "ema", "optimizer", "scaler")
META = {"model": dict, "task": dict, "config": dict, "data": dict, "constants": dict, "step": int, "stale": int}
# What reading a damaged, foreign or hand-made file may raise, beside `OSError`: then it could not be read at all.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError)
UNREADABLE += (AssertionError, ArithmeticError, ImportError, MemoryError, struct.error)
TRACES = ("last.pt", "previous.pt", "best.pt", "state.json", "metrics.jsonl")  # of a run that has begun
SPARE_NUMBERS = 2**26  # that a model may make beside its checkpoint's weights


def save_checkpoint(path: Path, tensors: dict[str, Any], meta: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint, whole or not at all, sealed with its SHA-256.

    Args:
        path: where.
        tensors, meta: see the module's header.
        keep: let what was there before be `previous.pt`.

    Raises:
        OSError: the disk refuses; what was there stays.
    """
    with writing(path), atomic_write(path) as temporary:
        file: Any = ForgivingFile(temporary)
        try:
            torch.save(tensors | {"meta": json.dumps({"format": FORMAT} | meta)}, file)
        finally:
            file.close()
        with open(temporary, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(SEAL_BYTES.to_bytes(2, "little"))  # how long the archive's comment will be
            seal = SEAL + _sha256(file, file.tell()).encode()
            file.write(seal)
        if keep and path.exists():
            _keep_previous(path)


def _sha256(file: Any, size: int) -> str:
    """Of a file's first `size` bytes, which leaves it there."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(min(1 << 20, size - file.tell())):
        digest.update(piece)
    return digest.hexdigest()


def _keep_previous(path: Path) -> None:
    before = path.with_name("previous.pt")
    link = temporary_path(before)
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, before)
    except OSError:  # a disk without links; a kill just now leaves the one before, which `read_last` falls back on
        os.replace(path, before)


def check_whole(path: Path) -> None:
    """Raise unless the file at `path` is whole, as `read_checkpoint` does; without reading tensors out of it."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected a checkpoint, got nothing there") from error
    if not stat.S_ISREG(kind):  # a named pipe would be waited for
        got = "a folder; name its best.pt or last.pt" if stat.S_ISDIR(kind) else "no file"
        raise OSError(f"{path}: expected a checkpoint, got {got}")
    with open(path, "rb") as file:
        begins, size = file.read(2), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SEAL_BYTES))
        seal = file.read()
        digest = _sha256(file, max(0, size - SEAL_BYTES))  # read even where there is no seal: a disk's error shows here
    if begins != b"PK":
        raise ValueError(f"{path}: {EXPECTED} {'another kind of file' if size else 'an empty file'}")
    if seal.startswith(SEAL) and seal != SEAL + digest.encode():
        raise ValueError(f"{path}: {EXPECTED} one that is damaged: its content is not what was written (SHA-256)")


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint's tensors and its meta data, brought to the newest format.

    Files from before there were seals are read unchecked.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: damaged, or not a checkpoint of this project; the message names the file.
        OSError: the disk refuses it, or it is no file.
    """
    path = Path(path).expanduser()
    check_whole(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek to where a cut file has nothing
            raise
        foreign = isinstance(error, pickle.UnpicklingError)
        got = "objects of other kinds than tensors and numbers" if foreign else "one that is damaged or breaks off"
        raise ValueError(f"{path}: {EXPECTED} {got}") from None  # torch's own text advises to run what is in the file
    if not isinstance(content, dict) or not isinstance(content.get("meta"), str):
        raise ValueError(f"{path}: {EXPECTED} other tensors")
    try:
        meta = json.loads(content.pop("meta"))
        if meta.get("format") not in (FORMAT, FIRST_FORMAT):
            raise ValueError(f"{path}: expected the format {FORMAT!r}, got {meta.get('format')!r}")
        meta = upgrade(meta)
        inner = [meta["model"]["config"], meta["task"]["settings"], meta["data"]["train"]]
        missing = {"weights", "best_score", "processes"} - meta.keys()
    except (json.JSONDecodeError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected meta data as flowlib.training writes them, got others") from error
    wrong = sorted(missing) + [name for name in PARTS if not isinstance(content.get(name), Mapping)]
    wrong += [name for name, kind in META.items() if not isinstance(meta.get(name), kind)]
    if wrong or meta["step"] < 0 or not all(isinstance(part, dict) for part in inner):
        raise ValueError(f"{path}: {EXPECTED} one without a valid {' and '.join(map(repr, wrong)) or 'description'}")
    return content, meta


def read_last(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """What a run goes on from: tensors, meta data, and whether they are of `last.pt`, where it is whole.

    A damaged or lost `last.pt` is told of in a warning, and the checkpoint before it taken. Empty where no run has
    begun.

    Raises:
        ValueError: a run has begun, and can't go on.
    """
    problems = []
    for name in ("last.pt", "previous.pt"):
        try:
            tensors, meta = read_checkpoint(folder / name)
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
            continue
        if problems:
            step = meta["step"]
            warnings.warn(f"{problems[0]}; going on from the checkpoint before it, of step {step}", stacklevel=4)
        return tensors, meta, not problems
    if not any((folder / name).exists() for name in TRACES):
        return {}, {}, True
    lost = problems[0] if not (folder / "previous.pt").exists() else "; ".join(problems)
    best = "; best.pt is there, and may be loaded as a model" if (folder / "best.pt").exists() else ""
    raise ValueError(
        f"{lost}, though this run has begun: put a copy of last.pt back to go on, or give another name (or remove the "
        f"folder) to begin again{best}"
    )


def upgrade(about: dict[str, Any]) -> dict[str, Any]:
    """The meta data of a checkpoint, or a run's config.json, in the newest format: before tasks had a room of their
    own, every run was one of trajectories by a `TrajectoryFCN`."""
    if "fit" not in about:
        return about
    about = dict(about)
    config = about.pop("fit")
    names = ("loss", "huber_delta", "masked", "visibility_weight", "target_scale", "augment")
    settings = {name: config.pop(name) for name in names}
    config["validation_samples"] = config.pop("validation_clips")
    config["stop_at"] = config.pop("stop_below") or None
    model = dict(about["model"])
    place = {"module": "flowlib.models.fcn", "name": model.pop("kind")}
    about |= {"config": config, "model": place | {"config": model}}
    about["task"] = {"module": "flowlib.tasks.trajectories.task", "name": "TrajectoryTask", "settings": settings}
    about["score"] = {"name": "ade", "better": "low"}
    about["data"] = {split: data and _upgraded_data(data) for split, data in about["data"].items()}
    if "target_scale" in about:
        about["constants"] = {"target_scale": about.pop("target_scale")}
    if "best_ade" in about:
        about["best_score"] = about.pop("best_ade")
    return about


def _upgraded_data(data: dict[str, Any]) -> dict[str, Any]:
    return {"samples" if key == "clips" else key: value for key, value in data.items()}


def find_checkpoint(runs: str | Path, run: str, path: str = "") -> Path:
    """The file at `path` if one is named, else the best checkpoint of the newest run called `run`.

    A damaged one is told of in a warning, and the run's next one taken.

    Args:
        runs: the folder of the runs.
        run: its name.
        path: a checkpoint's file, or "".

    Raises:
        FileNotFoundError: there is none.
        ValueError: all are damaged.
    """
    if path:
        if not Path(path).expanduser().is_file():
            raise FileNotFoundError(f"checkpoint: expected a file, found none at {path}")
        return Path(path).expanduser()
    folder, problems = run_folder(run, Path(runs).expanduser()), []
    for name in ("best.pt", "last.pt", "previous.pt"):
        try:
            check_whole(folder / name)
        except FileNotFoundError:
            continue
        except ValueError as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{problems[0]}; {name} is taken in its place", stacklevel=2)
        return folder / name
    if problems:
        raise ValueError("; ".join(problems))
    raise FileNotFoundError(
        f"run: expected a run called {run!r} with a checkpoint in {runs}, found none: train it first, in notebook "
        f"04 (hands: 06 to 08) or by `flowlib train --name {run}` (`flowlib hands train`)"
    )


def load_checkpoint(
    path: str | Path, model: nn.Module | None = None, *, device: str = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model of a checkpoint, ready to predict, and what is known about it.

    Args:
        path: `last.pt` or `best.pt` of a run.
        model: filled with the weights if given; else one is built as the checkpoint says.
        device: where it goes: "cpu", "cuda", or "auto" for the GPU where there is one.

    Returns:
        The model in evaluation mode with the averaged weights where the run kept any (EMA), its `trained_on` set to
        the fingerprints of the training samples' videos; and a dict: `step`, `model`, `task` and `config` (what was
        trained, and how), `weights`, the task's constants by name and together (`constants`), `data`, `best_score`,
        `versions`, `path`.

    Raises:
        ValueError: not a checkpoint, the model's class can't be imported, or `model` has another architecture than the
            one that was trained.
    """
    tensors, meta = read_checkpoint(path)
    weights = tensors["ema"] or tensors["model"]
    if model is None:
        made_from = meta["model"]["config"] | ({} if meta["weights"] is None else {"weights": "none"})
        kind: type[nn.Module] = find_class(meta["model"], nn.Module, f"{path}: pass model=, for its")
        room = sum(value.numel() for value in weights.values() if isinstance(value, torch.Tensor)) + SPARE_NUMBERS
        try:
            with _NoMoreThan(room):
                model = kind(**made_from)
        except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            place, why = f"{kind.__module__}.{kind.__qualname__}", " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path}: expected a config that {place} can be made with, got {made_from} ({why}); pass model="
            ) from error
    check_architecture(path, meta, model)
    fill(path, model, weights)
    if isinstance(model, HasProvenance) and meta["weights"] is not None:
        model.weights = str(meta["weights"])
    object.__setattr__(model, "trained_on", tuple(meta["data"]["train"].get("videos", ())))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), meta["constants"] | meta | {"path": str(path)}


def load_runs(
    runs: str | Path, names: str, checkpoint: str = "", *, device: str = "cpu"
) -> tuple[dict[str, nn.Module], dict[str, dict[str, Any]]]:
    """The trained models of one run or of several, by name, and what is known about each; see `load_checkpoint`.

    Args:
        runs: the folder of the runs.
        names: of the runs, divided by commas. A single one's model is called "model".
        checkpoint: a file instead of a single run's best checkpoint, or "".
        device: where they go.

    Raises:
        FileNotFoundError, ValueError: as `find_checkpoint` and `load_checkpoint`; a run named twice, or none.
    """
    wanted = [check_name("runs", name.strip()) for name in names.split(",")]
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise ValueError(f"runs: expected each run once, got {twice[0]!r} twice in {names!r}")
    if checkpoint and len(wanted) > 1:
        raise ValueError(f"checkpoint: expected none with several runs ({names}), got {checkpoint}")
    found = [find_checkpoint(runs, name, checkpoint) for name in wanted]  # before any of them is loaded
    loaded = [load_checkpoint(path, device=device) for path in found]
    called = wanted if len(wanted) > 1 else ["model"]
    return {name: pair[0] for name, pair in zip(called, loaded)}, {name: pair[1] for name, pair in zip(called, loaded)}


def describe_runs(abouts: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each model of `load_runs`: its checkpoint, and how long it was trained."""
    return "\n".join(f"{name}: {about['path']}, {counted(about['step'], 'step')}" for name, about in abouts.items())


class _NoMoreThan(TorchFunctionMode):
    """Refuses tensors of more numbers in all: a config that asks for them is not that of the weights beside it."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn):
            size = args if args and isinstance(args[0], int) else (args or [(kwargs or {}).get("size", ())])[0]
            self.room -= math.prod(size)
            if self.room < 0:
                raise ValueError(f"it asks for a tensor of {math.prod(size):,} numbers, far more than the weights are")
        return func(*args, **(kwargs or {}))


def fill(path: str | Path, model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load the weights of the checkpoint at `path`, or raise `ValueError` where the model has others."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        shapes, own = (
            {k: list(getattr(v, "shape", ())) for k, v in of.items()} for of in (weights, model.state_dict())
        )
        name = next((k for k in own | shapes if own.get(k) != shapes.get(k)), "")
        expected, got = (of.get(name, "nothing") for of in (own, shapes))
        raise ValueError(f"{path}: expected weights of the model, with {name!r} {expected}, got {got}") from error


def load_task(path: str | Path) -> Task:
    """The task of a checkpoint, with the settings that it was trained with.

    Raises:
        ValueError: not a checkpoint, or the task's class can't be imported.
    """
    _, meta = read_checkpoint(path)
    return task_of(meta, str(path))


def task_of(about: dict[str, Any], path: str) -> Task:
    """The task that the meta data in `path` tells of."""
    kind, settings = find_class(about["task"], Task, f"{path}: its"), about["task"].get("settings")
    try:
        return kind.from_settings(settings)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"{path}: expected settings of a {kind.__name__}, got {settings} ({error})") from error


def config_of(about: dict[str, Any], path: str | Path) -> TrainConfig:
    """The training's config that the meta data in `path` tells of."""
    try:
        return TrainConfig(**about["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the config of a training, got {about['config']} ({error})") from error


def place_of(value: object) -> dict[str, str]:
    """Where a thing's class is imported from."""
    return {"module": type(value).__module__, "name": type(value).__qualname__}


def find_class(place: dict[str, Any], base: type, whose: str) -> Any:
    """The class at a place, imported.

    Args:
        place: as `place_of` gives it.
        base: what the class must inherit; nothing else is ever called.
        whose: begins the message of an error.

    Raises:
        ValueError: it can't be imported, or is something else.
    """
    module, name = str(place.get("module")), str(place.get("name"))
    sort = "task" if base is Task else "model"
    if module == "__main__" or "<locals>" in name:
        where = "a script or notebook" if module == "__main__" else "a function"
        raise ValueError(f"{whose} {sort}'s class {name} was defined in {where}, from where it can't be imported")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{whose} {sort}'s class {module}.{name} can't be imported ({error})") from error
    if not isinstance(found, type) or not issubclass(found, base):
        got = f"{module}.{name}, which is none"
        raise ValueError(f"{whose} {sort}'s class is expected to be a {base.__module__}.{base.__name__}, got {got}")
    return found


def describe_model(model: Any) -> dict[str, Any]:
    """The architecture as JSON: where its class is imported from, and its config."""
    return place_of(model) | {"config": json.loads(json.dumps(dict(model.config)))}


def check_architecture(path: str | Path, meta: dict[str, Any], model: nn.Module) -> None:
    """Raise `ValueError` unless `model` is built as the checkpoint's was."""
    trained, given = (one["config"] | {"class": one["name"]} for one in (meta["model"], describe_model(model)))
    # An option that one of them doesn't name (the class has got it since then, or says it only where it differs)
    # stands at what it is without being asked for.
    options = inspect.signature(type(model)).parameters
    known = {key: options[key].default for key in given.keys() ^ trained.keys() if key in options}
    known = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
    trained, given = known | trained, known | given
    # How the stem was widened decides where training starts, not what the checkpoint's weights mean.
    differing = [key for key in trained | given if key != "conv1" and trained.get(key) != given.get(key)]
    if differing:
        expected = ", ".join(f"{key}={given.get(key)!r}" for key in differing)
        got = ", ".join(f"{key}={trained.get(key)!r}" for key in differing)
        raise ValueError(f"{path}: expected a checkpoint of a model with {expected}, got one with {got}")
