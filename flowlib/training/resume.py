"""Whether a run folder holds the run that is asked for."""

from __future__ import annotations

from pathlib import Path

from flowlib.training.config import FREE, TrainConfig


def check_same_run(folder: Path, meta: dict, about: dict) -> None:
    """Raise `ValueError` if going on in `folder` would join two different runs into one curve.

    What the curve does not depend on may differ (`config.FREE`); more steps may be asked for where the learning rate
    does not depend on their number.
    """
    before, now = TrainConfig.from_json(meta["fit"]), TrainConfig.from_json(about["fit"])
    differing = {name: pair for name, pair in before.changes(now).items() if name not in FREE}
    if "steps" in differing and now.schedule == "constant" and now.steps >= meta["step"]:
        del differing["steps"]
    if differing:
        what = ", ".join(f"{name}={was!r}, not {asked!r}" for name, (was, asked) in differing.items())
        raise ValueError(f"{folder}: expected a run with the same settings, got one with {what}; give it another name")
    if meta["processes"] != about["processes"]:
        here, there = about["processes"], meta["processes"]
        raise ValueError(f"{folder}: expected a run on {here} processes, got one on {there}: a step has other clips")
    for split in ("train", "validation"):
        if meta["data"][split] != about["data"][split]:
            was, asked = meta["data"][split], about["data"][split]
            raise ValueError(f"{folder}: expected a run on the same {split} data {asked}, got one on {was}")


def still_finished(meta: dict, config: TrainConfig) -> str:
    """Why a run needs no more steps under `config`, or "": it may ask for more steps or a smaller error than before."""
    if meta["step"] >= config.steps:
        return "steps"
    if config.patience and meta["stale"] >= config.patience:
        return "patience"
    if meta["best_ade"] is not None and meta["best_ade"] < config.stop_below:
        return "stop_below"
    return ""
