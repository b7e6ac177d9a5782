"""`evaluate`: one pass over a split with any number of methods, to a `Report`."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import flowlib
from flowlib.dataset.about import fingerprint_of, split_of, videos_of
from flowlib.devices import cpu_threads
from flowlib.evaluation.cache import (
    Cache,
    Samples,
    Scores,
    method_fingerprint,
    strip_from_json,
    strip_key,
    strip_to_json,
)
from flowlib.evaluation.comparison import SampleRow
from flowlib.evaluation.leaks import find_leaks, groups_seen
from flowlib.evaluation.report import Report
from flowlib.evaluation.statistics import EvalConfig
from flowlib.models.protocols import Predictor, description_of, role_of
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.tasks.protocol import Strip, Task

logger = logging.getLogger(__name__)


def evaluate(
    methods: Mapping[str, Any],
    task: Task,
    dataset: Any,
    *,
    folder: str | Path,
    config: EvalConfig | None = None,
    train: Any = None,
    calibration: Any = None,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    allow_leak: bool = False,
    pictures: bool = True,
    progress: bool = True,
) -> Report:
    """Score methods on the samples of one split, side by side.

    Samples are taken one after the other, each for all methods, and every score is on the disk before the next is
    made: killed and called again, it repeats only the method at work on that one sample. A metric that is new, or has
    a raised version, is computed for all samples, and no other is.

    Args:
        methods: name -> method. The first is the one the report is about; the others are compared with it.
            Networks are used where they are (their parameters' device) and as they are left (evaluation mode).
        task: what they are to do, and what is measured, such as `TrajectoryTask()`.
        dataset: samples as the task takes them: clips of shards, a `ClipList`, …
        folder: where scores, pictures and hashes of samples are kept (`folder/scores`); good for `Report.save`, too.
        config: how means get their intervals.
        train: the training split; if given, near-duplicate pictures in `dataset` are looked for and refused.
        calibration: samples that what methods promise was calibrated on; near-duplicates are looked for between them
            and `dataset`, and between them and `train`, and refused likewise.
        about: method's name -> where it comes from, such as what `load_checkpoint` says; kept in the report.
        allow_leak: evaluate all the same on videos that a method was trained on; the report says so.
        pictures: predict the best, the median and the worst sample once more, for the pictures of the report.
        progress: show a bar.

    Raises:
        ValueError: no methods or samples, a leak, or an answer that the task refuses.
    """
    if not isinstance(task, Task):
        raise ValueError(f"task: expected a Task, such as TrajectoryTask(), got {type(task).__name__}")
    if not isinstance(methods, Mapping):
        raise ValueError(f"methods: expected a dict of methods by name, got {type(methods).__name__}")
    for name, method in methods.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ValueError(f"methods: expected names that can be printed, got {name!r}")
        if isinstance(method, Predictor) and not isinstance(method.input_frames, Sequence):
            got = repr(method.input_frames)[:80]
            raise ValueError(f"method {name!r}: expected input_frames as a sequence such as (0, 3), got {got}")
    config, folder = config or EvalConfig(), Path(folder).expanduser()
    unknown = sorted(set(about or ()) - set(methods))
    if unknown:
        raise ValueError(f"about: expected names of methods ({', '.join(methods)}), got {unknown[0]!r}")
    if not methods or len(dataset) == 0:
        got = f"{counted(len(methods), 'method')} and {counted(len(dataset), task.unit)}"
        raise ValueError(f"expected methods and {task.unit}s, got {got}")
    warnings = _check_leaks(methods, task, (dataset, train, calibration), allow_leak, folder / "scores", progress)
    prints = {name: method_fingerprint(method) for name, method in methods.items()}
    scores = {name: Scores(folder / "scores", prints[name], task) for name in methods}
    samples = Samples(task, dataset, folder / "scores")
    with ExitStack() as modes:
        modes.enter_context(cpu_threads(config.threads))
        for method in methods.values():
            if isinstance(method, torch.nn.Module):
                modes.callback(method.train, method.training)
                method.eval()
        rows, reused = _score_all(methods, task, dataset, samples, scores, progress)
        logger.info("%s: %d of %d scores were known", folder, reused, len(methods) * len(dataset))
        run = _describe_run(methods, prints, task, dataset, config, reused, about or {})
        report = Report(task, rows, run, config, warnings)
        report.warnings += report.unequal_series()
        if pictures:
            report.strips = _extreme_samples(report, methods, prints, dataset, samples, folder / "scores")
    return report


def _score_all(
    methods: Mapping[str, Any], task: Task, dataset: Any, samples: Samples, scores: Mapping[str, Scores], progress: bool
) -> tuple[dict[str, list[SampleRow]], int]:
    """(method -> its samples' rows, how many of the scores were known before). Decodes no sample that is all known."""
    rows: dict[str, list[SampleRow]] = {name: [] for name in methods}
    reused = 0
    with Progress(total=len(dataset) * len(methods), unit="prediction", disable=not progress) as bar:
        for index in range(len(dataset)):
            sample = None if index in samples else dataset[index]
            identity = samples.of(index, sample).identity
            case = None
            for name, method in methods.items():
                bar.set_description(name, refresh=False)  # a refresh would print a line for each
                if scores[name].missing(identity.content):
                    if case is None:
                        case = task.case(dataset[index] if sample is None else sample)
                    scores[name].add(identity.content, task.answer(task.predict(method, case, name), case))
                else:
                    reused += 1
                rows[name].append(SampleRow(identity.name, identity.group, scores[name].row(identity.content)))
                bar.update()
    return rows, reused


def _extreme_samples(
    report: Report, methods: Mapping[str, Any], prints: Mapping[str, str], dataset: Any, samples: Samples, folder: Path
) -> list[Strip]:
    cache, task, keys = Cache(folder / "pictures.jsonl"), report.task, []
    for title, index in report.extreme_samples().items():
        identity = samples[index].identity
        key = strip_key(title, identity, prints, task)
        if key not in cache.entries:
            case = task.case(dataset[index])
            predictions = {name: task.predict(method, case, name) for name, method in methods.items()}
            strip = task.strip(title, identity, case, predictions)
            if strip is None:
                return []
            cache.put(key, strip_to_json(strip))
        keys.append(key)
    cache.keep(keys)
    return [strip_from_json(cache.entries[key]) for key in keys]


def _check_leaks(
    methods: Mapping[str, Any], task: Task, parts: tuple[Any, Any, Any], allow_leak: bool, folder: Path, progress: bool
) -> list[str]:
    """What is wrong with the parts to test on, to train on and to calibrate on (the last two may be None), as
    sentences; raises instead unless `allow_leak`."""
    found = groups_seen(task, methods, parts[0])
    named: dict[str, Any] = dict(zip(("to test on", "to train on", "to calibrate on"), parts))
    known = bool(found)  # then the pictures need not be looked at
    for own, other in (
        ("to test on", "to train on"),
        ("to test on", "to calibrate on"),
        ("to calibrate on", "to train on"),
    ):
        if known or named[own] is None or named[other] is None:
            continue
        leaks = find_leaks(task, named[other], named[own], folder=folder, progress=progress)
        if leaks:
            listed = "; ".join(str(leak) for leak in leaks[:3])
            found.append(f"{len(leaks)} {task.unit}s {own} have a near-duplicate among those {other}: {listed}")
    if found and not allow_leak:
        message = f"{'; '.join(found)}: expected {task.group}s that no method has seen"
        raise ValueError(f"{message}; allow_leak=True overrides, and the report will say so")
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in found]


def _describe_run(
    methods: Mapping[str, Any], prints: Mapping[str, str], task: Task, dataset: Any, config: EvalConfig, reused: int,
    about: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Everything that a number in the report depends on, as plain JSON values."""
    told: dict[str, dict[str, Any]] = {}
    for name, method in methods.items():
        told[name] = {"role": role_of(method), "class": type(method).__qualname__, "fingerprint": prints[name]}
        told[name]["description"] = description_of(method)
        if isinstance(method, Predictor):
            told[name]["input_frames"] = list(method.input_frames)
        if isinstance(method, torch.nn.Module):
            told[name]["parameters"] = sum(parameter.numel() for parameter in method.parameters())
        if name in about:
            told[name]["about"] = dict(about[name])
    data = {"fingerprint": fingerprint_of(dataset), "split": split_of(dataset), f"{task.unit}s": len(dataset)}
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "task": {"name": task.name, "scoring": task.score_settings()},
        "methods": told,
        "data": data | {f"{task.group}s": list(videos_of(dataset))} | task.describe_data(dataset),
        "config": asdict(config),
        "scores_reused": reused,
        "versions": {name: _version(name) for name in ("torch", "torchvision", "torchmetrics", "numpy", "scipy")}
        | {"flowlib": flowlib.__version__, "python": platform.python_version()},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
