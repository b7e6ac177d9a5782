"""Checkpoints: tensors, and one JSON text that says what they are. Nothing in them is ever run.

A file holds `model`, `ema`, `optimizer` and `scaler` (dicts of tensors and numbers) and `meta` (JSON: step, model and
fit config, target scale, data fingerprint, seed, best so far). What a step draws at random depends on the seed and
the step alone, and so does the place in the stream of clips; these two numbers are the state of both.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from torch import nn

from flowlib.models.fcn import TrajectoryFCN
from flowlib.training.runs import run_folder
from flowlib.workspace import atomic_write

FORMAT = "flowlib checkpoint 1"
MODELS = {"TrajectoryFCN": TrajectoryFCN}


def save_checkpoint(path: Path, tensors: dict, meta: dict) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_write(path) as temporary:
        torch.save(tensors | {"meta": json.dumps({"format": FORMAT} | meta)}, temporary)


def read_checkpoint(path: str | Path) -> tuple[dict, dict]:
    """A checkpoint's tensors and its meta data.

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
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path}: expected the format {FORMAT!r}, got {meta.get('format')!r}")
    return content, meta


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


def load_checkpoint(path: str | Path, model: nn.Module | None = None, *, device: str = "cpu") -> tuple[nn.Module, dict]:
    """The trained model of a checkpoint, ready to predict, and what is known about it.

    Args:
        path: `last.pt` or `best.pt` of a run.
        model: filled with the weights if given; else one is built as the checkpoint says.
        device: where it goes: "cpu", "cuda", or "auto" for the GPU where there is one.

    Returns:
        The model in evaluation mode with the averaged weights where the run kept any (EMA), its `trained_on` set to
        the fingerprints of the training videos; and a dict: `step`, `model` and `fit` (configs), `weights`,
        `target_scale`, `data`, `best`, `versions`, `path`.

    Raises:
        ValueError: not a checkpoint, or `model` has another architecture than the one that was trained.
    """
    tensors, meta = read_checkpoint(path)
    if model is None:
        model = MODELS[meta["model"]["kind"]](**_arguments(meta["model"]), weights="none")
    check_architecture(path, meta, model)
    model.load_state_dict(tensors["ema"] or tensors["model"])
    model.weights = meta["weights"]
    model.trained_on = tuple(meta["data"]["train"].get("videos", ()))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), meta | {"path": str(path)}


def describe_model(model: nn.Module) -> dict:
    """The architecture as JSON: the class's name as `kind`, and its config."""
    return {"kind": type(model).__name__} | model.config


def _arguments(description: dict) -> dict:
    return {key: value for key, value in description.items() if key != "kind"}


def check_architecture(path: str | Path, meta: dict, model: nn.Module) -> None:
    """Raise `ValueError` unless `model` is built as the checkpoint's was."""
    trained, given = meta["model"], describe_model(model)
    # How the stem was widened decides where training starts, not what the checkpoint's weights mean.
    differing = [key for key in trained | given if key != "conv1" and trained.get(key) != given.get(key)]
    if differing:
        expected = ", ".join(f"{key}={given.get(key)!r}" for key in differing)
        got = ", ".join(f"{key}={trained.get(key)!r}" for key in differing)
        raise ValueError(f"{path}: expected a checkpoint of a model with {expected}, got one with {got}")
