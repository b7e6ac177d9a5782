"""Sweeps: many small trainings and what they say side by side; a table of all runs, their curves.

An experiment is a name and what it changes against a default: fields of `TrainConfig` or of the task, or arguments of
what makes the model. Each is a run of its own, so a list that was stopped goes on with the one it was at, and finished
ones are not redone.
"""

from __future__ import annotations

import html
import inspect
import itertools
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowlib.tasks.protocol import Task
from flowlib.training.checkpoints import config_of, find_class, task_of, upgrade
from flowlib.training.config import TrainConfig
from flowlib.training.loop import fit
from flowlib.training.runs import minutes_of, read_metrics, run_folder
from flowlib.training.session import TrainingRun
from flowlib.workspace import Workspace, write_json

TRAIN_FIELDS = tuple(field.name for field in fields(TrainConfig))
NOT_TOLD = ("name", "device", "num_workers")  # changes that no result depends on
logger = logging.getLogger(__name__)


def grid(**options: list[Any]) -> dict[str, dict[str, Any]]:
    """All combinations of the given options, named by their values, for `run_experiments`.

    >>> grid(optimizer=["sgd", "adam"], masked=[True])
    {'optimizer=sgd masked=True': {'optimizer': 'sgd', 'masked': True}, \
'optimizer=adam masked=True': {'optimizer': 'adam', 'masked': True}}
    """
    combinations = (dict(zip(options, values)) for values in itertools.product(*options.values()))
    return {" ".join(f"{key}={value}" for key, value in chosen.items()): chosen for chosen in combinations}


def run_experiments(
    make_model: Callable[..., nn.Module],
    task: Task,
    train: Any,
    validation: Any,
    changes: Mapping[str, Mapping[str, Any]],
    base: TrainConfig | None = None,
    *,
    model: Mapping[str, Any] | None = None,
    runs: Path | None = None,
) -> RunTable:
    """Run every experiment of a list, or go on with it.

    Args:
        make_model: the model's class, or a function that makes one.
        task, train, validation: as in `fit`, the same for all.
        changes: name of an experiment -> what it changes: fields of `TrainConfig` and of the task, and arguments of
            `make_model`.
        base: the config that is changed; its name begins the runs' names.
        model: the arguments of `make_model` that are changed; all models start from the same seed.
        runs: the folder of the runs; the workspace's by default.

    Returns:
        The table of these experiments. One whose loss was no number any more is listed with the reason, and the
        others go on.

    Raises:
        ValueError: a change that none takes, by name, before anything runs.
    """
    base, model = TrainConfig() if base is None else base, dict(model or {})
    runs = Workspace().runs if runs is None else Path(runs).expanduser()
    task_fields = tuple(task.settings())
    model_fields = tuple(inspect.signature(make_model).parameters)
    planned = []
    for name, change in changes.items():
        unknown = change.keys() - {*TRAIN_FIELDS, *task_fields, *model_fields}
        if unknown:
            known = f"TrainConfig, {type(task).__name__} or {make_model.__name__}"
            raise ValueError(f"{name}: expected fields of {known}, got {', '.join(sorted(unknown))}")
        config = replace(base, **_only(change, TRAIN_FIELDS))  # a bad value shows before the first run
        changed_task: Any = replace(task, **_only(change, task_fields)) if is_dataclass(task) else task
        folder = run_folder(base.name + "-" + re.sub(r"[^\w.=+-]+", "-", name), runs)
        planned.append((folder, changed_task, config, model | _only(change, model_fields)))
    for folder, changed_task, config, arguments in planned:
        if (folder / "failure.json").exists():
            continue
        config = replace(config, name=folder.name.partition("_")[2])
        torch.manual_seed(config.seed)  # the same start for every model of the list
        try:
            fit(make_model(**arguments), changed_task, train, validation, config, folder=folder)
        except FloatingPointError as error:  # an outcome: this setting diverges
            logger.warning("%s: %s", config.name, error)
            write_json(folder / "failure.json", {"error": str(error)})
    return RunTable([_row(folder) for folder, *_ in planned])


def _only(change: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in change.items() if key in names}


@dataclass(frozen=True)
class RunTable:
    """Rows of runs; shows as a table in a notebook and as text elsewhere.

    Each row has: run, status, minutes, steps, changes, loss and the task's score (of the last twentieth of the training
    steps), validation_loss, validation_<score> and the validation's other values (the last ones), best_<score>, folder.
    """

    rows: list[dict[str, Any]]

    @property
    def columns(self) -> list[str]:
        """The names of what the table shows, of all tasks in it; losses that are part of the whole are left out."""
        names = dict.fromkeys(name for row in self.rows for name in row if name != "folder")
        return [name for name in names if not re.fullmatch(r"validation_\w+_loss", name)]

    def __len__(self) -> int:
        return len(self.rows)

    def spread(self, *over: str) -> RunTable:
        """What several runs of each setting say together: a row for each setting, in the table's order.

        Args:
            over: columns that tell settings apart; runs alike in these are repetitions (other seeds).

        Returns:
            A table of these columns, `runs`, and the mean, lowest and highest best score; two settings whose ranges
            overlap are not told apart by so few runs.

        Raises:
            ValueError: a column that no row has.
        """
        scores = sorted({name for row in self.rows for name in row if name.startswith("best_")})
        missing = [name for name in over if not any(name in row for row in self.rows)]
        if missing or not over or len(scores) != 1:
            got = f"{', '.join(over) or 'none'} ({', '.join(scores) or 'no score'})"
            raise ValueError(f"over: expected columns of a table of one score, {', '.join(self.columns)}, got {got}")
        groups: dict[tuple[Any, ...], list[float]] = {}
        for row in self.rows:
            found = groups.setdefault(tuple(row.get(name) for name in over), [])
            found += [] if row.get(scores[0]) is None else [row[scores[0]]]
        rows = []
        for key, values in groups.items():
            row: dict[str, Any] = dict(zip(over, key)) | {"runs": len(values), f"mean_{scores[0]}": _mean(values)}
            rows.append(row | {"lowest": min(values, default=None), "highest": max(values, default=None)})
        return RunTable(rows)

    def __repr__(self) -> str:
        columns = self.columns
        heads = [name.replace("validation_", "val. ").replace("_", " ") for name in columns]
        cells = [heads, *([_text(row.get(name)) for name in columns] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)

    def _repr_html_(self) -> str:
        columns = self.columns
        heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in columns)
        rows = ("".join(f"<td>{html.escape(_text(row.get(name)))}</td>" for name in columns) for row in self.rows)
        return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def run_table(runs: str | Path | None = None) -> RunTable:
    """All runs of a workspace, oldest first: time, changes against the default, losses, errors.

    Args:
        runs: the folder of the runs; the workspace's by default.
    """
    runs = Workspace().runs if runs is None else Path(runs).expanduser()
    rows = []
    for folder in (folder for folder in sorted(runs.glob("*_*")) if (folder / "config.json").exists()):
        try:
            rows.append(_row(folder))
        except ValueError as error:  # one that was edited by hand must not hide the others
            logger.warning("left out: %s", error)
    return RunTable(rows)


def _row(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        about = upgrade(json.loads(path.read_text(encoding="utf-8")))
        score, better = str(about["score"]["name"]), about["score"]["better"]
        changes = _changes(about, folder)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected what a training wrote, got something else ({error!r})") from error
    lines = read_metrics(folder)
    steps = [line for line in lines if "grad_norm" in line]
    judged = [line for line in lines if f"validation_{score}" in line]
    recent, last = steps[-max(1, len(steps) // 20) :], judged[-1] if judged else {}
    row = {"run": folder.name.partition("_")[2], "status": _status(folder), "folder": str(folder)}
    row |= {"minutes": minutes_of(folder), "steps": len(steps), "changes": changes}
    row |= {name: _mean([line[name] for line in recent if name in line]) for name in ("loss", score)}
    row |= {name: last.get(name) for name in ("validation_loss", f"validation_{score}")}
    rank = {"low": lambda value: value, "high": lambda value: -value, "zero": abs}.get(better, abs)
    row[f"best_{score}"] = min((line[f"validation_{score}"] for line in judged), key=rank, default=None)
    return row | {name: value for name, value in last.items() if name not in row and name != "step"}


def _status(folder: Path) -> str:
    if (folder / "failure.json").exists():
        return "diverged"
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return "done" if state["finished"] else "open"
    except FileNotFoundError:
        return "open"
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder / 'state.json'}: expected what a training wrote, got something else") from error


def _changes(about: dict[str, Any], folder: Path) -> str:
    """What a run's config, task and model have other than their classes' defaults."""
    differing = config_of(about, folder).changes(TrainConfig())
    changed = {name: here for name, (here, _) in differing.items() if name not in NOT_TOLD}
    try:
        task, kind = task_of(about, str(folder)), find_class(about["model"], nn.Module, f"{folder}: its")
    except ValueError:  # a class that is elsewhere by now; its settings then are all told
        return " ".join(f"{name}={value}" for name, value in (changed | about["model"]["config"]).items())
    standard, own = type(task)().settings(), task.settings()
    changed |= {name: value for name, value in own.items() if value != standard[name]}
    for name, parameter in inspect.signature(kind).parameters.items():
        value = about["model"]["config"].get(name, parameter.default)
        value = tuple(value) if isinstance(value, list) else value
        changed |= {} if value == parameter.default else {name: value}
    return " ".join(f"{name}={value}" for name, value in changed.items())


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot_curves(
    runs: RunTable | Sequence[TrainingRun | str | Path], key: str = "loss", *, smooth: int = 1, ax: Any = None
) -> Any:
    """Curves of several runs over their steps, one above the other.

    Args:
        runs: a `RunTable`, or a list of runs or folders.
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
    for folder in (run.folder if isinstance(run, TrainingRun) else Path(run).expanduser() for run in folders):
        points = [(line["step"], line[key]) for line in read_metrics(folder) if key in line]
        if points:
            groups = [points[i : i + smooth] for i in range(0, len(points), smooth)]
            means = [sum(value for _, value in group) / len(group) for group in groups]
            curves[folder.name.partition("_")[2] or folder.name] = [group[-1][0] for group in groups], means
    if not curves:
        raise ValueError(f"key: expected a name in the runs' metrics.jsonl, got {key!r}")
    return learning_curves(curves, label=key.replace("_", " "), log="accuracy" not in key, ax=ax)
