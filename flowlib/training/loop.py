"""`fit`: the training loop, from the data's first look to the last checkpoint, on one process or several.

The loop is meant to be read: `_train` is all of it. What a step draws at random is seeded by (seed, step, process), so
a run that was killed and is called again gives bit for bit the curve of an undisturbed one on a CPU.
"""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from tqdm.auto import tqdm

from flowlib.training import checkpoints
from flowlib.training.config import FitConfig
from flowlib.training.data import check_data, describe_data
from flowlib.training.losses import fit_target_scale, loss_sums, make_targets, total_loss
from flowlib.training.optimisers import Averaged, choose_trained, make_optimizer, set_rates
from flowlib.training.resume import check_same_run
from flowlib.training.runs import MetricsLog, read_metrics, run_folder, versions
from flowlib.training.spikes import StatisticsWatch
from flowlib.training.stream import ClipStream, mix, to_device, training_batches, validation_batches
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

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl, one for each step and one for each validation."""
        return read_metrics(self.folder)


@dataclass
class _Session:
    """A run while it runs. `model` is the bare network, `network` the one that accelerate wrapped."""

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: Averaged | None
    accelerator: Accelerator
    config: FitConfig
    folder: Path
    train: object
    validation: object
    about: dict  # what of the meta data stays the same
    step: int = 0
    best: float | None = None
    stale: int = 0  # validations since the best
    finished: str = ""
    clips: list[str] = field(default_factory=list)

    def run(self) -> Run:
        return Run(self.folder, self.step, self.finished, self.best)


def fit(
    model: nn.Module, train, validation=None, config: FitConfig | None = None, *, folder: str | Path | None = None
) -> Run:
    """Train a model, or go on where an earlier call with the same arguments stopped.

    Args:
        model: for example a `TrajectoryFCN`; ends with the last weights (`load_checkpoint(run.best)` gives the best).
        train: dataset of samples; see `flowlib.dataset.TrajectoryDataset`.
        validation: the same, to choose the best checkpoint and to stop early, or None.
        config: how to train.
        folder: the run's; by default the newest run of `config.name` in the workspace, or a new one.

    Returns:
        The run. A call that finds it finished says so and returns at once, with its weights in `model`.

    Raises:
        ValueError: an empty dataset, clips of another length, a folder that holds a run with other settings.
        FloatingPointError: the loss is no number any more; the last good checkpoint stays, the batch is named.
        MemoryError: the device is too small; the message says what to change.
    """
    config = FitConfig() if config is None else config
    folder = run_folder(config.name) if folder is None else Path(folder)
    _check_inputs(model, train, validation, config)
    accelerator = make_accelerator(config)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the caller's random numbers go on as if nothing had happened
        session = _open(model, train, validation, config, folder, accelerator)
        if session.finished:
            accelerator.print(f"The work is done: {session.step} steps in {folder} (ended by {session.finished}).")
            return session.run()
        try:
            _train(session)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(_advice(config)) from error
    return session.run()


def make_accelerator(config: FitConfig) -> Accelerator:
    """An accelerator for `config`; unlike accelerate's own, it may differ from an earlier one in the same process."""
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=config.device == "cpu", mixed_precision=config.precision)


def _check_inputs(model: nn.Module, train, validation, config: FitConfig) -> None:
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


def _open(model, train, validation, config: FitConfig, folder: Path, accelerator: Accelerator) -> _Session:
    """Build what trains, at the start or where the folder's last checkpoint stands."""
    about = {
        "model": checkpoints.describe_model(model),
        "weights": model.weights,
        "fit": config.to_json(),
        "data": {"train": describe_data(train), "validation": validation and describe_data(validation)},
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
    session = _Session(model, network, optimizer, averaged, accelerator, config, folder, train, validation, about)
    if meta:
        session.step, session.best, session.stale = meta["step"], meta["best_ade"], meta["stale"]
        more = meta["finished"] == "steps" and config.steps > session.step
        session.finished = "" if more else meta["finished"]
    return session


def _train(session: _Session) -> None:
    """The loop: step, log, validate, save; until the steps, the patience or the session's time are used up."""
    config, accelerator = session.config, session.accelerator
    started, main = time.monotonic(), accelerator.is_main_process
    if main:
        session.folder.mkdir(parents=True, exist_ok=True)
        write_json(session.folder / "config.json", session.about)
        if session.step == 0:
            _save(session, "last.pt")
    log = MetricsLog(session.folder, resume_at=session.step) if main else None
    watch = StatisticsWatch(session.model)
    stream = ClipStream(session.train, session.model.input_frames, seed=config.seed, augment=config.augment)
    batches = training_batches(
        stream,
        steps=range(session.step, config.steps),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=config.num_workers,
    )
    session.network.train()
    bar = tqdm(total=config.steps, initial=session.step, desc=config.name, disable=not main, unit="step")
    while session.step < config.steps and not session.finished:
        before = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - before
        values = train_step(session, batch) | watch.read()
        session.step += 1
        values = {"step": session.step} | values | {"clips": session.clips}
        bar.update()
        bar.set_postfix(loss=f"{values['loss']:.3g}", ade=f"{values['ade']:.2f} px", refresh=False)
        if main:
            log.write(values)
            seconds = {"data_seconds": waited, "step_seconds": time.perf_counter() - before}
            log.write({"step": session.step} | seconds, "timings.jsonl")
        if session.step == config.steps:
            session.finished = "steps"
        if session.validation is not None and _due(session, config.validate_every):
            _judge(session, log)
        stop = session.finished or _time_is_up(session, started)
        if main and (stop or session.step % config.save_every == 0):
            log.flush()
            _save(session, "last.pt")
        if stop:
            break
    bar.close()
    if main:
        log.close()
    accelerator.wait_for_everyone()


def _due(session: _Session, every: int) -> bool:
    return session.step % every == 0 or session.step == session.config.steps


def _time_is_up(session: _Session, started: float) -> bool:
    minutes = session.config.session_minutes
    late = torch.tensor(float(minutes > 0 and time.monotonic() - started > 60 * minutes))
    return bool(session.accelerator.reduce(late.to(session.accelerator.device), "sum") > 0)  # all stop, or none


def train_step(session: _Session, batches: list[dict]) -> dict:
    """One optimiser step over the given batches; returns what is logged of it."""
    config, accelerator, model = session.config, session.accelerator, session.model
    torch.manual_seed(mix(config.seed, session.step, accelerator.process_index))
    session.clips = [clip for batch in batches for clip in batch["clip"]]
    rate = set_rates(session.optimizer, session.step, config)
    batches = [to_device(batch, accelerator.device) for batch in batches]
    targets = [make_targets(batch, model.frames) for batch in batches]
    counts = accelerator.reduce(torch.stack([target.counts(config.masked) for target in targets]).sum(dim=0), "sum")
    sums = torch.zeros(4, device=accelerator.device)
    for index, (batch, target) in enumerate(zip(batches, targets)):
        last = index == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(session.network):
            part = loss_sums(session.network(batch["images"]), target, config, model.target_scale)
            # Processes' gradients are averaged, yet `counts` already is of all of them.
            loss = total_loss(part, counts, config.visibility_weight) * accelerator.num_processes
            accelerator.backward(loss)
        sums += part.detach()
    sums = accelerator.reduce(sums, "sum")
    values = _means(sums, counts, config, len(model.frames)) | {"lr": rate}
    values["grad_norm"] = float(_clip(session))
    _check_finite(session, values)
    session.optimizer.step()
    session.optimizer.zero_grad()
    if session.averaged is not None:
        session.averaged.update(model, session.step)
    return values


def _clip(session: _Session) -> Tensor:
    """Clip the gradients as the config says; returns their norm before."""
    config, accelerator = session.config, session.accelerator
    parameters = [p for p in session.network.parameters() if p.grad is not None]
    bound = config.clip_at if config.clip == "norm" else float("inf")
    norm = accelerator.clip_grad_norm_(parameters, bound)
    if config.clip == "value":
        torch.nn.utils.clip_grad_value_(parameters, config.clip_at)
    return norm


def _check_finite(session: _Session, values: dict) -> None:
    """Stop before the weights take harm; with fp16 the scaler skips steps whose gradients overflow by itself."""
    names = ("loss",) if session.config.precision == "fp16" else ("loss", "grad_norm")
    broken = [f"{name} is {values[name]}" for name in names if not torch.isfinite(torch.tensor(values[name]))]
    if broken:
        raise FloatingPointError(
            f"step {session.step + 1}: the {' and the '.join(broken)} for the batch of clips "
            f"{', '.join(session.clips)}; the last good checkpoint is {session.folder / 'last.pt'}; "
            "try a lower learning rate, warmup_steps or clip='norm'"
        )


def _means(sums: Tensor, counts: Tensor, config: FitConfig, num_frames: int) -> dict[str, float]:
    """Losses and errors from their sums, as plain numbers; errors are None where nothing was measured."""
    loss = total_loss(sums, counts, config.visibility_weight)
    displacement, visibility, pixels, right = sums.tolist()
    points, told, measured = counts.tolist()
    ahead = told * (num_frames - 1) / num_frames if num_frames > 1 else told
    return {
        "loss": float(loss),
        "displacement_loss": displacement / max(points, 1),
        "visibility_loss": visibility / max(told, 1),
        "ade": pixels / max(measured, 1),
        "visibility_accuracy": right / max(ahead, 1),
    }


@torch.no_grad()
def validate(model: nn.Module, dataset, config: FitConfig, accelerator: Accelerator) -> dict[str, float]:
    """Losses and errors over a dataset, in evaluation mode; errors in pixels of its frames."""
    model.eval()
    stream = ClipStream(dataset, model.input_frames)
    batches = validation_batches(
        stream,
        clips=config.validation_clips,
        batch_size=config.batch_size,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=config.num_workers,
    )
    sums, counts = torch.zeros(4, device=accelerator.device), torch.zeros(3, device=accelerator.device)
    for batch in batches:
        batch = to_device(batch, accelerator.device)
        targets = make_targets(batch, model.frames)
        with accelerator.autocast():
            prediction = model(batch["images"])
        sums += loss_sums(prediction, targets, config, model.target_scale)
        counts += targets.counts(config.masked)
    return _means(accelerator.reduce(sums, "sum"), accelerator.reduce(counts, "sum"), config, len(model.frames))


def _judge(session: _Session, log: MetricsLog | None) -> None:
    """Validate, keep the checkpoint if it is the best, and decide whether to stop."""
    config = session.config
    model = session.averaged.model if session.averaged else session.model
    values = validate(model, session.validation, config, session.accelerator)
    session.network.train()
    session.stale += 1
    if session.best is None or values["ade"] < session.best:
        session.best, session.stale = values["ade"], 0
    if config.patience and session.stale >= config.patience:
        session.finished = session.finished or "patience"
    if values["ade"] < config.stop_below:
        session.finished = session.finished or "stop_below"
    if log is not None:
        log.write({"step": session.step} | {f"validation_{key}": value for key, value in values.items()})
        if session.stale == 0:
            _save(session, "best.pt")


def _save(session: _Session, name: str) -> None:
    scaler = session.accelerator.scaler
    tensors = {
        "model": session.model.state_dict(),
        "ema": session.averaged.model.state_dict() if session.averaged else {},
        "optimizer": session.optimizer.state_dict() if name == "last.pt" else {},
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    meta = session.about | {
        "step": session.step,
        "best_ade": session.best,
        "stale": session.stale,
        "finished": session.finished,
        "target_scale": float(session.model.target_scale),
        "rng": {"seed": session.config.seed, "step": session.step},
        "stream_position": session.step * session.config.accumulate * session.config.batch_size,
    }
    checkpoints.save_checkpoint(session.folder / name, tensors, meta)


def _advice(config: FitConfig) -> str:
    half = max(1, config.batch_size // 2)
    more = config.accumulate * config.batch_size // half
    return (
        f"the device has too little memory for batch_size={config.batch_size}: try batch_size={half} with "
        f"accumulate={more} (the same step), precision='bf16', a smaller crop, or ask largest_batch(model, train)"
    )
