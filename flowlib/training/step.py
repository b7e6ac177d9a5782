"""One optimiser step, and one look at how good the model is; what both give is plain numbers."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from flowlib.training.config import TrainConfig
from flowlib.training.losses import loss_sums, make_targets, total_loss
from flowlib.training.optimisers import set_rates
from flowlib.training.session import Session
from flowlib.training.stream import ClipStream, mix, to_device, validation_batches


def train_step(session: Session, batches: list[dict]) -> dict:
    """One optimiser step over the given batches; returns what is logged of it."""
    config, accelerator, model = session.config, session.accelerator, session.model
    torch.manual_seed(mix(config.seed, session.step, accelerator.process_index))
    session.clips = gather_object([clip for batch in batches for clip in batch["clip"]])
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


def _clip(session: Session) -> Tensor:
    """Clip the gradients as the config says; returns their norm before."""
    config, accelerator = session.config, session.accelerator
    parameters = [p for p in session.network.parameters() if p.grad is not None]
    bound = config.clip_at if config.clip == "norm" else float("inf")
    norm = accelerator.clip_grad_norm_(parameters, bound)
    if config.clip == "value":
        torch.nn.utils.clip_grad_value_(parameters, config.clip_at)
    return norm


def _check_finite(session: Session, values: dict) -> None:
    """Stop before the weights take harm; with fp16 the scaler skips steps whose gradients overflow by itself."""
    names = ("loss",) if session.config.precision == "fp16" else ("loss", "grad_norm")
    broken = [f"{name} is {values[name]}" for name in names if not torch.isfinite(torch.tensor(values[name]))]
    if broken:
        raise FloatingPointError(
            f"step {session.step + 1}: the {' and the '.join(broken)} for the batch of clips "
            f"{', '.join(session.clips)}; the last good checkpoint is {session.folder / 'last.pt'}; "
            "try a lower learning rate, warmup_steps or clip='norm'"
        )


def _means(sums: Tensor, counts: Tensor, config: TrainConfig, num_frames: int) -> dict[str, float]:
    """Losses and errors from their sums, as plain numbers; `ade` is NaN where no point was visible."""
    loss = total_loss(sums, counts, config.visibility_weight)
    displacement, visibility, pixels, right = sums.tolist()
    points, told, measured = counts.tolist()
    ahead = told * (num_frames - 1) / num_frames if num_frames > 1 else told
    return {
        "loss": float(loss),
        "displacement_loss": displacement / max(points, 1),
        "visibility_loss": visibility / max(told, 1),
        "ade": pixels / measured if measured else float("nan"),
        "visibility_accuracy": right / max(ahead, 1),
    }


@torch.no_grad()
def validate(model: nn.Module, dataset, config: TrainConfig, accelerator: Accelerator) -> dict[str, float]:
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
