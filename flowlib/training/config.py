"""`TrainConfig`: everything that decides how a model is trained, as one frozen dataclass of plain JSON values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from flowlib.augmentation import AugmentConfig

CHOICES = {
    "loss": ("mse", "l1", "huber", "charbonnier", "laplace"),
    "trained": ("last", "first+last", "first+second+last", "all"),
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "cosine", "one_cycle"),
    "clip": ("none", "norm", "value"),
    "precision": ("no", "bf16", "fp16"),
    "device": ("auto", "cpu"),
}
AT_LEAST_ONE = ("steps", "batch_size", "accumulate", "validate_every", "save_every")
POSITIVE = ("learning_rate", "huber_delta", "clip_at")
# What may differ when a run goes on, because the curve does not depend on it.
FREE = ("name", "device", "num_workers", "save_every", "picture_every", "session_minutes", "patience", "stop_below")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Every field is a plain value; `changes` compares two configs."""

    name: str = "fit"  # of the run; its folder is <time>_<name>
    steps: int = 1000  # optimiser steps in all, over all sessions
    batch_size: int = 2  # clips at a time, on each process
    accumulate: int = 1  # batches whose gradients make one step
    seed: int = 0  # decides the order of clips, augmentation and dropout

    loss: str = "l1"  # of displacement: mse, l1, huber, charbonnier, laplace (needs a model with log_scale)
    huber_delta: float = 1.0  # where Huber turns linear, in units of the target scale
    masked: bool = True  # count visible points only; False counts all, as the tracker guessed them
    visibility_weight: float = 0.1  # of the visibility's cross-entropy beside the displacement's loss
    target_scale: float = 0.0  # pixels that count as 1 in the loss; 0 fits it to the training set (root mean square)

    trained: str = "all"  # last (head), first+last (stem, too), first+second+last (and the stage after it), all
    optimizer: str = "adamw"  # sgd, adam, adamw
    learning_rate: float = 3e-4
    stem_learning_rate: float | None = None  # None: as learning_rate
    backbone_learning_rate: float | None = None  # None: as learning_rate
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of sgd
    schedule: str = "cosine"  # constant, cosine (to zero), one_cycle (up and down)
    warmup_steps: int = 0  # of constant and cosine: linear from zero; of one_cycle: the way up (0: a third)
    clip: str = "norm"  # none, norm (of all gradients together), value (of each)
    clip_at: float = 1.0
    ema_decay: float = 0.0  # of the averaged weights that are validated and kept; 0: none

    augment: AugmentConfig | None = None
    precision: str = "no"  # no (float32), bf16, fp16
    device: str = "auto"  # auto, cpu
    channels_last: bool = True  # how pictures lie in memory; False is slower in most places
    compile: bool = False
    num_workers: int = 2  # processes that load clips

    validate_every: int = 100  # steps
    validation_clips: int = 0  # how many clips to validate on; 0: all
    patience: int = 0  # stop after so many validations without a better ADE; 0: never
    stop_below: float = 0.0  # stop when the validation's ADE is below so many pixels; 0: never
    save_every: int = 100  # steps between checkpoints: what a kill may cost
    picture_every: int = 0  # steps between sample pictures; 0: none
    session_minutes: float = 0.0  # stop after so many minutes, to go on when called again; 0: no limit

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name}: expected a whole number from 1 up, got {value!r}")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay: expected 0 (none) or a number below 1, got {self.ema_decay!r}")

    def to_json(self) -> dict:
        """Plain values, from which `from_json` makes an equal config."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> TrainConfig:
        """The config that `to_json` gave, also after a round through JSON, which knows no tuples."""
        augment = values.get("augment")
        if augment is not None:
            plain = {key: tuple(value) if isinstance(value, list) else value for key, value in augment.items()}
            augment = AugmentConfig(**plain)
        return cls(**values | {"augment": augment})

    def changes(self, other: TrainConfig) -> dict[str, tuple]:
        """The fields that differ: name -> (here, there)."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
