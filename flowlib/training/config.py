"""`TrainConfig`: everything that decides how a model is trained, as one frozen dataclass of plain JSON values."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

CHOICES = {
    "trained": ("last", "first+last", "first+second+last", "all"),
    "optimizer": ("sgd", "adam", "amsgrad", "adamw"),
    "schedule": ("constant", "cosine", "one_cycle"),
    "schedule_over": ("steps", "minutes"),
    "clip": ("none", "norm", "value"),
    "precision": ("no", "bf16", "fp16"),
    "device": ("auto", "cpu"),
}
AT_LEAST_ONE = ("steps", "batch_size", "accumulate", "validate_every", "save_every")
# Beyond it, a slip that fills the memory.
AT_MOST = {"batch_size": 2**16, "accumulate": 2**16, "num_workers": 1024, "threads": 1024}
POSITIVE = ("learning_rate", "clip_at")
BELOW_ONE = ("momentum", "ema_decay")
# What may differ when a run goes on, because the curve does not depend on it.
FREE = ("name", "device", "num_workers", "threads")
FREE += ("save_every", "picture_every", "session_minutes", "patience", "stop_at")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Every field is a plain value; `changes` compares two configs.

    >>> TrainConfig("two_frames", steps=2000).batch_size
    2
    """

    name: str = "fit"  # of the run; its folder is <time>_<name>
    steps: int = 1000  # optimiser steps in all, over all sessions
    batch_size: int = 2  # samples at a time, on each process
    accumulate: int = 1  # batches whose gradients make one step
    seed: int = 0  # decides the order of samples, augmentation and dropout

    trained: str = "all"  # last (head), first+last (stem, too), first+second+last (and the stage after it), all
    optimizer: str = "adamw"  # sgd, adam, amsgrad (Reddi et al. 2018), adamw
    learning_rate: float = 3e-4
    stem_learning_rate: float | None = None  # None: as learning_rate
    backbone_learning_rate: float | None = None  # None: as learning_rate
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of sgd
    schedule: str = "cosine"  # constant, cosine (to zero), one_cycle (up and down)
    schedule_over: str = "steps"  # or minutes: a cosine over as many of the steps as fit into session_minutes
    warmup_steps: int = 0  # of constant and cosine: linear from zero; of one_cycle: the way up (0: a third)
    clip: str = "norm"  # none, norm (of all gradients together), value (of each)
    clip_at: float = 1.0
    ema_decay: float = 0.0  # of the averaged weights that are validated and kept; 0: none

    precision: str = "no"  # no (float32), bf16, fp16
    device: str = "auto"  # auto, cpu
    channels_last: bool = True  # how pictures lie in memory; False is slower in most places
    compile: bool = False
    num_workers: int = 2  # processes that load samples
    threads: int = 0  # of the CPU; 0: as many as PyTorch takes. Small networks are faster with 1

    validate_every: int = 100  # steps
    validation_samples: int = 0  # how many samples to validate on; 0: all
    patience: int = 0  # stop after so many validations without a better score; 0: never
    stop_at: float | None = None  # stop when the validation's score is better than this; None: never
    save_every: int = 100  # steps between checkpoints: what a kill may cost
    picture_every: int = 0  # steps between sample pictures; 0: none
    session_minutes: float = 0.0  # stop after so many minutes, to go on when called again; 0: no limit

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for field in fields(self):
            name, kind, value = field.name, str(field.type), getattr(self, field.name)
            expected, right = _expected(name, kind, value)
            if not right:
                raise ValueError(f"{name}: expected {expected}, got {value!r}")
            if value is not None and not isinstance(value, (str, int, float)):  # NumPy's, which JSON doesn't know
                object.__setattr__(self, name, int(value) if kind == "int" else float(value))

        if self.schedule_over == "minutes" and (self.schedule != "cosine" or not self.session_minutes):
            got = f"{self.schedule!r} and {self.session_minutes:g}"
            raise ValueError(f"schedule_over: 'minutes' expects a cosine and session_minutes above 0, got {got}")

    def to_json(self) -> dict[str, Any]:
        """Plain values; `TrainConfig(**values)` is an equal config."""
        return asdict(self)

    def changes(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """The fields that differ: name -> (here, there)."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _expected(name: str, kind: str, value: Any) -> tuple[str, bool]:
    """What a field of that type is expected to be, and whether `value` is."""
    if kind in ("str", "bool"):
        return ("a text", isinstance(value, str)) if kind == "str" else ("True or False", isinstance(value, bool))
    if value is None and "None" in kind:
        return "", True
    if kind == "int":
        least, most = int(name in AT_LEAST_ONE), AT_MOST.get(name, 2**63 - 1)
        whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else -1
        return f"a whole number from {least} {f'to {most}' if name in AT_MOST else 'up'}", least <= whole <= most
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if name == "stop_at":
        return "a number or None", math.isfinite(number)
    if name in BELOW_ONE:
        return "0 (none) or a number below 1", 0 <= number < 1
    return (
        ("a number above 0", 0 < number < math.inf)
        if name in POSITIVE
        else ("a number from 0 up", 0 <= number < math.inf)
    )
