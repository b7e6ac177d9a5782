"""Scores that are kept from run to run, by what was predicted, from what, and how it was measured.

One text file for each predictor and way of measuring, one line for each clip, written and synchronised clip by clip:
after a kill at most the clip at work is done again. A clip is known by its content, so other splits share its scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowlib.evaluation.scoring import EvalConfig

VERSION = 3  # raise it whenever a metric changes its meaning: old scores are then left alone
_STATISTICS = ("confidence", "resamples", "seed")  # what happens after scoring does not spoil a score


class ClipScores:
    """The scores of one predictor so far.

    Args:
        folder: of all caches.
        predictor: fingerprint of it.
        config: how it is measured.

    Attributes:
        path: the file.
        rows: clip's key -> its numbers.
    """

    def __init__(self, folder: Path, predictor: str, config: EvalConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{predictor[:16]}_{measuring_fingerprint(config)[:16]}.jsonl"
        self.rows: dict[str, dict[str, float]] = {}
        if not self.path.exists():
            return
        whole, _, torn = self.path.read_bytes().rpartition(b"\n")
        if torn:  # killed in the middle of a line
            os.truncate(self.path, len(whole) + 1 if whole else 0)
        for line in whole.decode().splitlines():
            entry = json.loads(line)
            self.rows[entry["clip"]] = {name: from_json(value) for name, value in entry["scores"].items()}

    def __contains__(self, clip: str) -> bool:
        return clip in self.rows

    def add(self, clip: str, row: dict[str, float]) -> None:
        """Keep a clip's numbers, on the disk before this returns."""
        line = json.dumps({"clip": clip, "scores": {name: to_json(value) for name, value in row.items()}})
        with self.path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[clip] = row


def predictor_fingerprint(predictor: Any) -> str:
    """SHA-256 of what a predictor is: its class, what it says of itself, and for networks every weight.

    One that is neither described nor a network, or is described as a lambda, gets a new fingerprint each time, so its
    scores are never reused.
    """
    digest = hashlib.sha256(f"{type(predictor).__module__}.{type(predictor).__qualname__}".encode())
    described = describe(predictor)
    nameless = described is None and not isinstance(predictor, torch.nn.Module)
    if nameless or "<lambda>" in json.dumps(described, default=str):
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    digest.update(json.dumps([described, list(predictor.input_frames)], sort_keys=True, default=str).encode())
    if isinstance(predictor, torch.nn.Module):
        for name, tensor in sorted(predictor.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(predictor: Any) -> dict[str, Any] | None:
    """What a predictor says of itself (`describe()`, or a network's `config`); None if it says nothing."""
    if hasattr(predictor, "describe"):
        return predictor.describe()
    config = getattr(predictor, "config", None)
    return {"name": type(predictor).__name__, **config} if isinstance(config, dict) else None


def measuring_fingerprint(config: EvalConfig) -> str:
    """SHA-256 of everything that decides a score, given prediction and truth."""
    settings = {name: value for name, value in asdict(config).items() if name not in _STATISTICS}
    settings["lpips_weights"] = config.lpips_weights != "none"  # the same network wherever its file lies
    return hashlib.sha256(json.dumps([VERSION, settings], sort_keys=True).encode()).hexdigest()


def to_json(value: float) -> float | str | None:
    """NaN as null and infinity as text, for JSON has neither."""
    return None if value != value else str(value) if value in (np.inf, -np.inf) else float(value)


def from_json(value: float | str | None) -> float:
    """The number that `to_json` was given."""
    return float("nan") if value is None else float(value)
