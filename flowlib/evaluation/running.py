"""`evaluate`: one pass over a split with any number of predictors, to a `Report`."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import flowlib
from flowlib.downloads import fetch_weights
from flowlib.evaluation.album import Album, picture_key
from flowlib.evaluation.cache import ClipScores, describe, predictor_fingerprint
from flowlib.evaluation.clips import frame_numbers, kept_frames, videos_of
from flowlib.evaluation.comparison import ClipRow
from flowlib.evaluation.digests import Digests
from flowlib.evaluation.leaks import find_leaks, videos_seen
from flowlib.evaluation.pictures import ClipPictures, picture_clip
from flowlib.evaluation.report import Report
from flowlib.evaluation.scoring import EvalConfig, Truth, predict, score
from flowlib.metrics import Lpips
from flowlib.models import Predictor
from flowlib.progress import Progress

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # torchvision's, named by its SHA-256


def evaluate(
    predictors: Mapping[str, Predictor],
    dataset: Any,
    *,
    folder: str | Path,
    config: EvalConfig | None = None,
    train: Any = None,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    allow_leak: bool = False,
    pictures: bool = True,
    progress: bool = True,
) -> Report:
    """Score predictors on the clips of one split, side by side.

    Clips are taken one after the other, each for all predictors, and every score is on the disk before the next is
    made: killed and called again, it repeats only the predictor at work on that one clip.

    Args:
        predictors: name -> predictor. The first is the one the report is about; the others are compared with it.
            Networks are used where they are (their parameters' device) and as they are left (evaluation mode).
        dataset: samples as `TrajectoryDataset` gives them, and its attributes `videos` and `fingerprint`.
        folder: where scores, pictures and digests of clips are kept (`folder/scores`); good for `Report.save`, too.
        config: what is measured.
        train: the training split; if given, near-duplicate pictures in `dataset` are looked for and refused.
        about: predictor's name -> where it comes from, such as what `load_checkpoint` says; kept in the report.
        allow_leak: evaluate all the same on videos that a predictor was trained on; the report says so.
        pictures: predict the best, the median and the worst clip once more, for the pictures of the report.
        progress: show a bar.

    Raises:
        ValueError: no predictors or clips, a leak, or a prediction that isn't finite or has another size.
        FileNotFoundError, DownloadError: LPIPS weights that can't be had.

    >>> report = evaluate({"mine": model, "zero motion": ZeroMotion(8)}, test, folder="reports")  # doctest: +SKIP
    >>> report.save("reports")                                                                    # doctest: +SKIP
    """
    config, folder = config or EvalConfig(), Path(folder)
    unknown = sorted(set(about or ()) - set(predictors))
    if unknown:
        raise ValueError(f"about: expected names of predictors ({', '.join(predictors)}), got {unknown[0]!r}")
    if not predictors or len(dataset) == 0:
        raise ValueError(f"expected predictors and clips, got {len(predictors)} predictors and {len(dataset)} clips")
    warnings = _check_leaks(predictors, dataset, train, allow_leak, folder / "scores", progress)
    prints = {name: predictor_fingerprint(predictor) for name, predictor in predictors.items()}
    scores = {name: ClipScores(folder / "scores", prints[name], config) for name in predictors}
    digests = Digests(dataset, folder / "scores")
    with _evaluation_mode(predictors):
        rows, reused = _score_all(predictors, dataset, digests, scores, config, progress)
        report = Report(rows, _describe_run(predictors, prints, dataset, config, reused, about or {}), config, warnings)
        report.warnings += _unequal_lengths(report)
        if pictures:
            report.pictures = _extreme_clips(report, predictors, prints, dataset, digests, folder / "scores")
    return report


def _score_all(predictors, dataset, digests: Digests, scores, config: EvalConfig, progress: bool):
    """(predictor -> its clips' rows, how many of the scores were known before). Decodes no clip that is all known."""
    lpips = None
    if config.lpips_weights != "none":
        lpips = Lpips(fetch_weights(config.lpips_weights, default_url=ALEXNET, sha256=ALEXNET.split("-")[-1][:8]))
    rows: dict[str, list[ClipRow]] = {name: [] for name in predictors}
    reused = 0
    with Progress(total=len(dataset) * len(predictors), unit="prediction", disable=not progress) as bar:
        for index in range(len(dataset)):
            truth = None
            if index not in digests or any(digests[index].content not in scores[name] for name in predictors):
                sample = dataset[index]
                truth = Truth(sample, kept_frames(dataset, index, sample), config)
                digests.of(index, sample)
            clip = digests[index]
            for name, predictor in predictors.items():
                bar.set_description(name, refresh=False)  # a refresh would print a line for each
                if clip.content in scores[name]:
                    reused += 1
                else:
                    scores[name].add(clip.content, score(predict(predictor, truth, name), truth, lpips))
                rows[name].append(ClipRow(clip.clip, clip.video, scores[name].rows[clip.content]))
                bar.update()
    digests.save()
    return rows, reused


def _extreme_clips(report: Report, predictors, prints, dataset, digests: Digests, folder: Path) -> list[ClipPictures]:
    album, shown = Album(folder / "pictures.json"), {}
    for title, index in report.extreme_clips().items():
        where = frame_numbers(dataset, index)
        key = picture_key(title, digests[index].content, where, list(prints.items()), report.config)
        shown[key] = album.clips.get(key)
        if shown[key] is None:
            sample = dataset[index]
            truth = Truth(sample, kept_frames(dataset, index, sample), report.config)
            predictions = {name: predict(predictor, truth, name) for name, predictor in predictors.items()}
            shown[key] = picture_clip(title, truth, predictions, where)
    album.save(shown)
    return list(shown.values())


def _check_leaks(predictors, dataset, train, allow_leak: bool, folder: Path, progress: bool) -> list[str]:
    """What is wrong with the split, as sentences; raises instead unless `allow_leak`."""
    found = videos_seen(predictors, dataset)
    leaks = find_leaks(train, dataset, folder=folder, progress=progress) if train is not None and not found else []
    if leaks:
        listed = "; ".join(str(leak) for leak in leaks[:3])
        found.append(f"{len(leaks)} clips to test on have a near-duplicate among those to train on: {listed}")
    if found and not allow_leak:
        message = f"{'; '.join(found)}: expected videos that no predictor has seen"
        raise ValueError(f"{message}; allow_leak=True overrides, and the report will say so")
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in found]


def _unequal_lengths(report: Report) -> list[str]:
    """A warning for each predictor that was measured in fewer frames than others."""
    frames = {name: report.frames_ahead(name) for name in report.predictors}
    most = max(frames.values(), key=len)
    return [
        f"“{name}” predicts {len(own)} of {len(most)} frames only ({', '.join(map(str, own))}): numbers that are means "
        "over all frames, or of the last, are not measured like the others'."
        for name, own in frames.items()
        if own != most
    ]


@contextmanager
def _evaluation_mode(predictors: Mapping[str, Predictor]):
    with ExitStack() as stack:
        for predictor in predictors.values():
            if isinstance(predictor, torch.nn.Module):
                stack.callback(predictor.train, predictor.training)
                predictor.eval()
        yield


def _describe_run(predictors, prints, dataset, config: EvalConfig, reused: int, about) -> dict[str, Any]:
    """Everything that a number in the report depends on, as plain JSON values."""
    told = {name: {"fingerprint": prints[name], "describes_itself_as": describe(p)} for name, p in predictors.items()}
    for name, predictor in predictors.items():
        told[name] |= {"class": type(predictor).__qualname__, "input_frames": list(predictor.input_frames)}
        if isinstance(predictor, torch.nn.Module):
            told[name]["parameters"] = sum(parameter.numel() for parameter in predictor.parameters())
        if name in about:
            told[name]["about"] = dict(about[name])
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "predictors": told,
        "data": {
            "fingerprint": str(getattr(dataset, "fingerprint", "")),
            "split": str(getattr(dataset, "split", "")),
            "clips": len(dataset),
            "videos": list(videos_of(dataset)),
            "num_frames": int(getattr(dataset, "num_frames", 0)),
            "size": [int(side) for side in getattr(dataset, "size", ())],
        },
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
