"""Score trackers on benchmarks: clips with known tracks, pairs of frames with known optical flow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowlib.clips import ClipSample
from flowlib.metrics import point_errors, tapvid_metrics
from flowlib.progress import Progress
from flowlib.trackers import Tracker
from flowlib.tracks import Tracks

PCK_SHARE = 0.2  # of the square root of the object's area; PIPs (Harley et al. 2022), section on BADJA
OUTLIER = (3.0, 0.05)  # pixels, and share of the true length: KITTI's outliers (Menze and Geiger 2015)

COLUMNS = {  # name -> (label, factor, decimals)
    "pck_t": ("PCK-T %", 100, 1),
    "mean_error": ("error px", 1, 2),
    "median_error": ("median px", 1, 2),
    "average_pts_within_thresh": ("δ_avg %", 100, 1),
    "average_jaccard": ("AJ %", 100, 1),
    "occlusion_accuracy": ("OA %", 100, 1),
    "epe": ("EPE px", 1, 3),
    "outliers": ("Fl %", 100, 2),
}


class StillTracker:
    """The tracker that sees no motion at all: what any other has to beat."""

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Every query [N 3] stays where it is through `frames` [S H W 3]."""
        return Tracks.still(queries, len(frames))

    def describe(self) -> dict[str, Any]:
        return {"name": "zero motion", "weights_sha256": ""}


@dataclass(frozen=True)
class TrackerReport:
    """A tracker's numbers on a benchmark.

    Attributes:
        tracker: what it says of itself.
        rows: one dict for each clip: `clip`, `note` and numbers named as in `COLUMNS`.
    """

    tracker: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def mean(self) -> dict[str, float]:
        """Mean over clips of each number; clips without it do not count."""
        names = [name for name in COLUMNS if any(name in row for row in self.rows)]
        return {name: _mean([row.get(name, np.nan) for row in self.rows]) for name in names}

    def markdown(self) -> str:
        return compare({self.tracker.get("name", "tracker"): self})


def evaluate_tracker(tracker: Tracker, benchmark: Iterable[ClipSample], *, progress: bool = False) -> TrackerReport:
    """Score a tracker on clips with known tracks, or on pairs of frames with known flow.

    For clips: `pck_t`, the share of joints within 0.2·√area of their true place in the annotated frames after the
    first (where the area is known); `mean_error` and `median_error` in pixels; δ_avg, and where hidden points are
    known AJ and OA, too (TAP-Vid). For pairs every pixel with known flow is tracked: `epe`, mean end-point error in
    pixels, and `outliers`, the share that is off by more than 3 pixels and 5 %.

    Args:
        tracker: (frames, queries) -> Tracks.
        benchmark: clips, as `dataset.benchmarks` reads them: `read_badja`, `read_tapvid` and `read_flow_pair`.
        progress: show a bar.

    Raises:
        ValueError: no clips, or tracks of another shape than asked for.
    """
    rows = []
    for clip in Progress(benchmark, tracker.describe().get("name", ""), unit="clip", disable=not progress):
        numbers = _score_flow(tracker, clip) if clip.dense else _score_points(tracker, clip)
        rows.append({"clip": clip.name, "note": clip.note, **numbers})
    if not rows:
        raise ValueError("benchmark: expected clips or pairs of frames, got none")
    return TrackerReport(tracker.describe(), rows)


def compare(reports: Mapping[str, TrackerReport]) -> str:
    """Trackers on one benchmark beside each other, as a Markdown table: clips, then their mean."""
    names = [name for name in COLUMNS if any(name in row for report in reports.values() for row in report.rows)]
    lines = ["| clip | tracker | " + " | ".join(COLUMNS[name][0] for name in names) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(names))
    clips = [row["clip"] for row in next(iter(reports.values())).rows]
    notes = sorted({row["note"] for report in reports.values() for row in report.rows if row["note"]})
    for index, clip in enumerate(clips):
        for label, report in reports.items():
            row = report.rows[index]
            mark = " " + "*" * (notes.index(row["note"]) + 1) if row["note"] else ""
            lines.append(_line(clip + mark, label, row, names))
    lines += [_line("mean", label, report.mean(), names) for label, report in reports.items()]
    return "\n".join(lines + [f"\n{'*' * (index + 1)} {note}" for index, note in enumerate(notes)])


def _score_points(tracker: Tracker, clip: ClipSample) -> dict[str, float]:
    truth = clip.truth
    predicted = _track(tracker, clip.frames, truth.queries, clip.name)
    errors = point_errors(truth.tracks, predicted.tracks, truth.visibility)
    after = np.arange(truth.num_frames)[:, None] > truth.queries[None, :, 0]
    measured = truth.visibility & after
    numbers = {"mean_error": _mean(errors[measured]), "median_error": _median(errors[measured])}
    tapvid = tapvid_metrics(truth, predicted, clip.query_mode)
    kept = ("average_pts_within_thresh", *(("average_jaccard", "occlusion_accuracy") if clip.occlusion_known else ()))
    numbers |= {name: tapvid[name] for name in kept}
    if clip.area is not None and (with_area := measured & np.isfinite(clip.area)[:, None]).any():
        near = errors < PCK_SHARE * np.sqrt(clip.area)[:, None]
        numbers["pck_t"] = float(near[with_area].mean())
    return numbers


def _score_flow(tracker: Tracker, pair: ClipSample) -> dict[str, float]:
    if pair.truth.num_points == 0:
        return {"epe": np.nan, "outliers": np.nan}
    predicted = _track(tracker, pair.frames, pair.truth.queries, pair.name).displacement[1]
    true = pair.truth.displacement[1]
    errors, lengths = np.linalg.norm(predicted - true, axis=-1), np.linalg.norm(true, axis=-1)
    outliers = (errors > OUTLIER[0]) & (errors > OUTLIER[1] * lengths)
    return {"epe": float(errors.mean()), "outliers": float(outliers.mean())}


def _track(tracker: Tracker, frames: np.ndarray, queries: np.ndarray, name: str) -> Tracks:
    queries = queries.astype(np.float32)
    tracks = tracker(frames, queries)
    if tracks.tracks.shape != (len(frames), len(queries), 2):
        expected = [len(frames), len(queries), 2]
        raise ValueError(f"{name}: expected tracks {expected}, got {list(tracks.tracks.shape)}")
    return tracks


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Of what is not NaN; NaN where nothing is left."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _line(clip: str, label: str, row: Mapping[str, Any], names: list[str]) -> str:
    cells = []
    for name in names:
        _, factor, digits = COLUMNS[name]
        value = row.get(name, np.nan)
        cells.append("–" if value != value else f"{value * factor:.{digits}f}")
    return f"| {clip} | {label} | " + " | ".join(cells) + " |"
