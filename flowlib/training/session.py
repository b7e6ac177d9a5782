"""A run while it runs: the model, what trains it, and how both come out of and go into a checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Subset

from flowlib.dataset.about import fingerprint_of, videos_of
from flowlib.devices import keep_freed_memory
from flowlib.models.protocols import HasProvenance, check_trainable
from flowlib.quantities import counted, duration
from flowlib.tasks.protocol import Task
from flowlib.training import checkpoints
from flowlib.training.config import FREE, TrainConfig
from flowlib.training.optim import averaged_model, choose_trained, make_optimizer
from flowlib.training.runs import minutes_of, read_metrics, versions, writing
from flowlib.workspace import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """What `fit` leaves behind.

    Attributes:
        folder: config.json, metrics.jsonl, timings.jsonl, tensorboard/, last.pt, best.pt, pictures.
        step: optimiser steps done in all.
        finished: why it is done ("steps", "patience" or "stop_at"), or "" if the next call goes on.
        best_score: the validation's best score so far, None without validation.
        steps: how many were asked for; with `schedule_over="minutes"`, once that is known, how many fit.
        note: why it ended there, where the clock had a say; else "".
    """

    folder: Path
    step: int
    finished: str
    best_score: float | None
    steps: int
    note: str = ""

    def __str__(self) -> str:
        reasons = {
            "steps": "done",
            "patience": "done, for validation got no better",
            "stop_at": "done, the goal is reached",
        }
        said = f"{self.step} of {counted(self.steps, 'step')}: "
        if self.finished:
            return said + "; ".join(filter(None, [reasons[self.finished], self.note]))
        left = duration(60 * minutes_of(self.folder) / max(1, self.step) * (self.steps - self.step))
        go_on = f"run it again to go on exactly there, for about {left} more"
        return said + "; ".join(filter(None, [self.note, go_on]))

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation; the last one if nothing was validated."""
        return self.folder / "best.pt" if (self.folder / "best.pt").exists() else self.last

    def metrics(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one for each step and one for each validation; or of timings.jsonl."""
        return read_metrics(self.folder, name)


@dataclass
class Session:
    """A run while it runs. `model` is the bare network, `network` the one that accelerate wrapped."""

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None
    accelerator: Accelerator
    task: Task
    config: TrainConfig
    folder: Path
    train: Any
    validation: Any
    constants: dict[str, float]  # that the task fitted
    about: dict[str, Any]  # what of the meta data stays the same
    step: int = 0
    best: float | None = None
    stale: int = 0  # validations since the best
    finished: str = ""
    whole: bool = True  # whether last.pt is what it was opened from, and may be kept when the next one is written
    planned: int = 0  # steps that fit into the time, where the schedule goes over it; 0 as long as nobody knows
    note: str = ""  # of the run that is left
    names: list[str] = field(default_factory=list)  # of the step that was last begun, on all processes

    @property
    def eval_model(self) -> nn.Module:
        """What is validated, shown and kept as the best: the averaged weights where there are any."""
        return self.averaged.module if self.averaged else self.model

    def run(self) -> TrainingRun:
        fitted = self.finished == "steps" and self.steps < self.config.steps
        note = f"as many of {self.config.steps} as fitted into the minutes" if fitted else self.note
        return TrainingRun(self.folder, self.step, self.finished, self.best, self.steps, note)

    @property
    def steps(self) -> int:
        """Optimiser steps in all: those asked for, or those that fit into the time. Schedules go over these."""
        return self.planned or self.config.steps


def make_accelerator(config: TrainConfig) -> Accelerator:
    """An accelerator for `config`; unlike accelerate's own, it may differ from an earlier one in the same process."""
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision=config.precision)
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision: 'fp16' expects a GPU, got a CPU, which would use float32; 'bf16' works there")
    return accelerator


def check_inputs(model: nn.Module, task: Task, train: Any, validation: Any, config: TrainConfig) -> None:
    """Raise `ValueError` where data, model, task and config don't belong together; warn of what seldom goes well."""
    check_trainable(model)
    if not isinstance(task, Task):
        raise ValueError(f"task: expected a Task, such as TrajectoryTask(), got {type(task).__name__}")
    if not isinstance(config, TrainConfig):
        raise ValueError(f"config: expected a TrainConfig, got {type(config).__name__}")
    for name, dataset in (("train", train), ("validation", validation)):
        if dataset is None and name == "validation":
            continue
        if not isinstance(dataset, Sized):
            raise ValueError(f"{name}: expected a dataset with a length, got {type(dataset).__name__}")
        if len(dataset) == 0:
            hint = "; validation=None trains without" if name == "validation" else ""
            raise ValueError(f"{name}: expected at least one {task.unit}, got an empty split{hint}")
        task.check(model, dataset, name)
    if validation is not None:
        task.metric(task.score)  # picks the best checkpoint
    _check_batch_norm(model, config)


def batch_statistics(model: nn.Module) -> list[BatchNorm]:
    """The batch norms that take the batch's statistics while the model is trained."""
    training = model.training
    model.train()
    moving = [module for module in model.modules() if isinstance(module, BatchNorm) and module.training]
    model.train(training)
    return moving


def _check_batch_norm(model: nn.Module, config: TrainConfig) -> None:
    moving = batch_statistics(model)
    if moving and config.batch_size == 1:
        if any(_normalises_one_value(module, moving) for module in model.modules()):
            raise ValueError(
                "batch_size: DeepLab's image pooling (a batch norm behind a pooling to 1×1) needs 2 or more with "
                "batch_norm='train', got 1"
            )
        warnings.warn(
            "batch_size=1 with batch_norm='train': statistics of one sample are noise and differ from those used in "
            "validation; use batch_norm='frozen' or 'group', or a larger batch",
            stacklevel=4,
        )
    frozen = not moving and any(isinstance(module, BatchNorm) for module in model.modules())
    if frozen and isinstance(model, HasProvenance) and model.weights.startswith("none"):
        warnings.warn(
            "batch_norm='frozen' without pretrained weights normalises nothing; use 'group' or 'train'", stacklevel=4
        )


def _normalises_one_value(module: nn.Module, moving: list[BatchNorm]) -> bool:
    """Whether a sequence pools a picture to one value and has one of the batch norms `moving` behind that."""
    layers = list(module) if isinstance(module, nn.Sequential) else []
    pools = [i for i, m in enumerate(layers) if isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1))]
    return bool(pools) and any(layer in moving for layer in layers[pools[0] :])


def describe_data(task: Task, dataset: Any) -> dict[str, Any]:
    """Length, fingerprint, videos' fingerprints and more of a dataset, as JSON; a `Subset` adds what it holds."""
    if isinstance(dataset, Subset):
        whole = describe_data(task, dataset.dataset)
        chosen = hashlib.sha256(repr([int(i) for i in dataset.indices]).encode()).hexdigest()[:16]
        return whole | {"samples": len(dataset), "fingerprint": f"{whole['fingerprint']}[{chosen}]"}
    # A list says nothing of what it holds: going on with other samples of the same number has to show.
    fingerprint = fingerprint_of(dataset) or _hash_of_samples(task, dataset)
    known = {"fingerprint": fingerprint, "videos": list(videos_of(dataset).values())}
    return {"samples": len(dataset)} | task.describe_data(dataset) | known


def _hash_of_samples(task: Task, dataset: Any) -> str:
    """SHA-256 of up to 1,000 samples, spread evenly; "" where the task can't say what a sample holds."""
    digest = hashlib.sha256()
    try:
        for index in range(0, len(dataset), -(-len(dataset) // 1000)):
            digest.update(task.identify(dataset, index, dataset[index]).content.encode())
    except TypeError:
        return ""
    return digest.hexdigest()


def check_same_run(folder: Path, meta: dict[str, Any], about: dict[str, Any], free: tuple[str, ...]) -> None:
    """Raise `ValueError` if going on in `folder` would join two different runs into one curve.

    What the curve does not depend on may differ (`config.FREE`, and the task's `free`); more steps may be asked for
    where the learning rate does not depend on their number.
    """
    now = TrainConfig(**about["config"])
    changes = checkpoints.config_of(meta, folder).changes(now)
    differing = {name: pair for name, pair in changes.items() if name not in FREE}
    if now.schedule == "constant" and now.steps >= meta["step"]:
        differing.pop("steps", None)
    was, asked = meta["task"], about["task"]
    if was["name"] != asked["name"]:
        differing["task"] = (was["name"], asked["name"])
    else:
        pairs = {name: (value, asked["settings"].get(name)) for name, value in was["settings"].items()}
        differing |= {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and name not in free}
    if differing:
        what = ", ".join(f"{name}={was!r}, not {asked!r}" for name, (was, asked) in differing.items())
        raise ValueError(f"{folder}: expected a run with the same settings, got one with {what}; give it another name")
    was, asked = meta["processes"], about["processes"]
    if was != asked:
        raise ValueError(f"{folder}: expected a run on {asked} processes, got one on {was}: a step has other samples")
    for split in ("train", "validation"):
        was, asked = meta["data"][split], about["data"][split]
        if was and asked and not was["fingerprint"]:  # of a list, before lists had one
            was = was | {"fingerprint": asked["fingerprint"]}
        if was != asked:
            raise ValueError(f"{folder}: expected a run on the same {split} data {asked}, got one on {was}")


def _tell_differences(folder: Path, meta: dict[str, Any], about: dict[str, Any], finished: str) -> None:
    """Warn of what rounds otherwise than before, so that the curve is no longer bit for bit the undisturbed one."""
    was, now = (
        one.get("machine", {})
        | {"num_workers": one["config"]["num_workers"], "torch": one.get("versions", {}).get("torch")}
        for one in (meta, about)
    )
    differing = [f"{name} {now[name]} (before: {was[name]})" for name in was if was[name] != now[name]]
    if differing and not finished:
        warnings.warn(
            f"{folder}: goes on with {', '.join(differing)}: sums may be rounded in another way, so the curve may "
            "differ in its last digits from one that was never stopped",
            stacklevel=4,
        )


def still_finished(meta: dict[str, Any], task: Task, config: TrainConfig) -> str:
    """Why a run needs no more steps under `config`, or "": it may ask for more steps or a better score than before."""
    if meta["step"] >= config.steps:
        return "steps"
    if config.patience and meta["stale"] >= config.patience:
        return "patience"
    return "stop_at" if is_better(task, meta["best_score"], config.stop_at) else ""


def is_better(task: Task, score: float | None, other: float | None) -> bool:
    """Whether a score beats another one; None beats nothing and is beaten by nothing, and NaN likewise."""
    if score is None or other is None:
        return False
    rank = task.metric(task.score).rank
    return rank(score) < rank(other)


def open_session(
    model: nn.Module, task: Task, train: Any, validation: Any, config: TrainConfig, folder: Path,
    accelerator: Accelerator,
) -> Session:  # fmt: skip
    """Build what trains, at the start or where the folder's last checkpoint stands."""
    about = {
        "model": checkpoints.describe_model(model),
        "weights": model.weights if isinstance(model, HasProvenance) else None,
        "task": checkpoints.place_of(task) | {"settings": task.settings()},
        "score": {"name": task.score, "better": task.metric(task.score).better if task.metrics else ""},
        "config": config.to_json(),
        "data": {"train": describe_data(task, train), "validation": validation and describe_data(task, validation)},
        "processes": accelerator.num_processes,
        "versions": versions(),
        "machine": {"device": accelerator.device.type, "torch threads": torch.get_num_threads()},
    }
    about = json.loads(json.dumps(about))  # as it will be read again, that is without tuples
    tensors, meta, whole = checkpoints.read_last(folder)
    if meta:
        checkpoints.check_architecture(folder / "last.pt", meta, model)
        check_same_run(folder, meta, about, task.free)
        checkpoints.fill(folder / "last.pt", model, tensors["model"])
        about["weights"] = meta["weights"]
        constants = meta["constants"]
    else:
        constants = task.prepare(model, train)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    model.to(accelerator.device)
    if accelerator.num_processes > 1:  # all start as the first does, the average below included
        model.load_state_dict(broadcast(model.state_dict()))
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    choose_trained(model, config.trained)
    optimizer = make_optimizer(model, config)
    averaged = averaged_model(model, config.ema_decay, meta.get("step", 0)) if config.ema_decay else None
    if tensors:
        try:
            optimizer.load_state_dict(tensors["optimizer"])
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            raise ValueError(f"{folder / 'last.pt'}: expected the state of the same optimiser, got another") from error
        if averaged is not None:
            checkpoints.fill(folder / "last.pt", averaged.module, tensors["ema"])
    network: Any = torch.compile(model) if config.compile else model
    network, optimizer = accelerator.prepare(network, optimizer)
    if tensors.get("scaler") and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(tensors["scaler"])
    session = Session(
        model, network, optimizer, averaged, accelerator, task, config, folder, train, validation, constants, about
    )
    if meta:
        session.step, session.best, session.stale = meta["step"], meta["best_score"], meta["stale"]
        session.planned = int(meta.get("planned", 0))
        session.finished = still_finished(meta, task, replace(config, steps=session.steps))
        session.whole = whole
        _tell_differences(folder, meta, about, session.finished)
    return session


def release(session: Session) -> None:
    """Leave the model ready to predict, without what accelerate wrapped around its forward (for mixed precision)."""
    for name in ("forward", "_original_forward"):
        session.model.__dict__.pop(name, None)
    session.model.eval()
    # What it has seen, so that an evaluation on the same videos is refused, as it is for a loaded checkpoint.
    object.__setattr__(session.model, "trained_on", tuple(session.about["data"]["train"]["videos"]))


def save(session: Session, name: str) -> None:
    """Write last.pt (all that a resumed run needs) or best.pt (without the optimiser's state)."""
    scaler = session.accelerator.scaler
    tensors = {
        "model": session.model.state_dict(),
        "ema": session.averaged.module.state_dict() if session.averaged else {},
        "optimizer": session.optimizer.state_dict() if name == "last.pt" else {},
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    per_step = session.config.accumulate * session.config.batch_size * session.accelerator.num_processes
    meta = session.about | {
        "step": session.step,
        "best_score": session.best,
        "stale": session.stale,
        "finished": session.finished,
        "planned": session.planned,
        "constants": session.constants,
        "rng": {"seed": session.config.seed, "step": session.step},
        "stream_position": session.step * per_step,
    }
    checkpoints.save_checkpoint(session.folder / name, tensors, meta, keep=name == "last.pt" and session.whole)
    session.whole = session.whole or name == "last.pt"
    logger.debug("%s: step %d is saved", session.folder / name, session.step)
    if name == "last.pt":
        state = {key: meta[key] for key in ("step", "finished", "best_score")}
        with writing(session.folder / "state.json"):
            write_json(session.folder / "state.json", state)
