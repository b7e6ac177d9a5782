"""`fit`: the training loop, from the data's first look to the last checkpoint, on one process or several.

The loop is meant to be read: `_train` is all of it. What a step draws at random is seeded by (seed, step, process), so
a run that was killed and is called again gives bit for bit the curve of an undisturbed one on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from flowlib.progress import Progress
from flowlib.training.config import TrainConfig
from flowlib.training.pictures import predict_clips, save_picture
from flowlib.training.runs import MetricsLog, run_folder
from flowlib.training.session import Run, Session, check_inputs, make_accelerator, open_session, release, save
from flowlib.training.spikes import StatisticsWatch
from flowlib.training.step import train_step, validate
from flowlib.training.stream import ClipStream, training_batches
from flowlib.workspace import write_json


def fit(
    model: nn.Module, train, validation=None, config: TrainConfig | None = None, *, folder: str | Path | None = None
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
    config = TrainConfig() if config is None else config
    check_inputs(model, train, validation, config)
    accelerator = make_accelerator(config)
    named = run_folder(config.name) if folder is None else Path(folder)
    folder = broadcast_object_list([named])[0]  # processes may read their clocks in different seconds
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the caller's random numbers go on as if nothing had happened
        session = open_session(model, train, validation, config, folder, accelerator)
        accelerator.wait_for_everyone()  # none writes while another still reads
        try:
            if session.finished:
                accelerator.print(f"The work is done: {session.step} steps in {folder} (ended by {session.finished}).")
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
    watch = StatisticsWatch(session.model)
    batches = _training_batches(session)
    main = session.accelerator.is_main_process
    bar = Progress(None, config.name, config.steps, "step", initial=session.step, disable=not main)
    session.network.train()
    try:
        stop = ""
        while not stop:
            before = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - before
            values = train_step(session, batch) | watch.read()
            session.step += 1
            log.write({"step": session.step} | values | {"clips": session.clips})
            seconds = {"data_seconds": waited, "step_seconds": time.perf_counter() - before}
            log.write({"step": session.step} | seconds, "timings.jsonl")
            bar.set_postfix(loss=f"{values['loss']:.3g}", ade=f"{values['ade']:.2f} px", refresh=False)
            bar.update()
            if session.validation is not None and _due(session, config.validate_every):
                _judge(session, log)
            if config.picture_every and _due(session, config.picture_every) and main:
                _picture(session)
            if session.step == config.steps:
                session.finished = "steps"
            stop = session.finished or _time_is_up(session, started)
            if main and (stop or session.step % config.save_every == 0):
                log.flush()  # before the checkpoint, so that no step that is saved lacks its line
                save(session, "last.pt")
    finally:
        bar.close()
        log.close()
    session.accelerator.wait_for_everyone()


def _start_log(session: Session) -> MetricsLog:
    """The run's folder with its config and, at the very start, a checkpoint to fall back on; and its metrics."""
    if session.accelerator.is_main_process:
        session.folder.mkdir(parents=True, exist_ok=True)
        for halved in session.folder.glob(".*.part"):  # what a kill left of a checkpoint, up to half a gigabyte
            halved.unlink()
        write_json(session.folder / "config.json", session.about)
        if session.step == 0:
            save(session, "last.pt")
    return MetricsLog(session.folder, resume_at=session.step, quiet=not session.accelerator.is_main_process)


def _training_batches(session: Session) -> Iterator[list[dict]]:
    config, accelerator = session.config, session.accelerator
    stream = ClipStream(session.train, session.model.input_frames, seed=config.seed, augment=config.augment)
    return training_batches(
        stream,
        steps=range(session.step, config.steps),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=config.num_workers,
    )


def _due(session: Session, every: int) -> bool:
    return session.step % every == 0 or session.step == session.config.steps


def _time_is_up(session: Session, started: float) -> str:
    minutes, accelerator = session.config.session_minutes, session.accelerator
    late = torch.tensor(float(minutes > 0 and time.monotonic() - started > 60 * minutes), device=accelerator.device)
    return "session_minutes" if accelerator.reduce(late, "sum") > 0 else ""  # all processes stop, or none


def _judge(session: Session, log: MetricsLog) -> None:
    """Validate, keep the checkpoint if it is the best, and decide whether to stop."""
    config = session.config
    values = validate(session.judged_model, session.validation, config, session.accelerator)
    session.network.train()
    session.stale += 1
    if values["ade"] < (float("inf") if session.best is None else session.best):  # never where nothing was visible
        session.best, session.stale = values["ade"], 0
    if config.patience and session.stale >= config.patience:
        session.finished = "patience"
    if values["ade"] < config.stop_below:
        session.finished = "stop_below"
    log.write({"step": session.step} | {f"validation_{key}": value for key, value in values.items()})
    if session.stale == 0 and session.accelerator.is_main_process:
        save(session, "best.pt")


def _picture(session: Session) -> None:
    """Save what the model says of the first clips, beside the truth."""
    dataset = session.validation or session.train
    batch, prediction = predict_clips(session.judged_model, dataset, min(2, len(dataset)))
    save_picture(session.folder / "pictures" / f"step_{session.step:06d}.png", batch, prediction)
    session.network.train()


def _advice(config: TrainConfig) -> str:
    half = max(1, config.batch_size // 2)
    more = config.accumulate * config.batch_size // half
    return (
        f"the device has too little memory for batch_size={config.batch_size}: try batch_size={half} with "
        f"accumulate={more} (the same step), precision='bf16', a smaller crop, or ask largest_batch(model, train)"
    )
