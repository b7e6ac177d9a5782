"""Many small trainings, and what they say side by side: a list of changes, a table of all runs, their curves.

An experiment is a name and what it changes against a default: fields of `TrainConfig`, or arguments of `TrajectoryFCN`.
Each is a run of its own, so a list that was stopped goes on with the one it was at, and finished ones are not redone.
"""

from __future__ import annotations

import html
import inspect
import itertools
import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from flowlib.models.fcn import TrajectoryFCN
from flowlib.training.config import TrainConfig
from flowlib.training.loop import fit
from flowlib.training.runs import read_metrics, run_folder
from flowlib.workspace import Workspace, write_json

FIT_FIELDS = tuple(field.name for field in fields(TrainConfig))
MODEL_FIELDS = tuple(inspect.signature(TrajectoryFCN).parameters)


def grid(**options: list) -> dict[str, dict]:
    """All combinations of the given options, named by their values, for `run_experiments`.

    >>> grid(optimizer=["sgd", "adam"], masked=[True])
    {'optimizer=sgd masked=True': {'optimizer': 'sgd', 'masked': True}, \
'optimizer=adam masked=True': {'optimizer': 'adam', 'masked': True}}
    """
    combinations = (dict(zip(options, values)) for values in itertools.product(*options.values()))
    return {" ".join(f"{key}={value}" for key, value in chosen.items()): chosen for chosen in combinations}


def run_experiments(
    train,
    validation,
    changes: dict[str, dict],
    base: TrainConfig | None = None,
    *,
    model: dict | None = None,
    runs: Path | None = None,
) -> RunTable:
    """Run every experiment of a list, or go on with it.

    Args:
        train, validation: as in `fit`, the same for all.
        changes: name of an experiment -> what it changes: fields of `TrainConfig` and arguments of `TrajectoryFCN`.
        base: the config that is changed; its name begins the runs' names.
        model: the arguments of `TrajectoryFCN` that are changed; all models start from the same seed.
        runs: the folder of the runs; the workspace's by default.

    Returns:
        The table of these experiments. One whose loss was no number any more is listed with the reason, and the
        others go on.

    Raises:
        ValueError: a change that neither takes, by name, before anything runs.
    """
    base, model = TrainConfig() if base is None else base, model or {}
    runs = Workspace().runs if runs is None else Path(runs)
    for name, change in changes.items():
        unknown = change.keys() - set(FIT_FIELDS) - set(MODEL_FIELDS)
        if unknown:
            raise ValueError(
                f"{name}: expected fields of TrainConfig or TrajectoryFCN, got {', '.join(sorted(unknown))}"
            )
        replace(base, **_only(change, FIT_FIELDS))  # a bad value shows before the first run
    folders = [run_folder(f"{base.name}-{_slug(name)}", runs) for name in changes]
    for folder, change in zip(folders, changes.values()):
        _run(folder, train, validation, replace(base, **_only(change, FIT_FIELDS)), model | _only(change, MODEL_FIELDS))
    return RunTable([_row(folder) for folder in folders])


def _run(folder: Path, train, validation, config: TrainConfig, model: dict) -> None:
    if (folder / "failure.json").exists():
        return
    config = replace(config, name=folder.name.partition("_")[2])
    torch.manual_seed(config.seed)  # the same start for every model of the list
    try:
        fit(TrajectoryFCN(**model), train, validation, config, folder=folder)
    except FloatingPointError as error:  # an outcome: this setting diverges
        print(f"{config.name}: {error}")
        write_json(folder / "failure.json", {"error": str(error)})


def _only(change: dict, names: tuple[str, ...]) -> dict:
    return {key: value for key, value in change.items() if key in names}


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", name)


@dataclass(frozen=True)
class RunTable:
    """Rows of runs; shows as a table in a notebook and as text elsewhere.

    Each row has: run, status, minutes, steps, changes, loss, ade (of the last twentieth of the training steps),
    validation_loss, validation_ade, validation_visibility_accuracy (the last ones), best_ade, folder.
    """

    rows: list[dict]

    COLUMNS = (
        *("run", "status", "minutes", "steps", "changes", "loss", "ade"),
        *("validation_loss", "validation_ade", "best_ade", "validation_visibility_accuracy"),
    )

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        heads = [name.replace("validation_", "val. ").replace("_", " ") for name in self.COLUMNS]
        cells = [heads, *([_text(row[name]) for name in self.COLUMNS] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in self.COLUMNS)
        rows = ("".join(f"<td>{html.escape(_text(row[name]))}</td>" for name in self.COLUMNS) for row in self.rows)
        return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def run_table(runs: str | Path | None = None) -> RunTable:
    """All runs of a workspace, oldest first: time, changes against the default, losses, errors.

    Args:
        runs: the folder of the runs; the workspace's by default.
    """
    runs = Workspace().runs if runs is None else Path(runs)
    return RunTable([_row(folder) for folder in sorted(runs.glob("*_*")) if (folder / "config.json").exists()])


def _row(folder: Path) -> dict:
    lines = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    steps = [line for line in lines if "grad_norm" in line]
    judged = [line for line in lines if "validation_ade" in line]
    recent = steps[-max(1, len(steps) // 20) :]
    row = {"run": folder.name.partition("_")[2], "status": _status(folder), "folder": str(folder)}
    row |= {"minutes": _minutes(folder), "steps": len(steps), "changes": _changes(folder)}
    row |= {name: _mean([line[name] for line in recent if name in line]) for name in ("loss", "ade")}
    names = ("validation_loss", "validation_ade", "validation_visibility_accuracy")
    row |= {name: judged[-1][name] if judged else None for name in names}
    return row | {"best_ade": min((line["validation_ade"] for line in judged), default=None)}


def _status(folder: Path) -> str:
    if (folder / "failure.json").exists():
        return "diverged"
    state = folder / "state.json"
    return "done" if state.exists() and json.loads(state.read_text(encoding="utf-8"))["finished"] else "open"


def _minutes(folder: Path) -> float:
    path = folder / "timings.jsonl"
    return sum(line["step_seconds"] for line in read_metrics(folder, path.name)) / 60 if path.exists() else 0.0


def _changes(folder: Path) -> str:
    """What a run's config has other than the defaults of `TrainConfig` and `TrajectoryFCN`."""
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pairs = TrainConfig.from_json(about["fit"]).changes(TrainConfig())
    defaults = {name: p.default for name, p in inspect.signature(TrajectoryFCN).parameters.items()}
    changed = {name: pair[0] for name, pair in pairs.items() if name not in ("name", "device", "num_workers")}
    for name, value in about["model"].items():
        value = tuple(value) if isinstance(value, list) else value
        if name in defaults and value != defaults[name]:
            changed[name] = value
    return " ".join(f"{name}={value}" for name, value in changed.items())


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _text(value) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot_curves(runs, key: str = "loss", *, smooth: int = 1, ax=None):
    """Curves of several runs over their steps, one above the other.

    Args:
        runs: a `RunTable`, or a list of `Run`s or folders.
        key: a name in metrics.jsonl, for example loss, ade, grad_norm, lr, validation_ade.
        smooth: how many values a point averages.
        ax: matplotlib Axes to draw on; new ones if None.

    Returns:
        The Axes.

    Raises:
        ValueError: no run has such values.
    """
    from flowlib.plots import learning_curves

    folders = [row["folder"] for row in runs.rows] if isinstance(runs, RunTable) else runs
    curves = {}
    for folder in (Path(getattr(run, "folder", run)) for run in folders):
        points = [(line["step"], line[key]) for line in read_metrics(folder) if key in line]
        if points:
            curves[folder.name.partition("_")[2] or folder.name] = tuple(zip(*_smoothed(points, smooth)))
    if not curves:
        raise ValueError(f"key: expected a name in the runs' metrics.jsonl, got {key!r}")
    return learning_curves(curves, label=key.replace("_", " "), log="accuracy" not in key, ax=ax)


def _smoothed(points: list[tuple[int, float]], smooth: int) -> list[tuple[int, float]]:
    groups = [points[i : i + smooth] for i in range(0, len(points), smooth)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
