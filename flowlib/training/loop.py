"""`fit`: the training loop, from the data's first look to the last checkpoint, on one process or several.

The loop is meant to be read: `_train` is all of it. What a step draws at random is seeded by (seed, step, process), so
a run that was killed and is called again gives bit for bit the curve of an undisturbed one on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from contextlib import nullcontext
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from flowlib.devices import cpu_threads
from flowlib.progress import Progress
from flowlib.tasks.protocol import Task
from flowlib.training.config import TrainConfig
from flowlib.training.optim import rate_factor, set_rates
from flowlib.training.runs import BatchNormDrift, MetricsLog, alone_in, read_metrics, run_folder, writing
from flowlib.training.session import (
    Session,
    TrainingRun,
    check_inputs,
    is_better,
    make_accelerator,
    open_session,
    release,
    save,
)
from flowlib.training.stream import SampleStream, mix, to_device, training_batches, validation_batches
from flowlib.workspace import atomic_write, write_json

logger = logging.getLogger(__name__)

TIMED_SHARE = 0.1  # of a session, after which the steps that fit into it are counted
SPARE_SHARE = 0.05  # of a session that is left unplanned, for steps that take longer and for checkpoints


def fit(
    model: nn.Module,
    task: Task,
    train: Any,
    validation: Any = None,
    config: TrainConfig | None = None,
    *,
    folder: str | Path | None = None,
) -> TrainingRun:
    """Train a model, or go on where an earlier call with the same arguments stopped.

    Where `config.session_minutes` end a call before its steps are done, the next one goes on exactly there: schedules
    are functions of the step, over all `steps`. With `schedule_over="minutes"` the first call is to finish within its
    minutes: after a tenth of them it counts how many of the steps fit, the cosine falls over these from then on, and
    the checkpoint keeps their number, the only thing that depends on the clock.

    Args:
        model: see `models.protocols.TrainableModel`; ends with the last weights (`load_checkpoint(run.best)` gives the
            best).
        task: what is learned, for example `tasks.trajectories.TrajectoryTask()`.
        train: the samples, as the task takes them: a sequence, for example a `TrajectoryDataset`.
        validation: the same, to choose the best checkpoint and to stop early, or None.
        config: how to train.
        folder: the run's; by default the newest run of `config.name` in the workspace, or a new one. It is locked while
            it is trained into, for this machine's processes: two machines must not use one.

    Returns:
        The run. A call that finds it finished says so and returns at once, with its weights in `model`.

    Raises:
        ValueError: an empty dataset, data that model or task don't go with or nothing can be learned from, a folder
            that holds a run with other settings, or one that has lost its checkpoints.
        BlockingIOError: another training is writing into the folder.
        OSError: the disk refuses a file; the last checkpoint stays.
        FloatingPointError: the loss is no number any more; the last good checkpoint stays, the batch is named.
        MemoryError: the device is too small; the message says what to change.
    """
    config = TrainConfig() if config is None else config
    check_inputs(model, task, train, validation, config)
    accelerator = make_accelerator(config)
    named = run_folder(config.name) if folder is None else Path(folder).expanduser()
    folder = broadcast_object_list([named])[0]  # processes may read their clocks in different seconds
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    lock = alone_in(folder) if accelerator.is_main_process else nullcontext()
    drawing = torch.random.fork_rng(devices)  # the caller's random numbers go on as if nothing had happened
    with lock, cpu_threads(config.threads), drawing:
        session = open_session(model, task, train, validation, config, folder, accelerator)
        accelerator.wait_for_everyone()  # none writes while another still reads
        try:
            logger.info("%s: from step %d to %d on %s", folder, session.step, session.steps, accelerator.device)
            if not session.whole and accelerator.is_main_process:
                save(session, "last.pt")
            if session.finished:
                accelerator.print(f"{folder}: {session.run()}.")
            else:
                _train(session)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(_advice(config)) from error
        finally:
            release(session)
    return session.run()


def _train(session: Session) -> None:
    """The loop: step, log, validate, save; until the steps, the patience or the session's time are used up."""
    config, started = session.config, time.monotonic()
    log = _start_log(session)
    learned = any(session.task.score in line for line in read_metrics(session.folder))
    drift = BatchNormDrift(session.model)
    batches = training_batches(
        SampleStream(session.task, session.model, session.train, seed=config.seed),
        steps=range(session.step, session.steps),
        accumulate=config.accumulate,
        **_shares(config, session.accelerator),
    )
    main = session.accelerator.is_main_process
    bar = Progress(None, config.name, session.steps, "step", initial=session.step, disable=not main)
    session.network.train()
    clock = _Clock(session)
    try:
        stop = ""
        while not stop:
            before = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - before
            values = train_step(session, batch) | drift.read()
            session.step += 1
            log.write({"step": session.step} | values | {f"{session.task.unit}s": session.names})
            seconds = {"data_seconds": waited, "step_seconds": time.perf_counter() - before}
            log.write({"step": session.step} | seconds, "timings.jsonl")
            learned = learned or _has_learned(session, values)
            bar.set_postfix(_shown(session.task, values), refresh=False)
            bar.update()
            if session.validation is not None and _due(session, config.validate_every):
                _validate(session, log)
            if config.picture_every and _due(session, config.picture_every) and main:
                _picture(session)
            planned = clock.plan(session, log)
            bar.total = session.steps
            if session.step >= session.steps:
                session.finished = "steps"
            stop = session.finished or _time_is_up(session, started)
            if main and (stop or planned or session.step % config.save_every == 0):
                log.flush()  # before the checkpoint, so that no step that is saved lacks its line
                save(session, "last.pt")
    finally:
        bar.close()
        log.close()
    session.accelerator.wait_for_everyone()


def _start_log(session: Session) -> MetricsLog:
    """The run's folder with its config and, at the very start, a checkpoint to fall back on; and its metrics."""
    if session.accelerator.is_main_process:
        for name in (".*.pt.*", ".*.json.*", ".*.jsonl.*"):  # what a kill left of a checkpoint, up to half a gigabyte
            for halved in session.folder.glob(f"{name}.part"):
                halved.unlink()
        with writing(session.folder / "config.json"):
            write_json(session.folder / "config.json", session.about)
        if session.step == 0:
            save(session, "last.pt")
    return MetricsLog(session.folder, resume_at=session.step, quiet=not session.accelerator.is_main_process)


def _has_learned(session: Session, values: dict[str, Any]) -> bool:
    """Whether a step had anything to learn from. Raises `ValueError` where none had in a pass over the data, or in all
    steps: the task's score was never there."""
    config, task, score = session.config, session.task, values.get(session.task.score, 0.0)
    if score == score:
        return True
    samples = session.step * config.accumulate * config.batch_size * session.accelerator.num_processes
    if samples >= len(session.train) or session.step >= session.steps:
        over = f" {task.measured_on}" if task.measured_on else ""
        raise ValueError(
            f"train: expected {task.unit}s whose {task.score} can be measured{over}, got none in {session.step} steps "
            f"over {samples} {task.unit}s: nothing was learned; look at the labels"
        )
    return False


def _shares(config: TrainConfig, accelerator: Accelerator) -> dict[str, int]:
    """How batches are made and shared among the processes."""
    place = {"process": accelerator.process_index, "processes": accelerator.num_processes}
    return {"batch_size": config.batch_size, "workers": config.num_workers} | place


def _due(session: Session, every: int) -> bool:
    return session.step % every == 0 or session.step >= session.steps


def _time_is_up(session: Session, started: float) -> str:
    minutes, accelerator = session.config.session_minutes, session.accelerator
    late = torch.tensor(float(minutes > 0 and time.monotonic() - started > 60 * minutes), device=accelerator.device)
    late_anywhere = float(torch.as_tensor(accelerator.reduce(late, "sum"))) > 0  # all processes stop, or none
    if not late_anywhere:
        return ""
    rate = rate_factor(session.step, session.config, session.steps)
    still = "" if session.config.schedule == "constant" else f" with the learning rate at {rate:.0%} of its highest"
    session.note = f"session_minutes={minutes:g} are over{still}" * (not session.finished)
    return "session_minutes"


class _Clock:
    """Finds how many steps fit into a session, where the schedule goes over minutes."""

    def __init__(self, session: Session) -> None:
        self.began, self.first = time.monotonic(), session.step
        self.warm = 0.0  # seconds of the first step, which sets things up

    def plan(self, session: Session, log: MetricsLog) -> bool:
        """Once enough steps are timed, decide on their number; whether that was done now."""
        config, accelerator = session.config, session.accelerator
        if config.schedule_over == "steps" or session.planned:
            return False
        spent, done, budget = time.monotonic() - self.began, session.step - self.first, 60 * config.session_minutes
        self.warm = self.warm or spent
        enough = torch.tensor(float(spent > TIMED_SHARE * budget and done > 1), device=accelerator.device)
        if not float(torch.as_tensor(accelerator.reduce(enough, "sum"))):  # all processes plan, or none
            return False
        seconds = (spent - self.warm) / max(1, done - 1)  # with what was validated meanwhile
        if (
            session.validation is not None
            and session.step // config.validate_every == self.first // config.validate_every
        ):
            before = time.monotonic()
            _validate(session, log)
            seconds += (time.monotonic() - before) / config.validate_every
        left = budget * (1 - SPARE_SHARE) - (time.monotonic() - self.began)
        fit = session.step + max(1, int(left / max(seconds, 1e-9)))
        session.planned = broadcast_object_list([min(config.steps, fit)])[0]
        logger.info("%s: %d steps of %.2f s fit into %g minutes", session.folder, session.planned, seconds, budget / 60)
        return True


def _validate(session: Session, log: MetricsLog) -> None:
    """Validate, keep the checkpoint if it is the best, and decide whether to stop."""
    config, task = session.config, session.task
    values = validate(session.eval_model, task, session.validation, config, session.accelerator, session.constants)
    session.network.train()
    session.stale += 1
    score = values[task.score]
    if score != score and math.isfinite(values.get("loss", 0.0)):  # else it diverges, which the next step says
        over = f" {task.measured_on}" if task.measured_on else ""
        warnings.warn(f"validation: {task.score} can't be measured{over} in any {task.unit}: no best.pt", stacklevel=4)
    if is_better(task, score, session.best) or (session.best is None and score == score):  # never where nothing counted
        session.best, session.stale = score, 0
    if config.patience and session.stale >= config.patience:
        session.finished = "patience"
    if is_better(task, score, config.stop_at):
        session.finished = "stop_at"
    log.write({"step": session.step} | {f"validation_{key}": value for key, value in values.items()})
    if session.stale == 0 and session.accelerator.is_main_process:
        save(session, "best.pt")


def _picture(session: Session) -> None:
    """Save what the task shows of the first samples."""
    from flowlib import plots

    figure = session.task.figure(session.eval_model, session.validation or session.train, 2)
    session.network.train()
    if figure is not None:
        path = session.folder / "pictures" / f"step_{session.step:06d}.png"
        with writing(path), atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=80)
        plots.plt.close(figure)  # else a notebook would show it, and every figure would stay in memory


def _shown(task: Task, values: dict[str, Any]) -> dict[str, str]:
    """What the progress bar tells."""
    shown = {"loss": f"{values['loss']:.3g}"}
    if task.score in values and task.metrics:
        metric = task.metric(task.score)
        shown[task.score] = f"{metric.show(values[task.score])} {metric.unit}".strip()
    return shown


def _advice(config: TrainConfig) -> str:
    half = max(1, config.batch_size // 2)
    more = config.accumulate * config.batch_size // half
    return (
        f"the device has too little memory for batch_size={config.batch_size}: try batch_size={half} with "
        f"accumulate={more} (the same step), precision='bf16', a smaller crop, or ask largest_batch(model, train)"
    )


def train_step(session: Session, batches: list[dict[str, Any]]) -> dict[str, Any]:
    """One optimiser step over the given batches; returns what is logged of it."""
    config, accelerator, task = session.config, session.accelerator, session.task
    torch.manual_seed(mix(config.seed, session.step, accelerator.process_index))
    session.names = gather_object([name for batch in batches for name in batch["name"]])
    rate = set_rates(session.optimizer, session.step, config, session.steps)
    batches = [to_device(batch, accelerator.device) for batch in batches]
    counts: Any = accelerator.reduce(torch.stack([task.counts(batch) for batch in batches]).sum(dim=0), "sum")
    parts = []
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(session.network):
            part = task.sums(session.network, batch, session.constants)
            loss = task.total_loss(part, counts)
            if not loss.requires_grad:
                raise ValueError("model: expected a prediction that its trained parameters decide, got a detached one")
            # Processes' gradients are averaged, yet `counts` already is of all of them.
            accelerator.backward(loss * accelerator.num_processes)
        parts.append(part.detach())
    sums: Any = accelerator.reduce(reduce(add, parts), "sum")
    needed = ["loss"] if session.validation is None else ["loss", task.score]  # said at once, not after many steps
    values = _values(task, sums, counts, needed) | {"lr": rate}
    values["grad_norm"] = float(_clip(session))
    _check_finite(session, values)
    session.optimizer.step()
    session.optimizer.zero_grad()
    if session.averaged is not None:
        session.averaged.update_parameters(session.model)
    return values


def _clip(session: Session) -> Tensor:
    """Clip the gradients as the config says; returns their norm before."""
    config, accelerator = session.config, session.accelerator
    parameters = [p for p in session.network.parameters() if p.grad is not None]
    bound = config.clip_at if config.clip == "norm" else float("inf")
    norm = accelerator.clip_grad_norm_(parameters, bound)
    if config.clip == "value":
        torch.nn.utils.clip_grad_value_(parameters, config.clip_at)
    return torch.as_tensor(norm)


def _check_finite(session: Session, values: dict[str, Any]) -> None:
    """Stop before the weights take harm; with fp16 the scaler skips steps whose gradients overflow by itself."""
    names = ("loss",) if session.config.precision == "fp16" else ("loss", "grad_norm")
    broken = [f"{name} is {values[name]}" for name in names if not torch.isfinite(torch.tensor(values[name]))]
    if broken:
        raise FloatingPointError(
            f"step {session.step + 1}: the {' and the '.join(broken)} for the batch of {session.task.unit}s "
            f"{', '.join(session.names)}; the last good checkpoint is {session.folder / 'last.pt'}; "
            "try a lower learning rate, warmup_steps or clip='norm'"
        )


@torch.no_grad()
def validate(
    model: nn.Module, task: Task, dataset: Any, config: TrainConfig, accelerator: Accelerator,
    constants: dict[str, float],
) -> dict[str, float]:  # fmt: skip
    """The task's values over a dataset, in evaluation mode."""
    model.eval()
    stream, shares = SampleStream(task, model, dataset), _shares(config, accelerator)
    batches = validation_batches(stream, samples=config.validation_samples, **shares)
    network, found = _Autocast(model, accelerator), []
    for batch in batches:
        batch = to_device(batch, accelerator.device)
        found.append((task.sums(network, batch, constants), task.counts(batch)))
    # A process may have had no samples, so that only lists can be put together.
    sums, counts = _totals(gather_object([tuple(value.cpu() for value in _totals(found))] if found else []))
    return _values(task, sums, counts, [task.score])


def _values(task: Task, sums: Tensor, counts: Tensor, needed: list[str]) -> dict[str, Any]:
    """What the task makes of sums and counts; raises `ValueError` where it lacks what is needed."""
    values = task.values(sums, counts)
    missing = [name for name in needed if name not in values]
    if missing:
        given = ", ".join(values) or "nothing"
        raise ValueError(f"task: expected {missing[0]!r} in what {type(task).__name__}.values gives, got {given}")
    return values


def _totals(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Sums and counts of several batches together, one after the other."""
    return tuple(reduce(add, parts) for parts in zip(*pairs))


class _Autocast(nn.Module):
    """A network in the precision of the run, without what accelerate wraps around the one that is trained."""

    def __init__(self, network: nn.Module, accelerator: Accelerator) -> None:
        super().__init__()
        self.network, self.accelerator = network, accelerator

    def forward(self, *inputs: Any) -> Any:
        with self.accelerator.autocast():
            return self.network(*inputs)
