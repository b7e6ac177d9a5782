"""A run while it runs: the model, what trains it, and how both come out of and go into a checkpoint."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast
from torch import nn

from flowlib.training import checkpoints
from flowlib.training.config import TrainConfig
from flowlib.training.data import check_data, describe_data
from flowlib.training.losses import fit_target_scale
from flowlib.training.optimisers import Averaged, choose_trained, make_optimizer
from flowlib.training.resume import check_same_run, still_finished
from flowlib.training.runs import read_metrics, versions
from flowlib.workspace import write_json


@dataclass(frozen=True)
class Run:
    """What `fit` leaves behind.

    Attributes:
        folder: config.json, metrics.jsonl, timings.jsonl, tensorboard/, last.pt, best.pt, pictures.
        step: optimiser steps done in all.
        finished: why it is done ("steps", "patience" or "stop_below"), or "" if the next call goes on.
        best_ade: the least validation error in pixels so far, None without validation.
    """

    folder: Path
    step: int
    finished: str
    best_ade: float | None

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the least validation error; the last one if nothing was validated."""
        return self.folder / "best.pt" if (self.folder / "best.pt").exists() else self.last

    def metrics(self, name: str = "metrics.jsonl") -> list[dict]:
        """The lines of metrics.jsonl, one for each step and one for each validation; or of timings.jsonl."""
        return read_metrics(self.folder, name)


@dataclass
class Session:
    """A run while it runs. `model` is the bare network, `network` the one that accelerate wrapped."""

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: Averaged | None
    accelerator: Accelerator
    config: TrainConfig
    folder: Path
    train: object
    validation: object
    about: dict  # what of the meta data stays the same
    step: int = 0
    best: float | None = None
    stale: int = 0  # validations since the best
    finished: str = ""
    clips: list[str] = field(default_factory=list)  # of the step that was last begun, on all processes

    @property
    def judged_model(self) -> nn.Module:
        """What is validated, shown and kept as the best: the averaged weights where there are any."""
        return self.averaged.model if self.averaged else self.model

    def run(self) -> Run:
        return Run(self.folder, self.step, self.finished, self.best)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """An accelerator for `config`; unlike accelerate's own, it may differ from an earlier one in the same process."""
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision=config.precision)
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision: 'fp16' expects a GPU, got a CPU, which would use float32; 'bf16' works there")
    return accelerator


def check_inputs(model: nn.Module, train, validation, config: TrainConfig) -> None:
    """Raise `ValueError` where data, model and config do not belong together; warn of what seldom goes well."""
    check_data(train, "train", model.num_frames)
    if validation is not None:
        check_data(validation, "validation", model.num_frames)
    if config.loss == "laplace" and not model.log_scale:
        raise ValueError("loss: 'laplace' expects a model made with log_scale=True, got one without")
    if model.batch_norm == "train" and config.batch_size == 1:
        if "deeplab" in model.config["backbone"]:
            raise ValueError("batch_size: DeepLab's image pooling needs 2 or more with batch_norm='train', got 1")
        warnings.warn(
            "batch_size=1 with batch_norm='train': statistics of one clip are noise and differ from those used in "
            "validation; use batch_norm='frozen' or 'group', or a larger batch",
            stacklevel=3,
        )
    if model.batch_norm == "frozen" and model.weights.startswith("none"):
        warnings.warn(
            "batch_norm='frozen' without pretrained weights normalises nothing; use 'group' or 'train'", stacklevel=3
        )


def open_session(model, train, validation, config: TrainConfig, folder: Path, accelerator: Accelerator) -> Session:
    """Build what trains, at the start or where the folder's last checkpoint stands."""
    about = {
        "model": checkpoints.describe_model(model),
        "weights": model.weights,
        "fit": config.to_json(),
        "data": {"train": describe_data(train), "validation": validation and describe_data(validation)},
        "processes": accelerator.num_processes,
        "versions": versions(),
    }
    tensors, meta = {}, {}
    if (folder / "last.pt").exists():
        tensors, meta = checkpoints.read_checkpoint(folder / "last.pt")
        checkpoints.check_architecture(folder / "last.pt", meta, model)
        check_same_run(folder, meta, about)
        model.load_state_dict(tensors["model"])
        about["weights"] = meta["weights"]
    else:
        model.target_scale.fill_(config.target_scale or fit_target_scale(train, model.frames))
    model.to(accelerator.device)
    if accelerator.num_processes > 1:  # all start as the first does, the average below included
        model.load_state_dict(broadcast(model.state_dict()))
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    choose_trained(model, config.trained)
    optimizer = make_optimizer(model, config)
    averaged = Averaged(model, config.ema_decay) if config.ema_decay else None
    if tensors:
        optimizer.load_state_dict(tensors["optimizer"])
        if averaged is not None:
            averaged.model.load_state_dict(tensors["ema"])
    network = torch.compile(model) if config.compile else model
    network, optimizer = accelerator.prepare(network, optimizer)
    if tensors.get("scaler"):
        accelerator.scaler.load_state_dict(tensors["scaler"])
    session = Session(model, network, optimizer, averaged, accelerator, config, folder, train, validation, about)
    if meta:
        session.step, session.best, session.stale = meta["step"], meta["best_ade"], meta["stale"]
        session.finished = still_finished(meta, config)
    return session


def release(session: Session) -> None:
    """Leave the model ready to predict, without what accelerate wrapped around its forward (for mixed precision)."""
    for name in ("forward", "_original_forward"):
        session.model.__dict__.pop(name, None)
    session.model.eval()


def save(session: Session, name: str) -> None:
    """Write last.pt (all that a resumed run needs) or best.pt (without the optimiser's state)."""
    scaler = session.accelerator.scaler
    tensors = {
        "model": session.model.state_dict(),
        "ema": session.averaged.model.state_dict() if session.averaged else {},
        "optimizer": session.optimizer.state_dict() if name == "last.pt" else {},
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    clips_per_step = session.config.accumulate * session.config.batch_size * session.accelerator.num_processes
    meta = session.about | {
        "step": session.step,
        "best_ade": session.best,
        "stale": session.stale,
        "finished": session.finished,
        "target_scale": float(session.model.target_scale),
        "rng": {"seed": session.config.seed, "step": session.step},
        "stream_position": session.step * clips_per_step,
    }
    checkpoints.save_checkpoint(session.folder / name, tensors, meta)
    if name == "last.pt":
        state = {key: meta[key] for key in ("step", "finished", "best_ade")}
        write_json(session.folder / "state.json", state)
