"""Checkpoints: tensors, and one JSON text that says what they are. Nothing in them is ever run or unpickled.

A file holds `model`, `ema`, `optimizer` and `scaler` (dicts of tensors and numbers) and `meta` (JSON: step, the places
and settings of model and task, the config, the task's constants, the data's fingerprints, seed, best score so far).
What a step draws at random depends on the seed and the step alone, and so does the place in the stream of samples;
these two numbers are the state of both.
"""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowlib.models.protocols import HasProvenance
from flowlib.tasks.protocol import Task
from flowlib.training.runs import run_folder
from flowlib.workspace import atomic_write

FORMAT, FIRST_FORMAT = "flowlib checkpoint 2", "flowlib checkpoint 1"


def save_checkpoint(path: Path, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_write(path) as temporary:
        torch.save(tensors | {"meta": json.dumps({"format": FORMAT} | meta)}, temporary)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint's tensors and its meta data, brought to the newest format.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of this project; the message names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got nothing there")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ValueError(f"{path}: expected a checkpoint written by flowlib.training, got {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get("meta"), str):
        raise ValueError(f"{path}: expected a checkpoint written by flowlib.training, got other tensors")
    meta = json.loads(content.pop("meta"))
    if meta.get("format") not in (FORMAT, FIRST_FORMAT):
        raise ValueError(f"{path}: expected the format {FORMAT!r}, got {meta.get('format')!r}")
    return content, upgrade(meta)


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

    Args:
        runs: the folder of the runs.
        run: its name.
        path: a checkpoint's file, or "".

    Raises:
        FileNotFoundError: there is none.
    """
    if path:
        if not Path(path).is_file():
            raise FileNotFoundError(f"checkpoint: expected a file, found none at {path}")
        return Path(path)
    folder = run_folder(run, Path(runs))
    found = [folder / name for name in ("best.pt", "last.pt") if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"run: expected a run called {run!r} with a checkpoint in {runs}, found none")
    return found[0]


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
    if model is None:
        made_from = meta["model"]["config"] | ({} if meta["weights"] is None else {"weights": "none"})
        kind: type[nn.Module] = find_class(meta["model"], nn.Module, f"{path}: pass model=, for its")
        try:
            model = kind(**made_from)
        except TypeError as error:
            place = f"{kind.__module__}.{kind.__qualname__}"
            raise ValueError(
                f"{path}: expected a config that {place} can be made with, got {made_from} ({error}); pass model="
            ) from error
    check_architecture(path, meta, model)
    model.load_state_dict(tensors["ema"] or tensors["model"])
    if isinstance(model, HasProvenance) and meta["weights"] is not None:
        model.weights = str(meta["weights"])
    object.__setattr__(model, "trained_on", tuple(meta["data"]["train"].get("videos", ())))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), meta["constants"] | meta | {"path": str(path)}


def load_task(path: str | Path) -> Task:
    """The task of a checkpoint, with the settings that it was trained with.

    Raises:
        ValueError: not a checkpoint, or the task's class can't be imported.
    """
    _, meta = read_checkpoint(path)
    return task_of(meta, str(path))


def task_of(about: dict[str, Any], path: str) -> Task:
    """The task that the meta data in `path` tells of."""
    return find_class(about["task"], Task, f"{path}: its").from_settings(about["task"]["settings"])


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
    module, name = place["module"], place["name"]
    sort = "task" if base is Task else "model"
    if module == "__main__" or "<locals>" in name:
        where = "a script or notebook" if module == "__main__" else "a function"
        raise ValueError(f"{whose} {sort}'s class {name} was defined in {where}, from where it can't be imported")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
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
    # How the stem was widened decides where training starts, not what the checkpoint's weights mean.
    differing = [key for key in trained | given if key != "conv1" and trained.get(key) != given.get(key)]
    if differing:
        expected = ", ".join(f"{key}={given.get(key)!r}" for key in differing)
        got = ", ".join(f"{key}={trained.get(key)!r}" for key in differing)
        raise ValueError(f"{path}: expected a checkpoint of a model with {expected}, got one with {got}")
